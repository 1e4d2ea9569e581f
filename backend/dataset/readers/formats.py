"""Find out in which format a folder or a file has its masks, and read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.readers.coco import find_coco_files, read_coco
from backend.dataset.readers.index_png import find_maps, read_index_png
from backend.dataset.readers.yolo import find_label_files, read_yolo
from backend.errors import DatasetError

MaskFormat = Literal["index-png", "coco", "yolo"]


def detect_format(path: Path) -> MaskFormat:
    """Return the format of the masks in a folder or a file.

    PNGs in the folder itself count where there is no other format: they may be the pictures.

    Raises:
        DatasetError: nothing is there that is read, or several formats are.
    """
    found: list[MaskFormat] = []
    root, maps = find_maps(path)
    if maps and root != path:
        found.append("index-png")
    if find_coco_files(path):
        found.append("coco")
    if find_label_files(path)[1]:
        found.append("yolo")
    if not found and maps:
        found.append("index-png")
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(f"{path} has masks as {', '.join(found)}: say which by --format.")
    raise DatasetError(
        f"Expected {path} to have label maps (*.png), COCO files (*.json) or YOLO's files (*.txt), "
        "but it has none."
    )


def read_masks(
    path: Path, format_: MaskFormat | None, names: Path | None, limits: Limits
) -> Iterator[MaskSource]:
    """Iterate over the masks in a folder or a file.

    Args:
        path: the folder or the file.
        format_: the format; None: see `detect_format`.
        names: file that says what the values of classes stand for; None: one beside them.
        limits: of each file.

    Raises:
        DatasetError: there are no masks of that format.
    """
    format_ = format_ or detect_format(path)
    if format_ == "coco":
        return read_coco(path, limits)
    if format_ == "yolo":
        return read_yolo(path, names, limits)
    return read_index_png(path, names, limits)
