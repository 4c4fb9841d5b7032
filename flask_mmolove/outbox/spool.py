"""The emergency exit: an event that the outbox cannot take in time goes into a file of
its own, and is taken in later.

A file for each event, renamed into place when it is whole: nothing to lock, and nothing
half written to be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
import time
from pathlib import Path

from ..errors import OutboxError
from ..log import Brake
from ..log import logger
from .note import Note

_SUFFIX = ".event"
_HALF = ".half"
_UNREADABLE = ".unreadable"

# Seconds after which nobody is still at work on a file that is not whole.
_HALF_LIFE = 3600


class Spool:
    """Keeps notes in the first of its places that takes them.

    :param outbox: The file of the outbox, or a name beside it. The places are a folder
        beside it, for when it is busy or damaged, and one for temporary files, for when
        its disk is full.
    """

    def __init__(self, outbox: Path) -> None:
        name = hashlib.sha256(os.fsencode(outbox)).hexdigest()[:16]
        self._beside = outbox.with_name(f"{outbox.name}.spool")
        self._name_elsewhere = f"flask-mmolove-{name}"
        self._complaint = Brake(600)

    def write(self, note: Note) -> Path:
        """Put a note on disk, and give its file.

        :raises OutboxError: If no place takes it.
        """
        # Names in the order of time, so that they are taken in in that order.
        mark, chance = _mark(note.key), secrets.token_hex(4)
        name = f"{time.time_ns():020d}-{mark}-{chance}{_SUFFIX}"
        failures = []
        for place in self._usable():
            try:
                return _write(place / name, note)
            except OSError as e:
                failures.append(f"{place}: {e.strerror}")
        raise OutboxError(
            f"{note.subject} could not be kept anywhere ({'; '.join(failures)}). Make "
            "room on the disks."
        )

    def read(self, *, strict: bool = False) -> list[tuple[Path, Note]]:
        """The notes that wait, oldest first. What cannot be read for now, with too many
        files open or a network disk away, is logged and left for the next time.

        :param strict: Raise instead.
        :raises OutboxError: If so, and something cannot be read for now.
        """
        return self._read(self._files(_SUFFIX, strict=strict), strict)

    def of(self, key: str, *, strict: bool = False) -> list[tuple[Path, Note]]:
        """The same for those of one :attr:`Note.key`. However many others wait, they
        are not opened.
        """
        mark = f"-{_mark(key)}-"
        files = self._files(_SUFFIX, strict=strict)
        found = self._read([file for file in files if mark in file.name], strict)
        return [(file, note) for file, note in found if note.key == key]

    def _read(self, files: list[Path], strict: bool) -> list[tuple[Path, Note]]:
        notes = []
        for file in files:
            try:
                notes.append((file, Note(**json.loads(file.read_bytes()))))
            except FileNotFoundError:
                pass  # another process took it in
            except OSError as e:
                self._pass_over(file, e, strict)
            except (ValueError, TypeError) as e:
                self.set_aside(file, str(e))
        return notes

    def erase(self, player: str) -> None:
        """Erase what stands of a player, as a referrer too, and in files that are never
        taken in.

        :raises OutboxError: If something cannot be read or written.
        """
        for file, note in self.read(strict=True):
            if note.identity == player:
                self.remove(file)
            elif note.referrer == player:
                self._rewrite(file, note._replace(referrer=None))
        name = json.dumps(player).encode()
        for file in self._files(_HALF, _UNREADABLE, strict=True):
            try:
                if name in file.read_bytes():
                    self.remove(file)
            except FileNotFoundError:
                pass  # it is whole by now, or gone
            except OSError as e:
                self._pass_over(file, e, strict=True)

    def oldest(self) -> int | None:
        """Since when something waits, in milliseconds."""
        for file in self._files(_SUFFIX, strict=False):
            with contextlib.suppress(ValueError):  # somebody else's
                return int(file.name.partition("-")[0]) // 1_000_000
        return None

    def _rewrite(self, file: Path, note: Note) -> None:
        try:
            _write(file, note)
        except OSError as e:
            raise OutboxError(f"{file} cannot be written: {e.strerror}.") from e

    def set_aside(self, file: Path, reason: str) -> None:
        """Put a note that cannot be taken in out of the way, for a person."""
        logger.error("The event kept in %s cannot be taken in: %s", file, reason)
        with contextlib.suppress(OSError):
            file.rename(file.with_suffix(_UNREADABLE))

    def _files(self, *suffixes: str, strict: bool) -> list[Path]:
        found: list[Path] = []
        for place in self._usable():
            try:
                found += (place / name for name in os.listdir(place))
            except (FileNotFoundError, NotADirectoryError):
                pass  # it was never used
            except OSError as e:
                self._pass_over(place, e, strict)
        for file in found:
            if file.suffix == _HALF:
                self._clear_away(file)
        wanted = (file for file in found if file.suffix in suffixes)
        return sorted(wanted, key=lambda file: file.name)

    def _clear_away(self, half: Path) -> None:
        """Remove what was left by a process that was killed before it had kept it."""
        with contextlib.suppress(OSError):
            if time.time() - half.stat().st_mtime > _HALF_LIFE:
                self.remove(half)

    def _pass_over(self, path: Path, error: OSError, strict: bool) -> None:
        if strict:
            words = f"{path} cannot be read for now: {error.strerror}."
            raise OutboxError(words) from error
        if self._complaint.passes():
            logger.error("%s cannot be read for now: %s.", path, error.strerror)

    def _usable(self) -> list[Path]:
        try:
            elsewhere = Path(tempfile.gettempdir(), self._name_elsewhere)
            # In a folder that all may write to, somebody else could be there first.
            is_free = not elsewhere.exists() or _is_ours(elsewhere)
        except OSError:  # no folder for temporary files can be written
            is_free = False
        return [self._beside, elsewhere] if is_free else [self._beside]

    def remove(self, file: Path) -> None:
        """Forget a note that was taken in."""
        file.unlink(missing_ok=True)


def _mark(key: str) -> str:
    """By what a file is found, and nobody named."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def _write(file: Path, note: Note) -> Path:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = json.dumps(note._asdict()).encode()
    half = file.with_suffix(f".{secrets.token_hex(4)}{_HALF}")
    try:
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        half.rename(file)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)
    return file


def _is_ours(place: Path) -> bool:
    if place.is_symlink() or not place.is_dir():
        return False
    return not hasattr(os, "getuid") or place.stat().st_uid == os.getuid()


def _sync_folder(place: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can open a folder
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
