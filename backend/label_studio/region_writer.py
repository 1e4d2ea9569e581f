"""Masks -> the regions that Label Studio shows, and back: brush, bitmask, polygon, rectangle.

A mask is one brush or bitmask region (an editor freezes on many), but one polygon or rectangle for
each of its islands.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.label_studio.brush_rle import decode_rle, encode_rle
from backend.label_studio.label_config_parser import Control, ControlKind, ControlLabel
from backend.label_studio.requests import Area, Rectangle

BoolMask = npt.NDArray[np.bool_]
Box = tuple[slice, slice]  # rows, columns

_TOLERANCE_SHARE = 0.001  # of the long side: how far a polygon may leave the mask's edge ...
_TOLERANCE_PX = 1.0  # ... and at least
_PAINTED = 128  # alpha of what counts as painted, where hands leave soft edges
_SHIFT = 4  # bits of a pixel's fraction in which outlines are filled
_BROKEN = (
    AttributeError,
    KeyError,
    TypeError,
    OverflowError,
    OSError,
    Image.DecompressionBombError,
)
_DECIMALS = 4  # of percentages: 0.01 px of a picture of 10,000


@dataclass(frozen=True)
class Region:
    """One region of a prediction.

    Attributes:
        id: follows from its owner, place and content, so the same prediction has the same ids.
        kind: type of the region, and the key of its label in `value`.
        from_name: name of the control.
        to_name: name of the image.
        size_hw: height and width of the upright picture, in pixels.
        value: geometry and label, in Label Studio's words.
        score: mean probability inside, in [0, 1].
        item_index: which picture of a list it is on; None where the image is no list.
    """

    id: str
    kind: ControlKind
    from_name: str
    to_name: str
    size_hw: tuple[int, int]
    value: dict[str, Any]
    score: float
    item_index: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The region as it stands in the result of a prediction."""
        height, width = self.size_hw
        result = {
            "id": self.id,
            "type": self.kind,
            "from_name": self.from_name,
            "to_name": self.to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": self.value,
            "score": self.score,
        }
        return result if self.item_index is None else result | {"item_index": self.item_index}


