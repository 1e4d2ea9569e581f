"""Write and remove files atomically."""

from __future__ import annotations

import glob
import os
import uuid
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: until all of it is on the disk, the old one stays.

    Missing folders are made.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # an interrupt must not leave a partial file, either
        part.unlink(missing_ok=True)
        raise


def remove_whole(path: Path) -> None:
    """Remove a file, if it exists, and partial files that killed processes left."""
    path.unlink(missing_ok=True)
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        part.unlink(missing_ok=True)
