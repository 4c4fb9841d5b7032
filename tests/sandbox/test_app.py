"""Who may call, the share links and the pages."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qs
from urllib.parse import urlsplit

import pytest
from werkzeug.test import create_environ
from werkzeug.test import run_wsgi_app

from flask_mmolove.protocol.wire import is_token
from tests.sandbox.site import DAY
from tests.sandbox.site import error
from tests.sandbox.site import EVENTS
from tests.sandbox.site import NOW
from tests.sandbox.site import sign
from tests.sandbox.site import Site


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8765",
        "127.8.9.10",
        "localhost",
        "LOCALHOST:8765",
        "localhost.:8765",
        "[::1]:8765",
        "mmolove.test",
        "MMOLove.Test:80",
    ],
)
def test_it_may_be_called_by_its_own_names(host: str) -> None:
    site = Site(host_names=["mmolove.test", "other.test"])
    assert site.client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "10.0.0.1",
        "0.0.0.0:8765",
        "[::2]",
        "[::1",
        "x:y:z",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/history.json", "/r/demo-server?ref=a", EVENTS])
def test_it_may_not_be_called_by_another_name(site: Site, host: str, path: str) -> None:
    environ = create_environ(path) | {"HTTP_HOST": host}
    content, status, _ = run_wsgi_app(site.app, environ)
    assert status == "403 FORBIDDEN"
    assert b"--host-name" in b"".join(content)
    assert not site.service.referrals and not site.service.arrivals


def test_a_share_link_leads_to_the_registration_page_with_a_token(site: Site) -> None:
    response = site.client.get("/r/demo-server?ref=anna")
    assert response.status_code == 302
    url = urlsplit(response.headers["Location"])
    assert url._replace(query="").geturl() == "http://127.0.0.1:5000/register"
    token = parse_qs(url.query)["mmref"][0]
    assert is_token(token)
    [referral] = site.service.referrals
    assert (referral.token, referral.ref, referral.state) == (token, "anna", "clicked")
    assert referral.expires == NOW + 90 * DAY


def test_the_query_of_the_registration_page_is_kept() -> None:
    site = Site(registration_url="http://127.0.0.1/join?lang=de&x=%20#form")
    location = site.client.get("/r/demo-server?ref=anna").headers["Location"]
    assert location.startswith("http://127.0.0.1/join?lang=de&x=%20&mmref=")
    assert location.endswith("#form")


@pytest.mark.parametrize(
    "query", ["", "?ref=", "?ref=%20", "?ref=%C3%A4", "?ref=a%0A1"]
)
def test_a_share_link_without_a_code_is_a_readable_400(site: Site, query: str) -> None:
    response = site.client.get(f"/r/demo-server{query}")
    assert response.status_code == 400
    assert response.mimetype == "text/html"
    assert "A share link ends in ?ref=" in response.text


@pytest.mark.parametrize(
    ("host", "query"), [("127.0.0.1", "ref=\xed"), ("a" * 64, "ref=anna")]
)
def test_what_no_browser_sends_is_refused_and_is_no_error(
    site: Site, host: str, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = {"HTTP_HOST": host, "QUERY_STRING": query}
    response = site.client.get("/r/demo-server", environ_overrides=raw)
    assert 400 <= response.status_code < 500
    assert "sandbox" in response.text
    assert not caplog.records


def test_a_share_link_of_an_unknown_server_is_a_readable_404(site: Site) -> None:
    response = site.client.get("/r/<b>?ref=anna")
    assert response.status_code == 404
    assert "There is no server" in response.text
    assert "<b>" not in response.text


# -- the pages -------------------------------------------------------------------------


def test_the_page_shows_what_arrived_and_why_it_was_refused(site: Site) -> None:
    fields = site.fields(referee_identity="<script>alert(1)</script>")
    site.send(fields)
    site.send(fields | {"server_event_id": "reg-newest"}, secret="wrong")
    page = site.client.get("/").text
    assert "not the real service" in page
    assert 'href="http://localhost/r/demo-server?ref=demo"' in page
    assert "The signature does not match the body." in page
    assert "MMOLOVE_REFERRAL_SECRET is not this server" in page
    assert page.index("reg-newest") < page.index("reg-7842")
    assert "&lt;script&gt;alert(1)" in page
    assert fields["token"] not in page
    assert fields["token"][:6] in page


def test_the_page_has_no_script_no_inline_style_and_nothing_from_elsewhere(
    site: Site,
) -> None:
    site.send(site.fields())
    response = site.client.get("/")
    assert "<script" not in response.text
    assert "<style" not in response.text
    assert "style=" not in response.text
    assert 'href="/static/sandbox.css"' in response.text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    with site.client.get("/static/sandbox.css") as style:
        assert style.mimetype == "text/css"
        assert "url(" not in style.get_data(as_text=True)


def test_the_page_is_helpful_before_anything_arrived(site: Site) -> None:
    servers = site.service.servers
    servers["demo-server"] = replace(
        servers["demo-server"], secret=None, referrals=False
    )
    page = site.client.get("/").text
    assert "Nothing has arrived yet" in page
    assert "Referrals are switched off" in page
    assert "no referral secret yet" in page


def test_the_page_shows_the_last_hundred(site: Site) -> None:
    for number in range(101):
        site.send(site.fields(token="x", server_event_id=f"reg-{number}."))
    page = site.client.get("/").text
    assert "The last 100 of 101." in page
    assert "reg-100." in page
    assert "reg-0." not in page


def test_programs_can_read_the_history(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    site.post(b'{"\xff', sign(b""))
    history = site.client.get("/history.json").json
    assert history is not None
    first, second = history["arrivals"]
    assert (first["token"], first["status"]) == (fields["token"], 200)
    assert json.loads(first["body"]) == fields
    assert second["body"] == '{"\\xff'
    assert history["referrals"][0]["state"] == "registered"


def test_a_lone_surrogate_harms_no_page(site: Site) -> None:
    site.send(site.fields(server_event_id="a\ud800b"))
    assert "a?b" in site.client.get("/").text
    assert site.client.get("/history.json").status_code == 200


def test_programs_get_json_for_a_wrong_method(site: Site) -> None:
    response = site.client.get(EVENTS)
    assert error(response) == (405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_responses_carry_the_date_of_the_injected_clock(site: Site) -> None:
    for response in (site.client.get("/"), site.send(site.fields())):
        assert response.headers.getlist("Date") == ["Fri, 06 Dec 2024 15:46:40 GMT"]