def draw_regions(
    mask: BoolMask,
    confidence: npt.NDArray[np.floating[Any]],
    control: Control,
    label: ControlLabel,
    to_name: str,
    *,
    item_index: int | None = None,
    min_island_px: int = 1,
    owner: str = "",
) -> list[Region]:
    """Draw the mask of one label the way one control has it.

    Args:
        mask: (H, W) bool, of the upright picture.
        confidence: (H, W) float, probability of the label in [0, 1].
        control: says what is drawn.
        label: says what is written, and the least score that is wanted.
        to_name: name of the image.
        item_index: which picture of a list, if it is a list.
        min_island_px: smaller islands become no polygon or rectangle.
        owner: what these regions belong to, such as a task: enters the ids.

    Returns:
        No region for an empty mask; else one, or one for each island, the largest first.

    Raises:
        ValueError: a mask that is not bool (H, W), or a confidence of another shape.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.shape != confidence.shape:
        raise ValueError(
            "Expected arguments `mask` and `confidence` to be bool and float (H, W), but got "
            f"{mask.dtype} {mask.shape} and {confidence.dtype} {confidence.shape}."
        )
    place = f"{owner}/{control.kind}/{control.name}/{to_name}/{item_index}/{label.written}"
    regions: list[Region] = []
    for box, part, value in _shapes(mask, control.kind, min_island_px):
        score = float(np.clip(confidence[box][part].mean(dtype=np.float64), 0, 1))
        if score >= label.threshold:
            regions.append(
                Region(
                    id=_region_id(f"{place}/{len(regions)}", box, part),
                    kind=control.kind,
                    from_name=control.name,
                    to_name=to_name,
                    size_hw=(mask.shape[0], mask.shape[1]),
                    value=value | {control.kind: [label.written]},
                    score=round(score, 6),
                    item_index=item_index,
                )
            )
    return regions


def area_mask(area: Area) -> BoolMask:
    """The pixels that a region covers.

    Returns:
        (H, W) bool of ``area.size_hw``.

    Raises:
        ValueError: it is of another kind than we draw, or its geometry is broken.

    >>> box = {"x": 50, "y": 0, "width": 50, "height": 100}
    >>> area_mask(Area("rectanglelabels", "box", "img", None, (1, 4), box))
    array([[False, False,  True,  True]])
    """
    value = area.value
    try:
        if area.kind == "brushlabels":
            return decode_rle(value["rle"], *area.size_hw) >= _PAINTED
        if area.kind == "bitmasklabels":
            return _read_bitmask(value["imageDataURL"], area.size_hw)
        if area.kind == "polygonlabels":
            points = np.array(value["points"], dtype=np.float64)
            return _outline_mask(points * area.size_hw[::-1] / 100, area.size_hw)
        if area.kind == "rectanglelabels":
            x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
            rotation = float(value.get("rotation", 0))
            return rectangle_mask(Rectangle(x, y, width, height, rotation), area.size_hw)
    except (*_BROKEN, cv2.error) as error:
        raise ValueError(f"A region of the kind {area.kind} is broken: {error!r}.") from None
    raise ValueError(f"A region of the kind {area.kind} covers no pixels.")


def rectangle_corners(rectangle: Rectangle, size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The corners of a rectangle, clockwise from the one that it is turned about.

    Returns:
        (4, 2) float64: x and y in px.

    Raises:
        ValueError: a number is not finite.

    >>> rectangle_corners(Rectangle(50, 0, 20, 10, rotation_degrees=90), (100, 200)).round()
    array([[100.,   0.],
           [100.,  40.],
           [ 90.,  40.],
           [ 90.,   0.]])
    """
    height, width = size_hw
    origin = np.array([rectangle.x_percent * width, rectangle.y_percent * height]) / 100
    angle = math.radians(rectangle.rotation_degrees)
    along = np.array([math.cos(angle), math.sin(angle)]) * rectangle.width_percent * width / 100
    down = np.array([-math.sin(angle), math.cos(angle)]) * rectangle.height_percent * height / 100
    return _finite(origin + np.array([along * 0, along, along + down, down]))


def rectangle_mask(rectangle: Rectangle, size_hw: tuple[int, int]) -> BoolMask:
    """(H, W) bool: the pixels inside a rectangle, turned or not; none where a side is 0."""
    corners = rectangle_corners(rectangle, size_hw)
    mask = np.zeros(size_hw, dtype=np.bool_)
    if rectangle.width_percent == 0 or rectangle.height_percent == 0:
        return mask  # of an outline without area its edge would be filled
    if rectangle.rotation_degrees % 360:
        return _outline_mask(corners, size_hw)
    (left, top), (right, bottom) = np.rint(corners[[0, 2]].clip(0, size_hw[::-1])).astype(int)
    mask[top:bottom, left:right] = True
    return mask


