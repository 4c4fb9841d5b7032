"""Reads what is left of the rows of a damaged SQLite file.

SQLite reads nothing behind a damaged page of the tree above it. But the pages at the
bottom stand for themselves, so they are read one by one, wherever they are found
(https://www.sqlite.org/fileformat2.html, sections 1.6, 2.1 and 4). A row is believed
only if its body is, byte for byte, what its columns say.
"""

from __future__ import annotations

import re
import struct
import typing as t
from pathlib import Path

from ...errors import EventError
from ..entry import Entry
from ..states import EntryState
from ..states import RENAMED

_STATES = frozenset(t.get_args(EntryState))
_LEAF = 0x0D
_WAL_HEADER = 32
_WAL_FRAME_HEADER = 24
# Bytes of a record. Damaged pages can name any length, and each other in a circle.
_LONGEST = 1 << 20
_DIGEST = re.compile("[0-9a-f]{32}", re.ASCII)
_PAGE_SIZES = frozenset(1 << n for n in range(9, 17))

#: By their numbers in the file.
Pages = t.Mapping[int, bytes]

_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


class Remains(t.NamedTuple):
    """What can still be read of a file.

    :param used: The digests of tokens whose rows are gone.
    """

    entries: list[Entry]
    used: set[str]


def read_remains(path: Path, read: t.Callable[[Path], bytes | None] = _read) -> Remains:
    """What can still be read from a damaged file, and from the write-ahead log beside
    it. Where an entry is found in several stages of its life, it is the last.

    No database of this process may have the file open: closing it would drop its locks.

    :param read: Gives a file's content; None if it is not there.
    """
    content = read(path) or b""
    size = _page_size(content)
    pages = [content[i : i + size] for i in range(0, len(content), size)]
    by_number = dict(enumerate(pages, 1))
    wal = path.with_name(f"{path.name}-wal")
    logged = read(wal)
    if logged is not None:
        frames = logged[_WAL_HEADER:]
        step = _WAL_FRAME_HEADER + size
        for i in range(_WAL_FRAME_HEADER, len(frames), step):
            pages.append(frames[i : i + size])
            (page_number,) = struct.unpack_from(">I", frames, i - _WAL_FRAME_HEADER)
            by_number[page_number] = pages[-1]
    found: dict[tuple[str, str, bool], Entry] = {}
    used: set[str] = set()
    for number, page in enumerate(pages):
        for each in _read_page(page, 100 if number == 0 else 0, by_number):
            if isinstance(each, str):
                used.add(each)
                continue
            known = found.get(each.key)
            if known is None or _stage(each) > _stage(known):
                found[each.key] = each
    return Remains(list(found.values()), used)


def _stage(entry: Entry) -> tuple[int, int]:
    return entry.settled or 0, entry.attempts


def _page_size(content: bytes) -> int:
    size = int.from_bytes(content[16:18], "big")
    size = 65536 if size == 1 else size
    return size if size in _PAGE_SIZES else 4096


def _read_page(page: bytes, start: int, pages: Pages) -> t.Iterator[Entry | str]:
    if len(page) < start + 8 or page[start] != _LEAF:
        return
    (count,) = struct.unpack_from(">H", page, start + 3)
    for number in range(count):
        try:
            (pointer,) = struct.unpack_from(">H", page, start + 8 + 2 * number)
            each = _read_cell(page, pointer, pages)
        except (LookupError, ValueError, TypeError, struct.error, EventError):
            continue
        yield each


def _read_cell(page: bytes, position: int, pages: Pages) -> Entry | str:
    length, position = _read_varint(page, position)
    rowid, position = _read_varint(page, position)
    payload = _read_payload(page, position, length, pages)
    header_length, position = _read_varint(payload, 0)
    kinds = []
    while position < header_length:
        kind, position = _read_varint(payload, position)
        kinds.append(kind)
    values: list[t.Any] = []
    for kind in kinds:
        value, position = _read_value(payload, position, kind)
        values.append(value)
    match values:
        case [str(digest)] if _DIGEST.fullmatch(digest):
            return digest
    # The id is an alias of the row's own number, which stands before the record.
    entry = Entry(rowid, *values[1:])
    state = RENAMED.get(entry.state, entry.state)
    return _checked(entry._replace(state=state))._replace(test=bool(entry.test))


def _read_payload(page: bytes, position: int, length: int, pages: Pages) -> bytes:
    """A record; the end of one that is too long for its page stands on others."""
    if length > _LONGEST:
        raise ValueError("no record of ours")
    size = len(page)
    here = length
    if length > size - 35:
        least = (size - 12) * 32 // 255 - 23
        here = least + (length - least) % (size - 4)
        here = here if here <= size - 35 else least
    payload, rest = page[position : position + here], page[position + here :][:4]
    while len(payload) < length:
        (number,) = struct.unpack(">I", rest)
        overflow = pages[number]
        rest, more = overflow[:4], overflow[4 : 4 + length - len(payload)]
        if not more:
            raise ValueError("no whole record")
        payload += more
    return payload


def _checked(entry: Entry) -> Entry:
    if entry.state not in _STATES or type(entry.recorded) is not int:
        raise ValueError("no entry")
    numbers = (entry.due, entry.settled, entry.status, entry.number, entry.took)
    for value in numbers:
        if value is not None and type(value) is not int:
            raise ValueError("no entry")
    if entry.referrer is not None and type(entry.referrer) is not str:
        raise ValueError("no entry")
    if entry.body != entry.addressed_to(entry.server_id).encode():
        raise ValueError("no whole entry")
    try:
        _ = entry.answers
    except (ValueError, TypeError):  # they stand elsewhere, in part
        return entry._replace(history=None)
    return entry


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[position]
        position += 1
        if count == 8:
            return value << 8 | byte, position
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value, position


def _read_value(data: bytes, position: int, kind: int) -> tuple[t.Any, int]:
    if kind == 0:
        return None, position
    if kind in (8, 9):
        return kind - 8, position
    length = _INTEGERS.get(kind) or max(0, (kind - 12) // 2)
    value = data[position : position + length]
    if len(value) < length or kind in (7, 10, 11):
        raise ValueError("no value of ours")
    if kind in _INTEGERS:
        return int.from_bytes(value, "big", signed=True), position + length
    return value if kind % 2 == 0 else value.decode(), position + length
