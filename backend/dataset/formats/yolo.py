"""Read and write YOLO's formats: a text file for each picture, an object a line.

    class x1 y1 x2 y2 ... [score]     the outline of its mask
    class x y width height            its box; x and y are its middle

The numbers are shares of the picture's width and height. The points of an outline that is written
are the centres of pixels: filled as Ultralytics fills it (whole numbers by leaving decimals out,
then ``cv2.fillPoly``), it is the mask. The format knows neither holes nor islands: a cut runs along
pixels of the mask to each hole and back, and along the shortest way to each further island, as in
the converter of Ultralytics. No box is read.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.format_writer import (
    FormatWriter,
    LabelledObject,
    ReadRows,
    SetFrame,
    WrittenImage,
)
from backend.dataset.formats.label_map import FILES, LabelValues
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_score
from backend.errors import DatasetError
from backend.label_studio.region_writer import OutlinePoints, corners_of, join_rings
from clearclip_core import BoolMask
from clearclip_core.quantities import quantity

LABELS_FOLDER: Final = "labels"

_LEAST_POINTS: Final = 3  # points of an outline: trainers take no fewer; a box has two
_MARGIN: Final = 0.5  # how far beyond the picture a point may lie that is read, as a share of it
_SHIFT: Final = 4  # fractional bits of the coordinates in which OpenCV fills
_AT_ONCE: Final = 1000  # islands that `join_rings` joins at once
Pixels = npt.NDArray[np.uint8]  # pixels (H, W) uint8, 0 or 1


# ---- reading -------------------------------------------------------------------------------------


def find_label_files(folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names start from, and its text files: those in ``labels``, if any."""
    root, files = find_below(folder, (LABELS_FOLDER,), ".txt", lambda path: path.name not in FILES)
    in_folders = [each for each in files if LABELS_FOLDER in each.relative_to(root).parts]
    return root, in_folders or [each for each in files if not each.name.startswith("README")]


