"""Advice on a database file that this process may not write."""

from __future__ import annotations

import os
from pathlib import Path

#: What SQLite and the lock write beside the database file.
_SUFFIXES = ("", "-wal", "-shm", ".lock")


def forbidden_path(file: Path) -> Path | None:
    """Return what this user may not write of a database file, its companions and its folder.

    Returns:
        The folder, or the nearest one above it that exists; else one of the files; None where all
        may be written, or where nobody may, since the file system is mounted read-only, and where
        what was in the way has gone meanwhile.
    """
    folder = next(path for path in file.parents if path.exists())
    files = [Path(f"{file}{suffix}") for suffix in _SUFFIXES]
    for path in (folder, *(one for one in files if one.exists())):
        if not os.access(path, os.W_OK):
            return path if _on_writable_mount(path) else None
    return None


def advice(file: Path | None) -> str:
    """Say what to do about a database that cannot be opened.

    Args:
        file: file of an SQLite database; None for any other.

    >>> advice(None)
    'set DATABASE_URL.'
    """
    if file is None:
        return "set DATABASE_URL."
    path = forbidden_path(file)
    if path is None:
        return (
            "set MODEL_DIR, the folder of clearclip.db, to one that can be written; or set "
            "DATABASE_URL, which names another database."
        )
    user = os.getuid() if hasattr(os, "getuid") else "of this process"
    return (
        f"user {user} may not write {path}. Give the folder to that user, with all that is in it: "
        f"chown -R {user} FOLDER. With Docker Compose, FOLDER is what MODELS names in .env."
    )


def _on_writable_mount(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return True
    try:
        return not os.statvfs(path).f_flag & os.ST_RDONLY
    except FileNotFoundError:
        return False
