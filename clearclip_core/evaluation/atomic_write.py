"""Files that are there whole or not at all, whenever the process may die."""

from __future__ import annotations

import glob
import os
import uuid
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file at once: until all of it is on the disk, the old one stays.

    Folders are made as needed.

    Raises:
        OSError: what the file system says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # an interrupt as well: no half files are left behind
        part.unlink(missing_ok=True)
        raise


def remove_whole(path: Path) -> None:
    """Remove a file, if it is there, with what killed processes left of it half written."""
    path.unlink(missing_ok=True)
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        part.unlink(missing_ok=True)
