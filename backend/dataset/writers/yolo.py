"""Write YOLO's format for segmentation: polygons of each picture in a text file, one a line.

    class x1 y1 x2 y2 ...

The numbers are shares of the picture's width and height. The points are the centres of the pixels
along the edge of a mask, as the trainers' own converters have them. A line is one island of a
region. The format knows no holes, so they are cut out, see `backend.label_studio.shapes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import OVERLAP_RULES, ClassTable, LabelledImage, Overlap
from backend.dataset.output_folder import OutputFolder
from backend.label_studio.shapes import Points, join_rings

FOLDER: Final = "labels"

#: Below half a pixel no trainer rounds the outline to other pixels than those of the mask.
_TOLERANCE_PX: Final = 0.4
_MIN_POINTS: Final = 3  # of a line that trainers take


def yolo_lines(image: LabelledImage, owners: npt.NDArray[np.int32], classes: ClassTable) -> str:
    """Return the text of a picture's file; empty where it has no region.

    Args:
        image: the picture.
        owners: (H, W), see `LabelledImage.owners`.
        classes: the classes.
    """
    columns, rows = (_shares(side) for side in reversed(image.size_hw))
    lines: list[str] = []
    for index, region in enumerate(image.regions):
        value = classes.index(region.label)
        for outline in outlines(owners == index):
            points = [f"{columns[x]} {rows[y]}" for x, y in outline.tolist()]
            lines.append(f"{value} {' '.join(points)}\n")
    return "".join(lines)


def outlines(mask: npt.NDArray[np.bool_]) -> Iterator[Points]:
    """Iterate over the islands of a mask (H, W): (P, 2) int32, x and y in px, three or more points.

    No outline is more than 0.4 px off the centres of the pixels along the edge.

    >>> next(outlines(np.ones((2, 3), np.bool_))).tolist()
    [[0, 0], [0, 1], [2, 1], [2, 0]]
    """
    pixels = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(pixels)
    found, hierarchy = cv2.findContours(
        pixels[top : top + height, left : left + width],
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(left, top),
    )
    if not found:
        return
    contours = [
        cv2.approxPolyDP(each, _TOLERANCE_PX, True)[:, 0].astype(np.int32) for each in found
    ]
    children: dict[int, list[int]] = {}
    for index, (_, _, _, parent) in enumerate(hierarchy[0].tolist()):
        children.setdefault(parent, []).append(index)
    for outer in children.get(-1, []):
        holes = [contours[hole] for hole in children.get(outer, [])]
        outline = join_rings(contours[outer], holes)
        while len(outline) < _MIN_POINTS:
            outline = np.concatenate([outline, outline[-1:]])
        yield outline


def write_list(output: OutputFolder, part: str, files: Iterable[str], images: str) -> None:
    """Write the list of pictures of a part.

    Args:
        output: folder of the data set.
        part: name of the part.
        files: names of the files of its pictures.
        images: name of the folder of pictures.
    """
    output.write(f"{part}.txt", "".join(f"./{images}/{name}\n" for name in files).encode())


def write_data_file(
    output: OutputFolder, parts: Sequence[str], classes: ClassTable, overlap: Overlap
) -> None:
    """Write ``data.yaml``, which a trainer is given.

    A trainer needs a part for validation: without one it is given the pictures that it is trained
    with.
    """
    lines = [f"# {OVERLAP_RULES[overlap]}"]
    if "val" not in parts:
        lines.append("# There is no part for validation: make one with --split 80/20.")
    for part in ("train", "val", "test"):
        if part in parts or part == "val":
            lines.append(f"{part}: {part if part in parts else 'train'}.txt")
    lines.append("names:")
    lines += [
        f"  {value}: {json.dumps(name, ensure_ascii=False)}"  # JSON's texts are YAML's as well
        for value, name in enumerate(classes.names)
    ]
    output.write("data.yaml", ("\n".join(lines) + "\n").encode())


def _shares(side_px: int) -> list[str]:
    """Return the place of each pixel's centre on a side, as texts of shares of the side."""
    return [f"{(place + 0.5) / side_px:.6f}" for place in range(side_px)]
