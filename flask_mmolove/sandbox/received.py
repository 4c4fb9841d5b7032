"""From raw bytes to an event: the rules that need no look-up."""

from __future__ import annotations

import json
import math
import typing as t
from dataclasses import dataclass
from dataclasses import field

from .reasons import Refused

EVENTS = ("registered", "qualified", "reversed")


@dataclass(frozen=True)
class ReceivedEvent:
    """The fields of an event, checked and trimmed. Unknown fields are ignored.

    :param referee_identity: Ignored on events other than ``registered``.
    """

    event: str
    token: str = field(repr=False)
    server_id: str
    server_event_id: str
    referee_identity: str | None
    test: bool

    @classmethod
    def parse(cls, body: bytes) -> ReceivedEvent:
        """Parse a body.

        :raises Refused: If it is not an event.
        """
        fields = _load(body)
        event = _text(fields, "event", EVENTS)
        if not _is_number(fields.get("ts", 0)):
            raise Refused("invalid_field", "'ts' is not a number of Unix seconds.")
        if not isinstance(fields.get("test", False), bool):
            raise Refused("invalid_field", "'test' is neither true nor false.")
        return cls(
            event=event,
            token=_text(fields, "token"),
            server_id=_text(fields, "server_id"),
            server_event_id=_text(fields, "server_event_id"),
            referee_identity=(
                _text(fields, "referee_identity") if event == "registered" else None
            ),
            test=fields.get("test", False),
        )

    @property
    def key(self) -> tuple[str, str, str]:
        """Two deliveries with the same key are duplicates."""
        return self.token, self.event, self.server_event_id


def read_texts(body: bytes) -> dict[str, str]:
    """The texts of a body that may be malformed, for the history."""
    names = ("event", "token", "server_id", "server_event_id", "referee_identity")
    try:
        fields = _load(body)
    except Refused:
        return {}
    # JSON can contain a lone surrogate, which can be neither stored nor shown.
    return {
        name: fields[name].strip().encode(errors="replace").decode()
        for name in names
        if isinstance(fields.get(name), str)
    }


def _load(body: bytes) -> dict[str, t.Any]:
    # Strict where the contract does not say: no other encoding, no NaN.
    try:
        fields = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        raise Refused("malformed_json") from e
    if not isinstance(fields, dict):
        raise Refused("malformed_json")
    return fields


def _refuse_constant(name: str) -> t.NoReturn:
    raise ValueError(f"{name} is not JSON")


def _text(
    fields: dict[str, t.Any], name: str, choices: tuple[str, ...] | None = None
) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refused("invalid_field", f"{name!r} is missing, empty or not a text.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused("invalid_field", f"{name!r} is not valid Unicode.")
    if choices is not None and value not in choices:
        raise Refused("invalid_field", f"{name!r} is none of {', '.join(choices)}.")
    return value.strip()


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
