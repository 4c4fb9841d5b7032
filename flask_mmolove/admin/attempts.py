"""What was sent of an event, and what came of each attempt, for people to read."""

from __future__ import annotations

import json
import typing as t

from ..outbox import Entry
from ..outbox.entry import Answer
from ..protocol.response import response_line
from ..protocol.wire import request_headers
from ..protocol.wire import shorten
from ..protocol.wire import SIGNATURE_HEADER
from ..settings import Settings
from ..text import mask
from ..text import printable


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
    for answer in entry.answers:
        attempts = rewards if answer.status is None else deliveries
        attempts.append(_attempt(answer, _result(answer)))
    if entry.state == "rewarded" and entry.answer is None:
        granted = Answer(entry.settled or 0, None, "", entry.took)
        rewards.append(_attempt(granted, "granted"))
    return deliveries[::-1], rewards[::-1]


def request_of(entry: Entry, settings: Settings) -> Request:
    """The request. Its token is shortened, and its signature is never stored: it is
    made for each attempt.
    """
    body = entry.body.decode("utf-8", "replace")
    signature = "t=<time>,v1=sha256=<signature>"
    return Request(
        url=mask(settings.endpoint),
        headers={**request_headers(), SIGNATURE_HEADER: signature},
        body=_readable(body.replace(entry.token, shorten(entry.token))),
    )


def summary(entry: Entry) -> str:
    """The last response in a few words: of MMOLove's JSON only what it says."""
    try:
        fields = json.loads(entry.answer or "")
        said = fields.get("error") or fields.get("state")
    except (ValueError, AttributeError):  # it is something else, or was cut off
        said = None
    words = said if isinstance(said, str) else entry.answer
    return response_line(entry.status, words)


def duration(milliseconds: int | None) -> str:
    """How long something took, as in ``120 ms`` or ``2.5 s``."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    return f"{milliseconds / 1000:.1f} s"


def _attempt(answer: Answer, result: str) -> Attempt:
    took = duration(answer.took)
    return Attempt(answer.settled, took, result, _readable(answer.words))


def _result(answer: Answer) -> str:
    if answer.status is None:
        return "settled" if answer.words.startswith("a person: ") else "failed"
    return f"HTTP {answer.status}" if answer.status else "no response"


def _readable(text: str) -> str:
    """A text that may be JSON, with the line breaks of that and no others."""
    try:
        parts = json.dumps(json.loads(text), indent=2, ensure_ascii=False).split("\n")
    except ValueError:  # it is something else, or was cut off
        parts = [text]
    return "\n".join(map(printable, parts))
