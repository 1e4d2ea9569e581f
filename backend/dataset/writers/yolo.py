"""Write YOLO's format for segmentation: polygons of each picture in a text file, one a line.

    class x1 y1 x2 y2 ...

The numbers are shares of the picture's width and height. The points are the centres of the pixels
along the edge of a mask, as the trainers' own converters have them. A line is one island of a
region. The format knows no holes, so an outline runs along a cut to each hole and back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import OVERLAP_RULES, ClassTable, LabelledImage, Overlap
from clearclip_core.evaluation.atomic_write import write_whole

FOLDER: Final = "labels"

#: Holes that are cut out of one island, the largest first; the others are filled.
MAX_HOLES: Final = 200

_TOLERANCE_PX: Final = 0.5
_MIN_POINTS: Final = 3  # of a line that trainers take

_Points = npt.NDArray[np.int32]


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


def outlines(mask: npt.NDArray[np.bool_]) -> Iterator[_Points]:
    """Iterate over the islands of a mask (H, W): (P, 2) int32, x and y in px, three or more points.

    No outline is more than half a pixel off the centres of the pixels along the edge.

    >>> next(outlines(np.ones((2, 3), np.bool_))).tolist()
    [[0, 0], [0, 1], [2, 1], [2, 0]]
    """
    found, hierarchy = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
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
        yield _cut(contours[outer], holes)


def write_data_file(
    folder: Path,
    parts: Mapping[str, Iterable[str]],
    classes: ClassTable,
    overlap: Overlap,
    images: str,
) -> None:
    """Write ``data.yaml``, which a trainer is given, and the list of pictures of each part.

    A trainer needs a part for validation: without one it is given the pictures that it is trained
    with.

    Args:
        folder: of the data set.
        parts: name of a part -> file names of its pictures.
        classes: the classes.
        overlap: the rule by which overlaps were resolved.
        images: name of the folder of pictures.
    """
    for part, names in parts.items():
        text = "".join(f"./{images}/{name}\n" for name in names)
        write_whole(folder / f"{part}.txt", text.encode())
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
    write_whole(folder / "data.yaml", ("\n".join(lines) + "\n").encode())


def _shares(side_px: int) -> list[str]:
    """Return the place of each pixel's centre on a side, as texts of shares of the side."""
    return [f"{(place + 0.5) / side_px:.6f}" for place in range(side_px)]


def _cut(outer: _Points, holes: list[_Points]) -> _Points:
    """Join an outline with its holes: there and back along the shortest way to each."""
    holes = sorted(holes, key=lambda hole: -cv2.contourArea(hole))[:MAX_HOLES]
    outline = outer
    for hole in holes:
        near, far = _shortest_cut(outline, hole)
        around = np.concatenate([hole[far:], hole[: far + 1]])
        outline = np.concatenate([outline[: near + 1], around, outline[near:]])
    while len(outline) < _MIN_POINTS:
        outline = np.concatenate([outline, outline[-1:]])
    return outline


def _shortest_cut(outline: _Points, hole: _Points) -> tuple[int, int]:
    """Return indices of a point of each that are near to each other.

    Nearest points are looked for in turn, which needs no table of all distances.
    """
    near, far = 0, 0
    for _ in range(3):
        near = int(np.square(outline.astype(np.int64) - hole[far]).sum(axis=1).argmin())
        far = int(np.square(hole.astype(np.int64) - outline[near]).sum(axis=1).argmin())
    return near, far