def _outline_mask(points_px: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> BoolMask:
    """(H, W) bool: the pixels inside an outline, whose points (P, 2) are x and y."""
    canvas = np.zeros(size_hw, dtype=np.uint8)
    far = 2 * max(size_hw)  # what is beyond has no pixels, but numbers too large for OpenCV
    points_px = _finite(points_px).clip(-far, far)
    centred = np.rint((points_px - 0.5) * (1 << _SHIFT)).astype(np.int32)  # of pixels' middles
    cv2.fillPoly(canvas, [centred], 1, shift=_SHIFT)
    return canvas.astype(np.bool_)


def _finite(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not np.isfinite(points).all():
        raise ValueError("Expected a region's numbers to be finite, but got others.")
    return points


def _read_bitmask(url: str, size_hw: tuple[int, int]) -> BoolMask:
    file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
    with Image.open(file) as picture:
        if picture.size != size_hw[::-1]:
            raise ValueError(f"A bitmask is {picture.size}, but its picture {size_hw[::-1]}.")
        return np.asarray(picture.convert("RGBA"))[..., 3] >= _PAINTED


def _shapes(
    mask: BoolMask, kind: ControlKind, min_island_px: int
) -> Iterator[tuple[Box, BoolMask, dict[str, Any]]]:
    """The parts of a mask that become a region each: box, mask inside the box, geometry."""
    if not mask.any():
        return
    if kind == "brushlabels":
        yield np.s_[:, :], mask, {"format": "rle", "rle": encode_rle(mask)}
    elif kind == "bitmasklabels":
        yield np.s_[:, :], mask, {"imageDataURL": _png_data_url(mask)}
    elif kind == "polygonlabels":
        for box, island in _islands(mask, min_island_px):
            yield box, island, {"points": _outline(mask.shape, box, island), "closed": True}
    elif kind == "rectanglelabels":
        for box, island in _islands(mask, min_island_px):
            yield box, island, _rectangle(mask.shape, box)
    else:
        raise ValueError(f"Expected argument `kind` to be one of the controls, but got {kind!r}.")


def _png_data_url(mask: BoolMask) -> str:
    """A full-size RGBA picture of which only the alpha channel counts."""
    rgba = np.zeros((*mask.shape, 4), dtype=np.uint8)
    rgba[..., 3] = np.where(mask, 255, 0)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _islands(mask: BoolMask, min_island_px: int) -> Iterator[tuple[Box, BoolMask]]:
    """Parts that hang together, also over corners: box and mask inside it, the largest first."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    for part in sorted(range(1, count), key=lambda part: -areas[part]):
        if areas[part] >= min_island_px:
            x, y, width, height = stats[part, :4].tolist()
            box = np.s_[y : y + height, x : x + width]
            yield box, parts[box] == part


def _rectangle(shape: tuple[int, ...], box: Box) -> dict[str, Any]:
    rows, columns = box
    left, right = _percent(columns.start, shape[1]), _percent(columns.stop, shape[1])
    top, bottom = _percent(rows.start, shape[0]), _percent(rows.stop, shape[0])
    return {
        "x": left,
        "y": top,
        "width": round(right - left, _DECIMALS),
        "height": round(bottom - top, _DECIMALS),
        "rotation": 0,
    }


def _outline(shape: tuple[int, ...], box: Box, island: BoolMask) -> list[list[float]]:
    """The outer edge of an island, in percent: points between pixels, not in their middles.

    A corner of the pixel grid belongs to the island if one of its four pixels does. The outline of
    these corners runs along the edge of the pixels, so that thin islands have an area as well.
    """
    height, width = island.shape
    corners = np.zeros((height + 1, width + 1), dtype=np.uint8)
    for down in (0, 1):
        for right in (0, 1):
            corners[down : down + height, right : right + width] |= island
    contours, _ = cv2.findContours(corners, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = max(_TOLERANCE_PX, _TOLERANCE_SHARE * max(shape))
    points = cv2.approxPolyDP(contours[0], tolerance, True)[:, 0]  # (P, 2)
    if len(points) < 3:  # thinner than the tolerance
        points = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    return [
        [_percent(box[1].start + x, shape[1]), _percent(box[0].start + y, shape[0])]
        for x, y in points.tolist()
    ]


def _percent(px: int, side_px: int) -> float:
    return round(100 * px / side_px, _DECIMALS)


def _region_id(place: str, box: Box, part: BoolMask) -> str:
    digest = hashlib.blake2b(f"{place}/{box}/{part.shape}".encode(), digest_size=8)
    digest.update(np.packbits(part).tobytes())
    return base64.urlsafe_b64encode(digest.digest()).decode()[:10]  # as long as the editor's
