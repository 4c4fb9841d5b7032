"""Attempts without a response: the outcome, and the hint for the owner."""

from __future__ import annotations

import socket
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import ReferralClient
from flask_mmolove.protocol.failure import CA_VARIABLES
from flask_mmolove.protocol.failure import explain
from flask_mmolove.protocol.failure import PROXY_VARIABLES
from flask_mmolove.protocol.response import Verdict
from tests.protocol.clients import at
from tests.protocol.clients import BODY
from tests.protocol.clients import failure
from tests.protocol.clients import PASSWORD
from tests.protocol.clients import Reach
from tests.protocol.clients import report
from tests.protocol.clients import SECRET
from tests.protocol.rawserver import chunked
from tests.protocol.rawserver import drip
from tests.protocol.rawserver import json_response
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import Reply
from tests.protocol.rawserver import reset
from tests.protocol.rawserver import response
from tests.protocol.rawserver import then_close
from tests.protocol.rawserver import then_hold
from tests.protocol.tlsserver import Authority

NOBODY = "https://127.0.0.1:1/api"
NO_RESPONSE: dict[str, Reply] = {
    "reset": reset,
    "closed": then_close(b""),
    "cut in the body": then_close(response(Content_Length="500")),
    "cut in a chunk": then_close(chunked(b'{"ok":true}')[:-12]),
    "no HTTP": then_close(b"220 mail ESMTP\r\n"),
    "silence": then_hold(b""),
    "a byte at a time": drip(json_response(ok=True, padding="x" * 200)),
}


@pytest.mark.parametrize("reply", NO_RESPONSE.values(), ids=NO_RESPONSE)
def test_no_response_is_an_outcome_and_raises_nothing(
    reach: Reach, reply: Reply
) -> None:
    with RawServer(reply) as server:
        outcome = reach(server.url, timeout=0.3).send(BODY)
    assert (outcome.status, outcome.ok, outcome.verdict) == (0, False, Verdict.RETRY)
    assert outcome.body
    assert "object at 0x" not in outcome.body
    assert SECRET not in repr(outcome)


def test_a_head_that_is_cut_off_is_no_success(reach: Reach) -> None:
    with RawServer(then_close(json_response(ok=True)[:30])) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.ok, outcome.verdict) == (False, Verdict.RETRY)


def test_a_length_that_is_too_short_is_no_success(reach: Reach) -> None:
    body = b'{"ok":true,"state":"qualified"}'
    with RawServer(response(body=body, Content_Length="12")) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.ok, outcome.verdict) == (False, Verdict.RETRY)


def test_a_refused_connection_says_so(reach: Reach) -> None:
    with RawServer(reset) as server:
        pass
    outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.verdict) == (0, Verdict.RETRY)
    assert "Connection refused" in outcome.body


def test_a_host_name_that_does_not_exist_says_so(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    outcome = reach("https://mmolove.invalid/").send(BODY)
    assert (outcome.status, outcome.verdict) == (0, Verdict.RETRY)
    assert "Name or service not known" in outcome.body


def test_without_a_variable_the_network_is_asked_about() -> None:
    hint = "No response came from MMOLOVE_ENDPOINT: is the network up?"
    assert explain(TimeoutError()) == hint


def test_on_this_machine_the_sandbox_is_asked_about() -> None:
    assert "start it with 'flask mmolove sandbox'" in failure(endpoint=NOBODY).hint


@pytest.mark.parametrize("name", PROXY_VARIABLES)
def test_the_environment_s_proxy_is_not_used_but_spoken_of(
    monkeypatch: pytest.MonkeyPatch, proxy: RawServer, name: str
) -> None:
    monkeypatch.setenv(name, at(proxy, f"anna:{PASSWORD}@"))
    outcome = failure(endpoint=NOBODY)
    assert not proxy.requests
    assert f"variable {name} is set but not used" in outcome.hint
    assert "set MMOLOVE_PROXY to it" in outcome.hint
    assert PASSWORD not in repr(outcome)


# -- a certificate authority -----------------------------------------------------------


def test_a_private_authority_is_trusted_where_it_is_named(
    mmolove: RawServer, authority: Authority
) -> None:
    endpoint = mmolove.url.replace("http:", "https:")
    assert report(endpoint=endpoint, ca_bundle=authority.file).ok
    outcome = failure(endpoint=endpoint)
    assert "certificate verify failed" in outcome.body
    assert "set MMOLOVE_CA_BUNDLE to the file of its certificates" in outcome.hint
    assert "environment" not in outcome.hint


@pytest.mark.parametrize("name", CA_VARIABLES)
def test_the_environment_s_authorities_are_not_trusted_but_spoken_of(
    monkeypatch: pytest.MonkeyPatch,
    mmolove: RawServer,
    authority: Authority,
    name: str,
) -> None:
    monkeypatch.setenv(name, str(authority.file))
    hint = failure(endpoint=mmolove.url.replace("http:", "https:")).hint
    assert "MMOLOVE_CA_BUNDLE" in hint
    assert f"variable {name} is set but not used." in hint


def test_a_bundle_without_the_right_authority_is_named(
    mmolove: RawServer, authority: Authority
) -> None:
    # The host's own certificate is no authority.
    import certifi

    outcome = failure(
        endpoint=mmolove.url.replace("http:", "https:"), ca_bundle=certifi.where()
    )
    assert f"{certifi.where()} (MMOLOVE_CA_BUNDLE)" in outcome.hint


def test_a_bundle_that_is_gone_is_no_more_than_a_failed_attempt(
    mmolove: RawServer, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_bytes())
    client = ReferralClient(
        server_id="srv-1",
        secret="secret",
        endpoint=mmolove.url.replace("http:", "https:"),
        ca_bundle=file,
    )
    file.unlink()
    outcome = client.qualified("tok", server_event_id="qual-7")
    client.close()
    assert (outcome.status, outcome.verdict) == (0, Verdict.RETRY)
    assert str(file) in outcome.body
