"""Turn masks into the regions that Label Studio shows: brush, bitmask, polygon, rectangle.

A mask is one brush or bitmask region (an editor freezes on many), but one polygon or rectangle for
each of its islands.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.label_studio.brush_rle import encode_runs
from backend.label_studio.label_config import Control, ControlKind, ControlLabel
from clearclip_core import BoolMask, RunMask

_Slices = tuple[slice, slice]  # rows, columns
OutlinePoints = npt.NDArray[np.int32]

#: Holes that are cut out of one island, the largest first; the others are filled.
MAX_HOLES: Final = 1000

_TOLERANCE_SHARE = 0.001  # of the long side: how far a polygon may leave the mask's edge ...
_TOLERANCE_PX = 1.0  # ... and at least
_DECIMALS = 4  # of percentages: 0.01 px of a picture of 10,000


@dataclass(frozen=True)
class Region:
    """One region of a prediction."""

    id: str  # digest of its owner, place and content, so that equal predictions have equal ids
    kind: ControlKind  # type of the region, and the key of its label in `value`
    from_name: str
    to_name: str
    size_hw: tuple[int, int]
    value: dict[str, Any]
    score: float  # mean probability inside, in [0, 1]
    item_index: int | None = None
    tool: str = ""  # name of the tool beside a ``<Labels>``, see `Control.tool`

    def entries(self) -> list[dict[str, Any]]:
        """Return the region as entries of a prediction's result: mostly one.

        Of a ``<Labels>`` and its tool, the editor writes two entries of one id: the tool's has the
        geometry alone, that of the labels has it too.
        """
        if not self.tool:
            return [self._entry(self.kind, self.from_name, self.value)]
        shape = {key: value for key, value in self.value.items() if key != self.kind}
        labels = {"labels": self.value[self.kind]}
        return [
            self._entry(self.kind.removesuffix("labels"), self.tool, shape),
            self._entry("labels", self.from_name, shape | labels),
        ]

    def _entry(self, type_: str, from_name: str, value: dict[str, Any]) -> dict[str, Any]:
        height, width = self.size_hw
        entry = {
            "id": self.id,
            "type": type_,
            "from_name": from_name,
            "to_name": self.to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value,
            "score": self.score,
        }
        return entry if self.item_index is None else entry | {"item_index": self.item_index}


class HasConfidence(Protocol):
    """What knows the probability of each pixel of an image."""

    @property
    def confidence(self) -> npt.NDArray[np.floating[Any]]:
        """(H, W) float in [0, 1]."""
        ...


def draw_regions(
    mask: RunMask,
    source: HasConfidence | float,
    control: Control,
    label: ControlLabel,
    to_name: str,
    *,
    mean_confidence: float | None = None,
    item_index: int | None = None,
    min_island_px: int = 1,
    tolerance_px: float | None = None,
    with_holes: bool = False,
    owner: str = "",
) -> list[Region]:
    """Draw the mask of one label the way one control has it.

    `source` has the probability of each pixel, or is that of all. It is not asked for it where one
    region is the whole mask and `mean_confidence`, the mean in it, is given. The label says what to
    write, and the least score of a region.

    Islands of fewer than `min_island_px` become no polygon or rectangle. A polygon may leave the
    mask's edge by `tolerance_px`; None: 1 px, and 0.1 % of the long side where that is more. Its
    holes are cut out, see `join_rings`, or filled, which leaves an outline that is easier to move.
    The name of the `owner`, such as a task, enters the ids.

    Return no region for an empty mask; else one, or one for each island, the largest first.
    """
    place = f"{owner}/{control.kind}/{control.name}/{to_name}/{item_index}/{label.written}"

    regions: list[Region] = []
    for shape in _shapes(mask, control.kind, min_island_px, tolerance_px, with_holes):
        if isinstance(source, float):
            mean = source
        elif shape.island is not None:
            inside = source.confidence[shape.box][shape.island]
            mean = float(inside.mean(dtype=np.float64))
        else:
            mean = mask.mean(source.confidence) if mean_confidence is None else mean_confidence

        score = min(max(mean, 0.0), 1.0)
        if score >= label.threshold:
            regions.append(
                Region(
                    id=_region_id(f"{place}/{len(regions)}", shape, mask),
                    kind=control.kind,
                    from_name=control.name,
                    to_name=to_name,
                    size_hw=mask.size_hw,
                    value=shape.value | {control.kind: [label.written]},
                    score=round(score, 6),
                    item_index=item_index,
                    tool=control.tool,
                )
            )
    return regions


class _Shape(NamedTuple):
    """A part of a mask that becomes a region."""

    value: dict[str, Any]
    box: _Slices = np.s_[:, :]
    island: BoolMask | None = None  # mask of the island in the box; None: the part is the mask


def _shapes(
    mask: RunMask,
    kind: ControlKind,
    min_island_px: int,
    tolerance_px: float | None,
    with_holes: bool,
) -> Iterator[_Shape]:
    """Iterate over the parts of a mask that become regions."""
    if not mask.area:
        return
    if kind == "brushlabels":
        yield _Shape({"format": "rle", "rle": encode_runs(mask)})
    elif kind == "bitmasklabels":
        yield _Shape({"imageDataURL": _png_data_url(mask.to_mask())})
    elif kind == "polygonlabels":
        default_px = max(_TOLERANCE_PX, _TOLERANCE_SHARE * max(mask.size_hw))
        tolerance_px = default_px if tolerance_px is None else tolerance_px
        for box, island in _islands(mask, min_island_px):
            points = _outline(mask.size_hw, box, island, tolerance_px, with_holes)
            yield _Shape({"points": points, "closed": True}, box, island)
    else:
        for box, island in _islands(mask, min_island_px):
            yield _Shape(_rectangle(mask.size_hw, box), box, island)


def _png_data_url(mask: BoolMask) -> str:
    """Encode a mask as a PNG, RGBA in full size; only the alpha channel counts."""
    rgba = np.zeros((*mask.shape, 4), dtype=np.uint8)
    rgba[..., 3] = np.where(mask, 255, 0)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _islands(mask: RunMask, min_island_px: int) -> Iterator[tuple[_Slices, BoolMask]]:
    """Iterate over 8-connected components: box and mask inside the box, the largest first."""
    rows, columns = mask.box
    # OpenCV numbers components by blocks of 2 x 2 px: whole ones keep the order of equal islands.
    top, left = rows.start & ~1, columns.start & ~1
    inside = mask.to_mask()[top : rows.stop, left : columns.stop].astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    for part in sorted(range(1, count), key=lambda part: -areas[part]):
        if areas[part] >= min_island_px:
            x, y, width, height = stats[part, :4].tolist()
            island = parts[y : y + height, x : x + width] == part
            yield np.s_[top + y : top + y + height, left + x : left + x + width], island


def _rectangle(size_hw: tuple[int, int], box: _Slices) -> dict[str, Any]:
    rows, columns = box
    left, right = _percent(columns.start, size_hw[1]), _percent(columns.stop, size_hw[1])
    top, bottom = _percent(rows.start, size_hw[0]), _percent(rows.stop, size_hw[0])
    return {
        "x": left,
        "y": top,
        "width": round(right - left, _DECIMALS),
        "height": round(bottom - top, _DECIMALS),
        "rotation": 0,
    }


def _outline(
    size_hw: tuple[int, int], box: _Slices, island: BoolMask, tolerance_px: float, with_holes: bool
) -> list[list[float]]:
    """Return the edge of an island in percent, as points between pixels, not at centres."""
    outer, holes = trace_rings(island)
    points = simplify(outer, tolerance_px)
    if with_holes:
        points = join_rings(points, [simplify(hole, tolerance_px) for hole in holes])
    return [
        [_percent(box[1].start + x, size_hw[1]), _percent(box[0].start + y, size_hw[0])]
        for x, y in points.tolist()
    ]


def _percent(px: int, side_px: int) -> float:
    return round(100 * px / side_px, _DECIMALS)


def _region_id(place: str, shape: _Shape, mask: RunMask) -> str:
    size_hw = mask.size_hw if shape.island is None else shape.island.shape
    digest = hashlib.blake2b(f"{place}/{shape.box}/{size_hw}".encode(), digest_size=8)
    if shape.island is None:  # runs are a hundredth of the pixels
        digest.update(np.stack([mask.starts, mask.ends]).astype("<i8").tobytes())
    else:
        digest.update(np.packbits(shape.island).tobytes())
    return base64.urlsafe_b64encode(digest.digest()).decode()[:10]  # as long as the editor's


# ---- the outlines of masks -----------------------------------------------------------------------


def trace_rings(island: BoolMask) -> tuple[OutlinePoints, list[OutlinePoints]]:
    """Return the rings that bound an island: the outer one, and one for each hole.

    OpenCV traces the centres of the pixels inside of an edge. Of an island of twice the size, each
    of them is half a pixel or none away from the corner of the pixel grid that it stands for.

    Each is (P, 2) int32: x and y of corners of the pixel grid, from 0, 0 to W, H. The outer ring
    turns one way and those of the holes the other.

    >>> outer, holes = trace_rings(np.array([[1, 1, 0], [1, 1, 1]], np.bool_))
    >>> outer.tolist(), holes
    ([[0, 0], [0, 2], [3, 2], [3, 1], [2, 1], [2, 0]], [])
    """
    doubled = island.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer: OutlinePoints | None = None
    holes: list[OutlinePoints] = []
    for contour, (_, _, _, parent) in zip(found, hierarchy[0].tolist(), strict=True):
        ring = corners_of((contour[:, 0] + 1) // 2)
        if parent < 0:
            outer = ring
        else:
            holes.append(ring)
    assert outer is not None, "an island has a pixel"
    return outer, holes


def simplify(ring: OutlinePoints, tolerance_px: float) -> OutlinePoints:
    """Leave points of a ring (P, 2) out that are within a tolerance of the lines between others.

    By Douglas and Peucker (1973). Return (Q, 2) int32; the ring itself where fewer than three are
    left.
    """
    kept: OutlinePoints = cv2.approxPolyDP(ring[:, None], tolerance_px, True)[:, 0].astype(np.int32)
    return kept if len(kept) >= 3 else ring


def join_rings(outer: OutlinePoints, holes: Iterable[OutlinePoints]) -> OutlinePoints:
    """Join an outer ring with those of its holes, which turn the other way, to one closed ring.

    It goes there and back along the shortest way to each; all are (P, 2) int32.
    """
    largest = sorted(holes, key=lambda hole: -cv2.contourArea(hole))[:MAX_HOLES]
    ring = outer
    for hole in largest:
        near, far = _shortest_cut(ring, hole)
        around = np.concatenate([hole[far:], hole[: far + 1]])
        ring = np.concatenate([ring[: near + 1], around, ring[near:]])
    return ring


def corners_of(ring: npt.NDArray[Any]) -> OutlinePoints:
    """Leave points of a ring (P, 2) out that repeat the one before, or lie between two others.

    Return (Q, 2) int32; one point where all are equal.
    """
    points = ring.astype(np.float64).view(np.complex128)[:, 0]
    steps = points - _turned(points, 1)
    moved = np.flatnonzero(steps)
    steps = steps[moved]
    turns = _turned(steps, -1) * steps.conj()  # imaginary: to the side; real: on, or back
    corners = moved[(turns.imag != 0) | (turns.real < 0)]
    return ring[corners if len(corners) else slice(1)].astype(np.int32)


def _turned(ring: npt.NDArray[Any], by: int) -> npt.NDArray[Any]:
    """Do what `numpy.roll` does along the first axis, six times faster for short rings."""
    return np.concatenate([ring[-by:], ring[:-by]])


def _shortest_cut(ring: npt.NDArray[Any], hole: npt.NDArray[Any]) -> tuple[int, int]:
    """Return indices of a point of each that are near to each other, without all distances."""
    ring, hole = ring.astype(np.float64), hole.astype(np.float64)
    near, far, before = 0, 0, -1
    for _ in range(3):
        near = _nearest(ring, hole[far])
        if near == before:  # so is the other end
            break
        far, before = _nearest(hole, ring[near]), near
    return near, far


def _nearest(points: npt.NDArray[np.float64], place: npt.NDArray[np.float64]) -> int:
    apart = points - place
    return int(np.einsum("ij,ij->i", apart, apart).argmin())
