"""Read YOLO's files for segmentation: a text file for each picture, a polygon a line.

    class x1 y1 x2 y2 ... [score]

The numbers are shares of the width and the height of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import LabelledRegion, RegionMask
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_score
from backend.dataset.readers.label_map import FILES, LabelValues
from backend.errors import DatasetError

#: How far beyond the picture a point may lie, as a share of it.
_MARGIN: Final = 0.5
#: Of an outline; a box has two.
_LEAST_POINTS: Final = 3
#: Fractional bits of the coordinates in which OpenCV fills.
_SHIFT: Final = 4


def find_label_files(folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names start from, and the text files in it by name."""
    return find_below(
        folder, ("labels",), lambda path: path.suffix == ".txt" and path.name not in FILES
    )


def read_yolo(folder: Path, names: Path | None, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the files of a folder, or of its folder ``labels``, and of those in it.

    For `names` see `LabelValues.find`; a `DatasetError` is raised where there is no file.
    """
    root, files = find_label_files(folder)
    if not files:
        raise DatasetError(f"Expected YOLO's files at {root}/**/*.txt, but there are none.")
    values = LabelValues.find(folder, names, in_yaml=True)

    def read(content: bytes, where: str, size_hw: tuple[int, int]) -> Iterator[LabelledRegion]:
        try:
            lines = content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DatasetError(f"{where} is no text.") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield from _regions(line, f"Line {number} of {where}", values, size_hw)

    for path in files:
        yield MaskSource.of_file(path, root, limits, read, has_objects=True)


def _regions(
    line: str, where: str, values: LabelValues, size_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    """Read a line; no region where its class stands for nothing, one without a pixel of a box."""
    first, *rest = line.split()
    try:
        value = int(first)
        numbers = np.array(rest, np.float64)
    except ValueError:
        raise DatasetError(f"{where} is no class and numbers.") from None
    if value not in values.names:
        raise DatasetError(f"{where} has the class {value}, which {values.file} does not name.")
    score = read_score(numbers[-1].item()) if len(numbers) % 2 else None
    points = numbers[: len(numbers) // 2 * 2].reshape(-1, 2)
    if not ((points >= -_MARGIN) & (points <= 1 + _MARGIN)).all():
        raise DatasetError(
            f"{where} has a point beyond the picture: expected shares of its width and height, "
            "from 0 to 1."
        )
    if (name := values.names[value]) is not None:
        draw = partial(_fill, points * size_hw[::-1], size_hw)
        yield LabelledRegion(name, draw, score, id=where)


def _fill(points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> RegionMask:
    if len(points) < _LEAST_POINTS:
        return np.zeros(size_hw, np.bool_)
    return fill_with_edges(points, size_hw)


def fill_with_edges(points: npt.NDArray[Any], size_hw: tuple[int, int]) -> RegionMask:
    """Fill a polygon (P, 2), x and y in px, and the pixels that its edges touch.

    An outline that was traced along the centres of pixels is its mask again.
    """
    centred = np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)  # 0 is a pixel's centre
    canvas = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(canvas, [centred], 1, shift=_SHIFT)
    return canvas.view(np.bool_)
