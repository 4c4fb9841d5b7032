"""Text that somebody else wrote, as a line of a log, a table or a page shows it."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text in which whatever is not plain to see is written as an escape: control
    characters, line breaks, and marks that turn or hide what stands beside them.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
