"""Whose the files are. What root makes belongs to the owner of the folder it is in, or
the site, which runs as somebody else, could not open it afterwards.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path


def make_file(file: Path) -> None:
    """Make a file for its owner alone, unless it is there.

    :raises OSError: If it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        # Only a new one is opened: closing another would drop SQLite's locks on it.
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            give(descriptor, file.parent)
        finally:
            os.close(descriptor)


def make_folder(folder: Path, mode: int = 0o777, like: Path | None = None) -> None:
    """Make a folder and those it is in, unless they are there.

    :param like: The folder whose owner gets it; the one it is in, unless given.
    :raises OSError: If it cannot be made.
    """
    if not folder.parent.exists():
        make_folder(folder.parent)
    is_new = not folder.exists()
    folder.mkdir(mode, exist_ok=True)
    if is_new:
        give(folder, like or folder.parent)


def give(what: int | Path, folder: Path) -> None:
    """Let what root has made belong to the owner of a folder.

    :param what: A file's descriptor, or a path.
    """
    if not is_root():
        return
    with contextlib.suppress(OSError):
        owner = folder.stat()
        # A path may have become a link to something else meanwhile.
        change = os.fchown if isinstance(what, int) else os.lchown
        change(what, owner.st_uid, owner.st_gid)  # type: ignore[arg-type]


def is_root() -> bool:
    """Whether this process may give files away. Windows knows nothing of the kind."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def strangers(files: t.Iterable[Path], folder: Path) -> dict[Path, int]:
    """The files that do not belong to the owner of a folder, with their owners."""
    found = {}
    with contextlib.suppress(OSError):
        owner = folder.stat().st_uid
        for file in files:
            with contextlib.suppress(OSError):
                uid = file.lstat().st_uid
                if uid != owner:
                    found[file] = uid
    return found


def user_name(uid: int) -> str:
    """A user's name, or the number where it has none here."""
    import pwd  # not on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
