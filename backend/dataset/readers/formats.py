"""Find out in which format a folder or a file has its masks, and read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.readers.index_png import find_maps, read_index_png
from backend.errors import DatasetError

MaskFormat = Literal["png"]

_SUFFIXES: Final = "a folder of label maps (*.png)"


def detect_format(path: Path) -> MaskFormat:
    """Return the format of the masks in a folder or a file.

    Raises:
        DatasetError: there is no such path, or nothing that is read in it.
    """
    if not path.exists():
        raise DatasetError(f"Expected masks at {path}, but there is nothing.")
    if path.is_dir() and find_maps(path)[1]:
        return "png"
    raise DatasetError(f"Expected {path} to be {_SUFFIXES}, but it has none.")


def read_masks(
    path: Path, format_: MaskFormat | None, names: Path | None, limits: Limits
) -> Iterator[MaskSource]:
    """Iterate over the masks in a folder or a file.

    Args:
        path: the folder or the file.
        format_: the format; None: see `detect_format`.
        names: file that says what the values of label maps stand for; None: one beside them.
        limits: of each file.

    Raises:
        DatasetError: there are no masks of that format.
    """
    detected = format_ or detect_format(path)
    assert detected == "png"
    return read_index_png(path, names, limits)
