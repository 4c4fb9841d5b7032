"""What counts as a visit, by what the browser says of it."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.capture.site import cookies_of
from tests.capture.site import is_untouched
from tests.capture.site import OTHER
from tests.capture.site import TOKEN
from tests.capture.site import token_of

SITES = ["same-origin", "same-site", "cross-site", "none"]
EMBEDDED = ["image", "iframe", "frame", "embed", "object", "script", "style", "video"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dest", [*EMBEDDED, "report", "Document", ""])
def test_what_is_embedded_captures_nothing_wherever_it_is_embedded(
    client: FlaskClient, dest: str, site: str
) -> None:
    headers = {"Sec-Fetch-Dest": dest, "Sec-Fetch-Site": site}
    response = client.get(f"/?mmref={TOKEN}", headers=headers)
    assert response.status_code == 200
    assert not cookies_of(response)
    assert client.get(f"/who?mmref={TOKEN}", headers=headers).text == "nobody"
    assert token_of(client) == "nobody"


def test_what_is_embedded_takes_no_earlier_token_away(client: FlaskClient) -> None:
    client.get(f"/?mmref={TOKEN}")
    client.get(f"/?mmref={OTHER}", headers={"Sec-Fetch-Dest": "image"})
    assert token_of(client) == TOKEN


@pytest.mark.parametrize(
    ("site", "token"),
    [
        ("same-origin", TOKEN),
        ("same-site", TOKEN),
        ("cross-site", "nobody"),
        ("none", "nobody"),
        (None, "nobody"),
    ],
)
def test_what_a_script_fetches_is_captured_for_the_sites_own_scripts_only(
    client: FlaskClient, site: str | None, token: str
) -> None:
    headers = {"Sec-Fetch-Dest": "empty"}
    if site is not None:
        headers["Sec-Fetch-Site"] = site
    client.get(f"/?mmref={TOKEN}", headers=headers)
    assert token_of(client) == token


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    "purpose",
    [
        {},
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
    ],
)
def test_a_page_is_a_visit_and_so_is_one_that_is_loaded_before_the_click(
    client: FlaskClient, purpose: dict[str, str], site: str
) -> None:
    headers = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": site, **purpose}
    client.get(f"/?mmref={TOKEN}", headers=headers)
    assert token_of(client) == TOKEN


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Purpose": "prefetch"}, {"Sec-Purpose": ""}],
)
def test_a_browser_that_does_not_say_what_it_loads_is_believed(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    client.get(f"/?mmref={TOKEN}", headers=headers)
    assert token_of(client) == TOKEN


def test_a_page_that_was_embedded_is_asked_for_again_when_it_is_visited(
    client: FlaskClient,
) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "image"}
    response = client.get(f"/?mmref={TOKEN}", headers=headers)
    assert response.cache_control.no_store


def test_bytes_that_are_no_text_are_no_token(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    raw = {"QUERY_STRING": "mmref=x\xff"}
    response = client.get("/", environ_overrides=raw)
    assert is_untouched(response)
    assert "Traceback" not in caplog.text
