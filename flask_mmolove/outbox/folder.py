"""Files and folders of this site alone, even where other users may write beside them.

Whatever is there is opened first, without following links and without waiting, and
judged by what was opened: nobody can swap it between the check and the use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import typing as t
from pathlib import Path

from .owner import give
from .owner import make_folder

# Windows has no owners or descriptors of folders, and does not share its temporary one.
_HAS_OWNERS = hasattr(os, "getuid")
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_SAFE = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

#: The ending of what is not written to its end yet.
HALF = ".half"


class NotOurs(OSError):
    """A file or folder that this site has not put there, as far as anyone can tell.

    :param why: What is wrong with it, to follow "it".
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EPERM, why, str(path))
        self.why = why


class Rule(t.NamedTuple):
    """Whose a file or folder must be.

    :param owners: The users to whom it may belong.
    :param closed: The bits of its mode that may not be set.
    """

    owners: t.Collection[int]
    closed: int = stat.S_IWGRP | stat.S_IWOTH

    def check(self, path: Path, status: os.stat_result, *, folder: bool) -> None:
        """Do nothing if it is right.

        :raises NotOurs: If it is not.
        """
        is_right = stat.S_ISDIR if folder else stat.S_ISREG
        if not is_right(status.st_mode):
            raise NotOurs(path, f"is no ordinary {'folder' if folder else 'file'}")
        if not _HAS_OWNERS:
            return
        if status.st_uid not in self.owners:
            raise NotOurs(path, "belongs to another user")
        if status.st_mode & self.closed:
            mode = stat.S_IMODE(status.st_mode & ~self.closed)
            raise NotOurs(path, f"is open to other users (chmod {mode:o} closes it)")
        if not folder and status.st_nlink > 1:
            raise NotOurs(path, "has a second name elsewhere")


def user() -> int:
    """The user as whom this process runs."""
    return os.geteuid() if _HAS_OWNERS else 0


def users(home: Path) -> set[int]:
    """This user and the site's, to whom its folder belongs."""
    with contextlib.suppress(OSError):
        return {user(), os.stat(home).st_uid}
    return {user()}


def read_file(
    path: Path, rule: Rule, limit: int = -1, *, folder: int | None = None
) -> bytes:
    """The content of a regular file.

    :param limit: Bytes; a longer file is none of ours.
    :param folder: A descriptor of the folder that holds it.
    :raises NotOurs: If it is somebody else's.
    :raises OSError: If it cannot be read.
    """
    place = path if folder is None else path.name
    # Opening a device can have effects, and closing a second name of a database drops
    # its locks: so it is looked at before it is opened, too.
    rule.check(path, os.lstat(place, dir_fd=folder), folder=False)
    descriptor = os.open(place, os.O_RDONLY | _SAFE, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        rule.check(path, os.fstat(descriptor), folder=False)
        content = file.read(limit if limit < 0 else limit + 1)
    if 0 <= limit < len(content):
        raise NotOurs(path, f"is longer than {limit} bytes")
    return content


class Folder:
    """A folder and the files in it.

    It and its files must belong to this user or the site's; no other may write there.

    :param path: Where it is; :meth:`write` creates it.
    :param home: A folder that the site's user owns; the one that holds it by default.
    """

    def __init__(self, path: Path, home: Path | None = None) -> None:
        self.path = path
        self._home = home or path.parent

    def names(self) -> list[str]:
        """The names of what is in it.

        :raises NotOurs: If it is somebody else's.
        :raises OSError: If it cannot be read.
        """
        with self._opened() as folder:
            return os.listdir(self.path if folder is None else folder)

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file.

        :param limit: Bytes; a longer file is none of ours.
        :raises NotOurs: If it, or the folder, is somebody else's or no regular file.
        :raises OSError: If it cannot be read.
        """
        with self._opened() as folder:
            return read_file(self.path / name, self._rule, limit, folder=folder)

    def write(self, name: str, content: bytes) -> None:
        """Write a file under another name, and rename it when it is on the disk.

        :raises OSError: If that fails, or the folder is somebody else's.
        """
        make_folder(self.path, 0o700, self._home)
        half = f"{name}.{secrets.token_hex(4)}{HALF}"
        with self._opened() as folder:
            place = self._place(half, folder)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
                descriptor = os.open(place, flags, 0o600, dir_fd=folder)
                with os.fdopen(descriptor, "wb") as file:
                    give(descriptor, self._home)
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                self._rename(half, name, folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(place, dir_fd=folder)
                raise
            if folder is not None:
                with contextlib.suppress(OSError):  # not every file system can do it
                    os.fsync(folder)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name.

        :raises OSError: If that fails, or the folder is somebody else's.
        """
        with self._opened() as folder:
            self._rename(name, new, folder)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._opened() as folder:
            os.unlink(self._place(name, folder), dir_fd=folder)

    def age(self, name: str, now: float) -> float:
        """Seconds since a file was last written."""
        with self._opened() as folder:
            return now - os.lstat(self._place(name, folder), dir_fd=folder).st_mtime

    @contextlib.contextmanager
    def _opened(self) -> t.Iterator[int | None]:
        """A descriptor of the folder, for as long as it is used."""
        self._rule.check(self.path, os.lstat(self.path), folder=True)
        if os.open not in os.supports_dir_fd:
            yield None
            return
        descriptor = os.open(self.path, _FOLDER_FLAGS | _SAFE)
        try:
            self._rule.check(self.path, os.fstat(descriptor), folder=True)
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def _rule(self) -> Rule:
        return Rule(users(self._home))

    def _place(self, name: str, folder: int | None) -> str:
        return name if folder is not None else str(self.path / name)

    def _rename(self, name: str, new: str, folder: int | None) -> None:
        old_place, new_place = (self._place(each, folder) for each in (name, new))
        os.replace(old_place, new_place, src_dir_fd=folder, dst_dir_fd=folder)
