"""Read a folder of label map PNGs, one for each picture, with the names of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from backend.dataset.labelled_image import LabelledRegion
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_bytes, relative_name
from backend.dataset.readers.label_map import read_label_map
from backend.dataset.readers.label_values import LabelValues
from backend.errors import DatasetError


def find_maps(folder: Path) -> tuple[Path, list[Path]]:
    """Find the label maps of a data set: those in its folder ``masks`` where it has one.

    Returns:
        The folder that names start from, and the files by name.
    """
    return find_below(folder, "masks", lambda path: path.suffix.lower() == ".png")


def read_index_png(folder: Path, names: Path | None, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the label maps of a folder and of the folders in it.

    Args:
        folder: it, or its folder ``masks``, holds the PNGs; see `LabelValues.find` for the names.
        names: the file that says what their values stand for; None: one in the folder.
        limits: of each file.

    Raises:
        DatasetError: there is no PNG, or no file of names.
    """
    root, files = find_maps(folder)
    if not files:
        raise DatasetError(f"Expected label maps at {root}/**/*.png, but there are none.")
    values = LabelValues.find(folder, names)
    for path in files:
        yield _source(path, root, values, limits)


def _source(path: Path, root: Path, values: LabelValues, limits: Limits) -> MaskSource:
    name = relative_name(path, root)

    def read_regions(picture_hw: tuple[int, int]) -> Sequence[LabelledRegion]:
        content = read_bytes(path, limits)
        return read_label_map(content, name, limits).regions(values, picture_hw)

    return MaskSource(name[: -len(path.suffix)], name, read_regions)
