"""Write and remove files atomically: until all of one is on the disk, the old one stays."""

from __future__ import annotations

import glob
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

#: Letters of a file's name in that of its partial file. A file system allows 255 bytes, and a
#: letter may take four.
_LETTERS: Final = 40


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of another when it is complete.

    Missing folders are made. An error or an interrupt leaves the old file as it is, and nothing
    of the new one.

    Raises:
        OSError: the file cannot be written.
    """
    part = _partial(path)
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # an interrupt must not leave a partial file, either
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file as a whole; see `replaced`."""
    with replaced(path) as stream:
        stream.write(data)


def remove_whole(path: Path) -> None:
    """Remove a file, if it exists, and partial files that killed processes left."""
    path.unlink(missing_ok=True)
    for part in path.parent.glob(f".{glob.escape(_short(path.name))}.*.tmp"):
        part.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """Return the path of a new partial file beside a file, and make missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{_short(path.name)}.{uuid.uuid4().hex}.tmp")


def _short(name: str) -> str:
    """Return a file's name, a long one as its beginning and a digest."""
    if len(name) <= _LETTERS:
        return name
    return f"{name[:_LETTERS]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
