from __future__ import annotations

import json
import typing as t

import pytest
from flask import Flask

from flask_mmolove.admin import attempts
from flask_mmolove.admin.wording import next_step
from flask_mmolove.delivery.events import NO_CALLBACK
from flask_mmolove.outbox.entry import ANSWER_LENGTH
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.rules import as_second
from flask_mmolove.outbox.rules import begin
from flask_mmolove.outbox.rules import decision
from flask_mmolove.outbox.rules import new_entry
from flask_mmolove.outbox.rules import settlement_columns
from flask_mmolove.outbox.states import EntryState
from flask_mmolove.settings import Settings
from tests.conftest import MakeApp


def make(
    name: str = "registered", token: str = "tok.secret", **columns: t.Any
) -> Entry:
    event = make_event(name, "player-7", token, "srv", 1_700_000_000_000, False)
    return new_entry("player-7", event, ("pending", 1), 1)._replace(**columns)


def settings_of(app: Flask) -> Settings:
    settings = app.extensions["mmolove"].settings
    assert isinstance(settings, Settings)
    return settings


def results(entry: Entry) -> tuple[list[str], list[str]]:
    deliveries, rewards = attempts.of(entry)
    return [each.result for each in deliveries], [each.result for each in rewards]


class TestRequest:
    @pytest.mark.parametrize("token", ["e", "player", 'a"quoted\\one', "tok.secret"])
    def test_nothing_but_the_token_is_shortened(self, app: Flask, token: str) -> None:
        entry = make(token=token)
        request = attempts.request_of(entry, settings_of(app))
        assert request is not None
        shown, sent = json.loads(request.body), json.loads(entry.body)
        assert list(shown) == list(sent)
        assert shown.pop("token") == f"{token[:6] * (len(token) > 6)}…"
        assert sent.pop("token") == token
        assert shown == sent
        assert request.headers["Content-Length"] == str(len(entry.body))

    def test_its_signature_names_the_key(self, make_app: MakeApp) -> None:
        request = attempts.request_of(make(), settings_of(make_app(KEY_ID="k2")))
        assert request is not None
        signature = request.headers["X-MMOLove-Signature"]
        assert signature == "t=<time>,v1=sha256=<signature>,kid=k2"

    def test_what_is_never_sent_has_none(self, app: Flask) -> None:
        start = begin("qualified", "ignored", 1)
        never = make("qualified", state=start[0], due=start[1])
        for entry in (never, as_second(make())):
            assert attempts.request_of(entry, settings_of(app)) is None
            assert results(entry) == ([], [])
        sent = make(state="ignored", attempts=1)
        assert attempts.request_of(sent, settings_of(app)) is not None


class TestAttempts:
    def test_a_missing_callback_is_no_response_of_mmolove(self) -> None:
        entry = make("qualified", state="reward_failed", settled=5, answer=NO_CALLBACK)
        assert results(entry) == ([], ["failed"])
        assert attempts.summary(entry._replace(status=200)) == NO_CALLBACK
        deliveries, (reward,) = attempts.of(entry._replace(status=200, took=70))
        assert deliveries == [attempts.Attempt(5, "70 ms", "HTTP 200", "")]
        assert reward == attempts.Attempt(5, "", "failed", NO_CALLBACK)

    @pytest.mark.parametrize(
        ("state", "result"),
        [("rewarded", "granted"), ("reward_unconfirmed", "unconfirmed")],
    )
    def test_a_callback_that_left_no_words_is_told_by_the_state(
        self, state: EntryState, result: str
    ) -> None:
        entry = make(
            "qualified",
            history=json.dumps([[3, 200, "taken"], [4, None, "OSError: no", 2500]]),
            state=state,
            settled=5,
        )
        deliveries, rewards = attempts.of(entry)
        assert [each.result for each in deliveries] == ["HTTP 200"]
        assert rewards == [
            attempts.Attempt(5, "", result, ""),
            attempts.Attempt(4, "2.5 s", "failed", "OSError: no"),
        ]

    def test_what_a_person_decided_is_no_failure(self) -> None:
        failed = make("qualified", state="reward_failed", settled=5, answer="OSError")
        columns = settlement_columns(decision(failed, "rewarded", 6), 6)
        assert results(failed._replace(**columns))[1] == [
            "settled by a person",
            "failed",
        ]

    @pytest.mark.parametrize(
        ("words", "shown"),
        [
            ('{"ok":true,"state":"registered"}', '{"ok": true, "state": "registered"}'),
            ("<h1>Bad\u202egateway</h1>", "<h1>Bad\\u202egateway</h1>"),
            ("x" * ANSWER_LENGTH, "x" * ANSWER_LENGTH + "…"),
            ("", ""),
        ],
    )
    def test_a_response_can_be_read(self, words: str, shown: str) -> None:
        entry = make(settled=5, status=502, answer=words)
        assert attempts.of(entry)[0][0].words == shown

    def test_long_json_has_a_line_for_each_field(self) -> None:
        answer = json.dumps({"error": "unknown_token", "detail": "no such " * 9})
        ((delivery,), _) = attempts.of(make(settled=5, status=404, answer=answer))
        assert delivery.words.splitlines()[1] == '  "error": "unknown_token",'

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ('{"error":"unknown_token"}', "unknown_token"),
            ('{"ok":true,"referral_id":"r","state":"qualified"}', "qualified"),
            ('{"ok":true,"ignored":"first_touch_conflict"}', "first_touch_conflict"),
            ('{"ok":true,"duplicate":true}', "duplicate"),
            ('{"error":{"code":5}}', '{"error":{"code":5}}'),
            ("[5]", "[5]"),
            ("Bad gateway", "Bad gateway"),
        ],
    )
    def test_the_list_has_only_what_was_said(self, answer: str, said: str) -> None:
        summary = attempts.summary(make(status=200, answer=answer))
        assert summary == f"HTTP 200: {said}"


@pytest.mark.parametrize(
    ("columns", "planned", "words"),
    [
        ({}, 0, "It is sent now."),
        ({"attempts": 3}, 600_005, "It is sent again in 10 minutes."),
        ({"claim": "c", "due": 9000}, 9000, "At this moment it is sent."),
        # Its worker died, and the circuit breaker is open.
        (
            {"claim": "c", "due": 1, "attempts": 1},
            9005,
            "It is sent again in 9 seconds.",
        ),
        ({"state": "accepted"}, 0, "Its reward is tried now."),
        (
            {"state": "reward_unconfirmed", "due": 9000},
            None,
            "At this moment its reward is tried.",
        ),
        ({"state": "reward_unconfirmed", "due": 1}, None, "Nothing, until you act."),
        ({"state": "rejected", "due": None}, None, "Nothing, until you act."),
        ({"state": "accepted", "due": None}, None, "Nothing: this event is done."),
        (
            {"due": None},
            None,
            "It waits until its player's 'registered' is accepted.",
        ),
    ],
)
def test_what_happens_next_is_said(
    columns: dict[str, t.Any], planned: int | None, words: str
) -> None:
    assert next_step(make("qualified")._replace(**columns), planned, 5) == words
