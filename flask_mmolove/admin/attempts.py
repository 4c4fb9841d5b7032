"""What was sent of an event, and what came of each attempt, for people to read."""

from __future__ import annotations

import json
import typing as t

from ..delivery.events import NO_CALLBACK
from ..outbox.entry import Answer
from ..outbox.entry import ANSWER_LENGTH
from ..outbox.entry import Entry
from ..outbox.states import EntryState
from ..outbox.tokens import TOKEN_USED
from ..protocol.response import response_line
from ..protocol.wire import request_headers
from ..protocol.wire import shorten
from ..protocol.wire import SIGNATURE_HEADER
from ..settings import Settings
from ..text import mask
from ..text import printable

#: Characters of JSON that are shown on one line.
_LINE = 76

#: What the row itself says of a callback that left no words.
_WORDLESS: dict[EntryState, str] = {
    "rewarded": "granted",
    "reward_unconfirmed": "unconfirmed",
}


class Attempt(t.NamedTuple):
    """One attempt to deliver an event, or to grant its reward.

    :param ended: When, in milliseconds.
    :param took: How long it took, in words; empty if that is not known.
    :param result: What came of it, in a word or two.
    :param words: The response's body, or the exception; JSON with line breaks.
    """

    ended: int
    took: str
    result: str
    words: str


class Request(t.NamedTuple):
    """What is sent of an event in each attempt."""

    url: str
    headers: dict[str, str]
    body: str


def of(entry: Entry) -> tuple[list[Attempt], list[Attempt]]:
    """The last attempts to deliver an event and those to grant its reward, newest
    first.
    """
    deliveries: list[Attempt] = []
    rewards: list[Attempt] = []
    for answer in reversed(entry.answers):
        if answer.words == NO_CALLBACK:  # it stands where MMOLove's response was
            rewards.append(Attempt(answer.settled, "", "failed", NO_CALLBACK))
            answer = answer._replace(words="")
        if answer.status is not None:
            deliveries.append(_delivery(answer))
        elif answer.words and answer.words != TOKEN_USED:
            rewards.append(_reward(answer))
    if entry.answer is None and entry.state in _WORDLESS:
        took, result = duration(entry.took), _WORDLESS[entry.state]
        rewards.insert(0, Attempt(entry.settled or 0, took, result, ""))
    return deliveries, rewards


def request_of(entry: Entry, settings: Settings) -> Request | None:
    """The request, if there ever is one. Its token is shortened, and its signature is
    not stored: it is made for each attempt.
    """
    if entry.state == "ignored" and not entry.attempts:
        return None
    fields = json.loads(entry.body) | {"token": shorten(entry.token)}
    key_id = f",kid={settings.key_id}" if settings.key_id else ""
    headers = {
        **request_headers(),
        "Content-Length": str(len(entry.body)),
        SIGNATURE_HEADER: f"t=<time>,v1=sha256=<signature>{key_id}",
    }
    return Request(mask(settings.endpoint), headers, _in_lines(fields))


def summary(entry: Entry) -> str:
    """The last response in a few words."""
    status = None if entry.answer == NO_CALLBACK else entry.status
    return response_line(status, entry.answer)


def duration(milliseconds: int | None) -> str:
    """How long something took, as in ``120 ms`` or ``2.5 s``."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    return f"{milliseconds / 1000:.1f} s"


def _delivery(answer: Answer) -> Attempt:
    result = f"HTTP {answer.status}" if answer.status else "no response"
    return Attempt(
        answer.settled, duration(answer.took), result, _readable(answer.words)
    )


def _reward(answer: Answer) -> Attempt:
    person, _, decision = answer.words.partition("a person: ")
    result, words = ("failed", person) if person else ("settled by a person", decision)
    return Attempt(answer.settled, duration(answer.took), result, printable(words))


def _readable(text: str) -> str:
    """A text that may be JSON, with the line breaks of that and no others."""
    try:
        value = json.loads(text)
    except ValueError:  # it is something else, or was cut off
        return printable(text) + "…" * (len(text) >= ANSWER_LENGTH)
    line = json.dumps(value, ensure_ascii=False)
    return printable(line) if len(line) <= _LINE else _in_lines(value)


def _in_lines(value: t.Any) -> str:
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    return "\n".join(map(printable, lines))
