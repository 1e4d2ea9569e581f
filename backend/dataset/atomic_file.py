"""Write files of a data set as a stream: until all of one is written, the old one stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of another when it is complete.

    Missing folders are made. An error or an interrupt leaves the old file as it is, and nothing
    of the new one.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # an interrupt must not leave a partial file, either
        part.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole; see `replaced`."""
    with replaced(path) as stream:
        stream.write(content)


def link_file(path: Path, target: Path) -> None:
    """Make a symbolic link to a file, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.tmp")
    part.symlink_to(target)
    part.replace(path)
