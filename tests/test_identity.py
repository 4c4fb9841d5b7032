from __future__ import annotations

import enum
import ipaddress
import typing as t
import uuid
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import pytest
from werkzeug.local import LocalProxy

from flask_mmolove import IdentityError
from flask_mmolove.identity import identify

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


class WithGetId:
    """As Flask-Login's UserMixin has it."""

    def __init__(self, answer: t.Any) -> None:
        self._answer = answer

    def get_id(self) -> t.Any:
        return self._answer


class Both(WithGetId):
    id = 7


class ObjectId:
    """As MongoDB's: a value with a text and no number."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"ObjectId({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectId) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self._text)


class Index:
    """As NumPy's integers, whose repr() names their type."""

    def __index__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "int64(7)"


class Snowflake:
    def __int__(self) -> int:
        return 7


class Named:
    """An account that prints itself by a name."""

    def __str__(self) -> str:
        return "anna"


class Mapped(ObjectId):
    """The same, of an ORM."""

    _sa_instance_state = None


class Number(enum.IntEnum):
    SEVEN = 7


class Text(str, enum.Enum):
    SEVEN = "p-7"


class Bot(enum.Enum):
    SEVEN = UUID


KEYS: list[tuple[t.Any, str]] = [
    (UUID, str(UUID)),
    (ObjectId("65a1"), "65a1"),
    (Index(), "7"),
    (Snowflake(), "7"),
    (Decimal(7), "7"),
    (Decimal("7.00"), "7"),
    (Decimal("1E+2"), "100"),
    (Fraction(7), "7"),
    (Number.SEVEN, "7"),
    (Text.SEVEN, "p-7"),
    (Bot.SEVEN, str(UUID)),
    (ipaddress.ip_address("127.0.0.1"), "127.0.0.1"),
]


@pytest.mark.parametrize(("key", "identity"), KEYS)
def test_what_a_database_has_as_a_primary_key_is_an_id(
    key: object, identity: str
) -> None:
    assert identify(key) == identity
    assert identify(SimpleNamespace(id=key)) == identity
    assert identify(WithGetId(key)) == identity
    assert identify(object(), lambda player: key) == identity


@pytest.mark.parametrize(
    "key", [Decimal("7.5"), Decimal("NaN"), Decimal("Infinity"), Fraction(1, 2), 1j]
)
def test_a_number_that_is_not_whole_is_no_id(key: object) -> None:
    for player in (key, SimpleNamespace(id=key)):
        with pytest.raises(IdentityError, match="which is not a lasting id"):
            identify(player)


@pytest.mark.parametrize("player", [Named(), Mapped("anna"), {"id": 7}, (7,), [7]])
def test_an_account_is_not_known_by_how_it_prints(player: object) -> None:
    with pytest.raises(IdentityError, match=r"is no id and has neither .* get_id\(\)"):
        identify(player)


@pytest.mark.parametrize(
    ("player", "identity"),
    [
        (7, "7"),
        (0, "0"),
        (10**30, str(10**30)),
        ("anna", "anna"),
        ("anna moor", "anna moor"),
        ("bob\u200b", "bob\u200b"),
        ("Ünï 🐉", "Ünï 🐉"),
        (SimpleNamespace(id=7), "7"),
        (SimpleNamespace(id=0), "0"),
        (SimpleNamespace(id="p-7"), "p-7"),
        (SimpleNamespace(id=UUID), str(UUID)),
        (WithGetId("7"), "7"),
        (Both("renewed with the password"), "7"),
        (LocalProxy(lambda: SimpleNamespace(id=7)), "7"),
        (LocalProxy(lambda: "anna"), "anna"),
    ],
)
def test_an_identity_is_found_in_the_usual_places(
    player: object, identity: str
) -> None:
    assert identify(player) == identity


@pytest.mark.parametrize(
    ("answer", "identity"), [(42, "42"), ("a-42", "a-42"), (UUID, str(UUID))]
)
def test_the_sites_own_rule_comes_before_all_others(
    answer: object, identity: str
) -> None:
    assert identify(SimpleNamespace(id=7), lambda player: answer) == identity


def test_the_rule_is_given_the_player_itself() -> None:
    player = SimpleNamespace(account=42)
    assert identify(LocalProxy(lambda: player), lambda p: p is player and 42) == "42"


@pytest.mark.parametrize(
    ("player", "words"),
    [
        (SimpleNamespace(id=None), "The id of a SimpleNamespace is None"),
        (SimpleNamespace(id=""), "The id of a SimpleNamespace is empty"),
        (SimpleNamespace(id=" \n"), "is empty"),
        (SimpleNamespace(id=True), "True, which is not a lasting id"),
        (SimpleNamespace(id=7.0), "7.0, which is not a lasting id"),
        (SimpleNamespace(id=b"7"), "which is not a lasting id"),
        (SimpleNamespace(name="anna"), "is no id and has neither an id nor a get_id()"),
        (WithGetId(None), "get_id() of a WithGetId is None"),
        (WithGetId(""), "get_id() of a WithGetId is empty"),
        (" 7", "A player has white space around it: ' 7'"),
        (SimpleNamespace(id="bob\xa0"), "white space around it: 'bob\\xa0'"),
        (SimpleNamespace(id="bob\xa0"), "Pass an id without it"),
        (WithGetId("bob\n"), "get_id() of a WithGetId has white space around it"),
        ("\ufeffbob", "white space around it"),
        ("bob\u3000", "white space around it"),
        ("bob\x1f", "white space around it"),
        (True, "A player is True, which is not a lasting id"),
        ("", "A player is empty"),
        (None, "A player is None. A new account has its id after"),
        (1.5, "A player is 1.5, which is not a lasting id"),
        (object(), "A object is no id and has neither"),
        (LocalProxy(lambda: None), "A player is None"),
    ],
)
def test_a_player_without_an_identity_is_an_error_that_says_what_to_return(
    player: object, words: str
) -> None:
    with pytest.raises(IdentityError) as caught:
        identify(player)
    assert words in str(caught.value)
    assert "@mmolove.identity" in str(caught.value)


@pytest.mark.parametrize("answer", [None, "", True, 1.5, b"x"])
def test_a_rule_that_gives_no_identity_is_named_as_the_cause(answer: object) -> None:
    with pytest.raises(IdentityError, match="@mmolove.identity returns for a Simple"):
        identify(SimpleNamespace(id=7), lambda player: answer)


def test_a_rule_that_leaves_white_space_is_named_as_the_cause() -> None:
    with pytest.raises(IdentityError, match=r"@mmolove.identity returns .* 'bob '"):
        identify(SimpleNamespace(id=7), lambda player: "bob ")


def test_an_id_that_is_not_there_yet_says_when_it_will_be() -> None:
    with pytest.raises(IdentityError, match=r"commit\(\), or flush\(\)"):
        identify(SimpleNamespace(id=None))


class WithMethod:
    def id(self) -> int:
        return 7


@pytest.mark.parametrize("player", [SimpleNamespace(id=object()), WithMethod()])
def test_an_id_that_is_only_an_objects_address_is_no_id(player: object) -> None:
    with pytest.raises(IdentityError, match="which is not a lasting id"):
        identify(player)


def test_a_class_is_no_player() -> None:
    with pytest.raises(IdentityError):
        identify(Both)
