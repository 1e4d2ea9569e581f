"""Write the folder of a data set as a ZIP file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clearclip_core.evaluation.atomic_write import replaced
from clearclip_core.images.label_maps import is_hidden

#: Suffixes of files that get smaller; pictures and tables are compressed already.
_TEXTS: Final = (".json", ".jsonl", ".txt", ".yaml", ".md")


def move_into_zip(folder: Path, path: Path) -> int:
    """Move the files of a folder into a ZIP file, the hidden ones excepted.

    Each is removed once it is in there, so that the disk holds them once.

    Args:
        folder: the folder.
        path: of the ZIP file, which is there when it is complete.

    Returns:
        Its size in bytes.
    """
    with replaced(path) as stream, zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for file in _visible_files(folder):
            kind = zipfile.ZIP_DEFLATED if file.suffix in _TEXTS else zipfile.ZIP_STORED
            archive.write(file, file.relative_to(folder).as_posix(), kind)
            file.unlink()
    return path.stat().st_size


def size_of(folder: Path) -> int:
    """Return the size of all files of a folder, in bytes."""
    return sum(file.stat().st_size for file in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root, name)


def _visible_files(folder: Path) -> list[Path]:
    return sorted(file for file in _files(folder) if not is_hidden(file, folder))
