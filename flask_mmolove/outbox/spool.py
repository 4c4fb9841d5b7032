"""The spool: what the outbox cannot take in time waits in a file to be imported later.

A file for each event, renamed into place when it is whole: nothing to lock, and nothing
half written to be read. Each is signed with the site's secret, for others may write
into the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import tempfile
import time
from pathlib import Path

from itsdangerous import Signer

from ..errors import OutboxError
from ..log import logger
from ..log import Throttle
from . import folder
from .owner import give
from .report import Report

_SUFFIX = ".event"
_UNREADABLE = ".unreadable"

# Bytes; the longest report has a third of that.
_LIMIT = 64 * 1024

# Seconds after which nobody is still at work on a file that is not whole.
_HALF_LIFE = 3600


class Spool:
    """Keeps reports in the first of its places that takes them.

    A report is believed if its signature is right. Beside the outbox one is believed
    without it too, after a change of the secret: whoever can write there can write
    to the outbox itself.

    :param outbox: The file of the outbox, or a name beside it. The places are a folder
        beside it, for when it is busy or damaged, and one for temporary files, for when
        its disk is full.
    :param secret: Signs the reports.
    """

    def __init__(self, outbox: Path, secret: str) -> None:
        name = hashlib.sha256(os.fsencode(outbox)).hexdigest()[:16]
        self._home = outbox.parent
        self._beside = folder.Folder(outbox.with_name(f"{outbox.name}.spool"))
        self._prefix = f"flask-mmolove-{name}"
        # Without a secret nothing is reported, so nothing is believed either.
        self._signer = Signer(
            secret or secrets.token_hex(),
            salt="flask-mmolove.spool",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._complaint = Throttle(600)
        self._warned = Throttle(float("inf"))

    def write(self, report: Report) -> Path:
        """Put a report on disk, and give its file.

        :raises OutboxError: If no place takes it.
        """
        # Names in the order of time, so that they are imported in that order.
        mark, chance = _mark(report.key), secrets.token_hex(4)
        name = f"{time.time_ns():020d}-{mark}-{chance}{_SUFFIX}"
        try:
            return self._keep(name, report, self._beside)
        except OSError as e:
            beside = f"{self._beside.path}: {e.strerror}"
        try:
            return self._keep(name, report, self._elsewhere())
        except OSError as e:
            raise OutboxError(
                f"{report.subject} could not be kept anywhere ({beside}; temporary "
                f"files: {e.strerror}). Make room on the disks."
            ) from e

    def read(self, *, strict: bool = False) -> list[tuple[Path, Report]]:
        """The spooled reports, oldest first. What cannot be read for now, with too many
        files open or a network disk away, is logged and left for the next time. What is
        not provably ours is left where it is, and logged once.

        :param strict: Raise where something cannot be read for now.
        :raises OutboxError: If so.
        """
        return self._read(self._files(_SUFFIX, strict=strict), strict)

    def of(self, *keys: str, strict: bool = False) -> list[tuple[Path, Report]]:
        """The same for some keys (:attr:`Report.key`). No other file is opened."""
        marks, files = set(map(_mark, keys)), self._files(_SUFFIX, strict=strict)
        theirs = [file for file in files if not marks.isdisjoint(file.name.split("-"))]
        found = self._read(theirs, strict)
        return [(file, report) for file, report in found if report.key in keys]

    def _read(self, files: list[Path], strict: bool) -> list[tuple[Path, Report]]:
        reports = []
        for file in files:
            content = self._content(file, strict)
            if content is None or not self._is_believed(file, content):
                continue
            try:
                fields = json.loads(content.partition(b"\n")[0])
                reports.append((file, Report(**fields)))
            except (ValueError, TypeError, RecursionError) as e:
                self.reject(file, str(e))
        return reports

    def erase(self, player: str) -> None:
        """Erase a player from the spool, also as a referrer and in unreadable files.

        :raises OutboxError: If something cannot be read or written.
        """
        for file, report in self.read(strict=True):
            if report.identity == player:
                self.remove(file)
            elif report.referrer == player:
                self._rewrite(file, report._replace(referrer=None))
        name = json.dumps(player).encode()
        for file in self._files(_SUFFIX, folder.HALF, _UNREADABLE, strict=True):
            content = self._content(file, strict=True)
            if content is None or name not in content:
                continue
            if file.suffix != _SUFFIX or not self._is_believed(file, content):
                self.remove(file)

    def oldest(self) -> int | None:
        """Since when something is spooled, in milliseconds."""
        for file in self._files(_SUFFIX, strict=False):
            with contextlib.suppress(ValueError):  # somebody else's
                return int(file.name.partition("-")[0]) // 1_000_000
        return None

    def remove(self, file: Path) -> None:
        """Remove a report that was imported."""
        self._folder(file).remove(file.name)

    def unreadable(self) -> int:
        """How many files could not be imported and were left for a person."""
        return len(self._files(_UNREADABLE, strict=False))

    def files(self) -> list[Path]:
        """The folder beside the outbox and what lies in it."""
        return [self._beside.path, *self._beside.path.glob("*")]

    def reject(self, file: Path, reason: str) -> None:
        """Keep a report that cannot be imported for a person."""
        logger.error("The event spooled in %s cannot be imported: %s", file, reason)
        with contextlib.suppress(OSError):
            name = file.with_suffix(_UNREADABLE).name
            self._folder(file).rename(file.name, name)

    def _rewrite(self, file: Path, report: Report) -> None:
        try:
            self._folder(file).write(file.name, self._sign(report))
        except OSError as e:
            raise OutboxError(f"{file} cannot be written: {e.strerror}.") from e

    def _keep(self, name: str, report: Report, place: folder.Folder) -> Path:
        place.write(name, self._sign(report))
        return place.path / name

    def _sign(self, report: Report) -> bytes:
        content = json.dumps(report._asdict()).encode()
        return b"%s\n%s\n" % (content, self._signer.get_signature(content))

    def _is_believed(self, file: Path, content: bytes) -> bool:
        text, _, signature = content.partition(b"\n")
        if self._signer.verify_signature(text, signature.strip()):
            return True
        if file.parent == self._beside.path:
            if self._warned.passes():
                logger.warning(
                    "The files in %s are imported although not all are signed with "
                    "MMOLOVE_REFERRAL_SECRET: only this site can write there. Nothing "
                    "is wrong if the secret was changed, or the package updated.",
                    file.parent,
                )
            return True
        self._warn(
            file,
            "it is not signed with MMOLOVE_REFERRAL_SECRET. If this site wrote it, and "
            f"the secret was changed, move it to {self._beside.path}; else remove it",
        )
        return False

    def _content(self, file: Path, strict: bool) -> bytes | None:
        try:
            return self._folder(file).read(file.name, _LIMIT)
        except FileNotFoundError:
            pass  # another process imported it
        except folder.NotOurs as e:
            self._warn(file, f"{e.filename} {e.why}. See who put it there")
        except OSError as e:
            self._pass_over(file, e, strict)
        return None

    def _files(self, *suffixes: str, strict: bool) -> list[Path]:
        found: list[Path] = []
        for place in self._places(strict):
            try:
                found += (place.path / name for name in place.names())
            except FileNotFoundError:
                pass  # it was never used
            except folder.NotOurs as e:
                self._warn(place.path, f"it {e.why}. Remove or rename it")
            except OSError as e:
                self._pass_over(place.path, e, strict)
        for file in found:
            if file.suffix == folder.HALF:
                self._clear_away(file)
        wanted = (file for file in found if file.suffix in suffixes)
        return sorted(wanted, key=lambda file: file.name)

    def _folder(self, file: Path) -> folder.Folder:
        return folder.Folder(file.parent, self._home)

    def _clear_away(self, half: Path) -> None:
        """Remove what was left by a process that was killed before it had kept it."""
        with contextlib.suppress(OSError):
            if self._folder(half).age(half.name, time.time()) > _HALF_LIFE:
                self.remove(half)

    def _pass_over(self, path: Path, error: OSError, strict: bool) -> None:
        if strict:
            words = f"{path} cannot be read for now: {error.strerror}."
            raise OutboxError(words) from error
        if self._complaint.passes():
            logger.error("%s cannot be read for now: %s.", path, error.strerror)

    def _warn(self, path: Path, words: str) -> None:
        if self._warned.passes(str(path)):
            logger.warning("%s is passed over: %s.", path, words)

    def _places(self, strict: bool) -> list[folder.Folder]:
        try:
            return [self._beside, *self._found_elsewhere()]
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # what cannot be looked through is not written to
        except OSError as e:
            self._pass_over(Path(tempfile.gettempdir()), e, strict)
        return [self._beside]

    def _elsewhere(self) -> folder.Folder:
        """A folder for temporary files, with a name that nobody can guess and take."""
        for place in self._found_elsewhere():
            with contextlib.suppress(OSError):
                place.names()
                return place
        new = Path(tempfile.mkdtemp(prefix=f"{self._prefix}-"))
        give(new, self._home)
        return folder.Folder(new, self._home)

    def _found_elsewhere(self) -> list[folder.Folder]:
        with os.scandir(tempfile.gettempdir()) as entries:
            names = [each for each in entries if each.name.startswith(self._prefix)]
        owners = folder.users(self._home)
        return [
            folder.Folder(Path(each.path), self._home)
            for each in names
            if _is_folder_of(owners, each)
        ]


def _mark(key: str) -> str:
    """By what a file is found, and nobody named."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def _is_folder_of(owners: set[int], entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in owners