def read_yolo(folder: Path, names: Path | None, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the files of a folder; for `names` see `LabelValues.find`."""
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
        shares = "shares of its width and height, from 0 to 1"
        raise DatasetError(f"{where} has a point beyond the picture: expected {shares}.")
    if (name := values.names[value]) is not None:
        draw = partial(_fill, points * size_hw[::-1], size_hw)
        yield LabelledRegion(name, draw, score, id=where)


def _fill(points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> BoolMask:
    if len(points) < _LEAST_POINTS:
        return np.zeros(size_hw, np.bool_)
    return fill_with_edges(points, size_hw)


def fill_with_edges(points: npt.NDArray[Any], size_hw: tuple[int, int]) -> BoolMask:
    """Fill a polygon (P, 2), x and y in px, and the pixels that its edges touch."""
    centred = np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)  # 0 is a pixel's centre
    canvas = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(canvas, [centred], 1, shift=_SHIFT)
    return canvas.view(np.bool_)


# ---- writing -------------------------------------------------------------------------------------


class YoloWriter(FormatWriter):
    """Writes a text file a picture, lists of the pictures, and ``data.yaml``."""

    name = "yolo"
    title = "YOLO, segmentation (Ultralytics)"
    files = frozenset({LABELS_FOLDER, "data.yaml", "train.txt", "val.txt", "test.txt"})
    has_objects = True

    def __init__(self, frame: SetFrame) -> None:
        super().__init__(frame)
        self._left_out = 0

    def entry(self, thing: LabelledObject, mask: BoolMask) -> str | None:
        islands, left_out = find_islands(mask, self.frame.options.min_area_px)
        self._left_out += left_out
        if not islands:
            return None
        numbers = self.numbers(islands, mask.shape)
        return f"{self.frame.classes.names.index(thing.label)} {' '.join(numbers)}\n"

    def numbers(self, islands: Sequence[OutlinePoints], size_hw: Sequence[int]) -> Iterable[str]:
        x, y = outline(islands).T
        texts = np.stack([_shares(size_hw[1])[x], _shares(size_hw[0])[y]], axis=1)
        return texts.ravel().tolist()  # seven times as fast as point by point

    def image_files(self, image: WrittenImage, entries: Sequence[Any]) -> Mapping[str, bytes]:
        return {f"{LABELS_FOLDER}/{image.name}.txt": "".join(entries).encode()}

    def write_part(self, part: str, rows: ReadRows) -> None:
        files = "".join(f"./images/{row.image}\n" for row in rows())
        self.frame.output.write(f"{part}.txt", files.encode())

    def finish(self) -> None:
        """Write ``data.yaml``; trainers need a part for validation: without one it is ``train``."""
        parts, names = self.frame.options.split.names, self.frame.classes.names
        lines = []
        if "val" not in parts:
            lines.append("# There is no part for validation: make one with a split, such as 80/20.")
        for part in ("train", "val", "test"):
            if part in parts or part == "val":
                lines.append(f"{part}: {part if part in parts else 'train'}.txt")
        lines.append("names:")
        # JSON's texts are YAML's as well.
        lines += [f"  {n}: {json.dumps(each, ensure_ascii=False)}" for n, each in enumerate(names)]
        self.frame.output.write("data.yaml", ("\n".join(lines) + "\n").encode())

    def notes(self) -> Iterator[str]:
        if self._left_out:
            least_px = self.frame.options.min_area_px
            small = f"{quantity(self._left_out, 'island')} below {least_px} px"
            yield f"{small} left out of YOLO's files ({self.frame.options.names.min_area})."


class YoloBoxWriter(YoloWriter):
    """Writes the same files with boxes."""

    name = "yolo-boxes"
    title = "YOLO, boxes (Ultralytics)"

    def numbers(self, islands: Sequence[OutlinePoints], size_hw: Sequence[int]) -> Iterable[str]:
        points = np.concatenate(islands)
        first, end, size = points.min(axis=0), points.max(axis=0) + 1, np.array(size_hw[::-1])
        shares = np.concatenate([(first + end) / 2 / size, (end - first) / size])
        return (f"{share:.6f}" for share in shares.tolist())


def find_islands(mask: BoolMask, min_area_px: int = 1) -> tuple[list[OutlinePoints], int]:
    """Find the islands (8-connected) of a mask that has a pixel, as rings with their holes cut out
    (P, 2) int32, x and y in px; and count those that are smaller."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    pixels = np.ascontiguousarray(mask[top : top + height, left : left + width]).view(np.uint8)
    found, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = hierarchy[0, :, 3].tolist()
    holes: dict[int, list[OutlinePoints]] = {}
    for contour, parent in zip(found, parents, strict=True):
        holes.setdefault(parent, []).append(contour[:, 0])
    islands = [
        (found[at][:, 0], holes.get(at, [])) for at, parent in enumerate(parents) if parent < 0
    ]
    large = [each for each in islands if _area_px(*each) >= min_area_px]
    corner = np.array([left, top], np.int32)
    rings: list[OutlinePoints] = [corners_of(_cut_out(*each, pixels)) + corner for each in large]
    return rings, len(islands) - len(large)


def _area_px(ring: OutlinePoints, holes: Sequence[OutlinePoints]) -> int:
    """Count the pixels of an island by Pick's theorem: rings go through the centres of pixels."""
    inside = sum(cv2.contourArea(each) - len(each) / 2 + 1 for each in holes)
    return int(cv2.contourArea(ring) + len(ring) / 2 + 1 - inside)


def outline(islands: Sequence[OutlinePoints]) -> OutlinePoints:
    """Return one ring (P, 2) around all islands."""
    ring, *others = sorted(islands, key=lambda each: -cv2.contourArea(each))
    for start in range(0, len(others), _AT_ONCE):
        ring = join_rings(ring, others[start : start + _AT_ONCE])
    if len(ring) < _LEAST_POINTS:
        ring = np.concatenate([ring, ring[-1:].repeat(_LEAST_POINTS - len(ring), axis=0)])
    return ring


def _cut_out(outer: OutlinePoints, holes: Sequence[OutlinePoints], pixels: Pixels) -> OutlinePoints:
    """Join the ring of an island with those of its holes.

    From its leftmost pixel, a hole is joined along the row with the ring where the mask begins:
    all pixels of the cut are of the mask. That ring begins farther left, so that the holes are
    joined from the right one on, each with those that are joined with it.
    """
    if not holes:
        return outer

    rings, width, line = [outer, *holes], pixels.shape[1], pixels.tobytes()
    ends = [*accumulate(map(len, rings))]
    points = np.concatenate(rings)
    keys = points[:, 1] * width + points[:, 0]
    order = keys.argsort(kind="stable")
    ordered = keys[order]

    firsts = [int(ring[:, 0].argmin()) for ring in rings]
    lefts = [-1, *(int(hole[first, 0]) for hole, first in zip(holes, firsts[1:], strict=True))]
    joined: dict[int, list[tuple[int, OutlinePoints]]] = {}

    for number in sorted(range(1, len(rings)), key=lambda each: -lefts[each]):
        ring, first, own = rings[number], firsts[number], joined.get(number, ())
        x, y = ring[first].tolist()

        key = max(line.rfind(0, y * width, y * width + x) + 1, y * width)
        same = order[ordered.searchsorted(key) :]
        place = next(int(at) for at in same if lefts[bisect_right(ends, at)] < x)
        owner = bisect_right(ends, place)

        around = _splice(ring, own)
        begin = first + sum(len(other) + 1 for at, other in own if at < first)
        turned = np.concatenate([around[begin:], around[: begin + 1]])
        joined.setdefault(owner, []).append((place - ends[owner] + len(rings[owner]), turned))

    return _splice(outer, joined.get(0, ()))


def _splice(ring: OutlinePoints, others: Sequence[tuple[int, OutlinePoints]]) -> OutlinePoints:
    """Insert closed rings behind points of a ring, to which it returns after each."""
    if not others:
        return ring
    pieces, before = [], 0
    for place, other in sorted(others, key=lambda each: each[0]):
        pieces += [ring[before : place + 1], other]
        before = place
    return np.concatenate([*pieces, ring[before:]])


@lru_cache(maxsize=8)
def _shares(side_px: int) -> npt.NDArray[np.object_]:
    """Return the place of each pixel's centre on a side, as texts of shares of the side."""
    return np.array([f"{(place + 0.5) / side_px:.6f}" for place in range(side_px)], np.object_)
