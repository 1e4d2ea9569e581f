"""Read regions of annotations and predictions, and draw them as masks."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import BadRequest
from backend.label_studio.brush_rle import decode_rle
from backend.label_studio.json_fields import (
    read_item_index,
    read_number,
    read_text,
    read_texts,
)
from backend.label_studio.region_writer import BoolMask
from backend.label_studio.requests import Rectangle, Task
from clearclip_core.images.opening import open_image

_MIN_ALPHA = 128  # of a painted pixel: the editor's brushes have soft edges
_MAX_CROSSINGS = 10_000_000  # of outlines and rows of pixels: it takes seconds to sort them

#: What tells the geometry of a region from others: key of its value -> kind.
_KINDS_BY_KEY: Final[Mapping[str, str]] = {
    "rle": "brushlabels",
    "imageDataURL": "bitmasklabels",
    "points": "polygonlabels",
    "height": "rectanglelabels",
    "radiusX": "ellipselabels",
}

_BROKEN = (
    AttributeError,
    KeyError,
    TypeError,
    OverflowError,
    OSError,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Area:
    """A region that covers a part of an image, with its geometry as Label Studio writes it.

    Attributes:
        kind: its type, and the key of its labels in `value`.
        control: name of the control that it was made with.
        image: name of the image that it is on.
        item_index: index in a list of images; None where the image is no list.
        size_hw: height and width of the image in px, as the editor has measured it.
        value: geometry and labels.
        id: id of the region.
        origin: where the region came from, as Label Studio has it: "prediction" while it stands as
            a prediction showed it, "prediction-changed", or "manual"; empty where it does not say.
        score: of the prediction that it came from; None where it has none.
    """

    kind: str
    control: str
    image: str
    item_index: int | None
    size_hw: tuple[int, int]
    value: Mapping[str, Any] = field(repr=False)
    id: str = ""
    origin: str = ""
    score: float | None = None


def drawn_areas(task: Task) -> Iterator[Area]:
    """Iterate over the areas among the regions of a task; broken regions are left out."""
    return (area for raw in task.drawn if (area := _read_area(raw)) is not None)


def read_areas(regions: Iterable[Any], controls: Container[str]) -> list[Area]:
    """Read the areas that some controls have drawn, among the regions of a result.

    Args:
        regions: regions of a result, as they came.
        controls: names of the controls.

    Raises:
        BadRequest: one of them is broken, so that the others alone would be incomplete.

    >>> box = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["car"]}
    >>> read_areas([{"from_name": "box", "type": "rectanglelabels", "value": box}], {"box"})
    Traceback (most recent call last):
    ...
    backend.errors.BadRequest: Expected a region of "box" to have a type, a value and the size \
of its picture, but got another.
    """
    found: list[Area] = []
    for raw in regions:
        name = read_text(raw, "from_name") if isinstance(raw, dict) else ""
        if not name or name not in controls:
            continue
        area = _read_area(raw)
        if area is not None and area.kind == "labels":
            continue  # a point, or another shape without an area, of a tool beside <Labels>
        if area is None:
            raise BadRequest(
                f'Expected a region of "{name[:50]}" to have a type, a value and the size of its '
                "picture, but got another."
            )
        found.append(area)
    return found


def written_labels(area: Area) -> list[str]:
    """Return the labels of an area as the editor writes them: aliases where there are some."""
    return read_texts(area.value.get(area.kind))


def area_mask(area: Area) -> BoolMask:
    """Return the mask of the pixels that an area covers.

    Returns:
        (H, W) bool of ``area.size_hw``.

    Raises:
        ValueError: an area of an unknown kind, or with a broken geometry.

    >>> box = {"x": 50, "y": 0, "width": 50, "height": 100}
    >>> area_mask(Area("rectanglelabels", "box", "img", None, (1, 4), box))
    array([[False, False,  True,  True]])
    """
    value = area.value
    try:
        if area.kind == "brushlabels":
            alpha = decode_rle(value["rle"], *area.size_hw)
            return np.greater_equal(alpha, _MIN_ALPHA, out=alpha.view(np.bool_))
        if area.kind == "bitmasklabels":
            return _read_bitmask(value["imageDataURL"], area.size_hw)
        if area.kind == "polygonlabels":
            points = np.array(value["points"], dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 2:
                raise ValueError("Expected the points of an outline to be pairs of numbers.")
            return _outline_mask(points * area.size_hw[::-1] / 100, area.size_hw)
        if area.kind == "rectanglelabels":
            x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
            rotation = float(value.get("rotation", 0))
            return rectangle_mask(Rectangle(x, y, width, height, rotation), area.size_hw)
        if area.kind == "ellipselabels":
            return _ellipse_mask(value, area.size_hw)
    except (*_BROKEN, cv2.error) as error:
        raise ValueError(f"A region of the kind {area.kind} is broken: {error!r}.") from None
    raise ValueError(f"A region of the kind {area.kind} covers no pixels.")


def rectangle_corners(rectangle: Rectangle, size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the corners of a rectangle, clockwise from the one that it is rotated about.

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
    """Return the mask (H, W) bool of the pixels inside a rectangle; empty where a side is 0."""
    corners = rectangle_corners(rectangle, size_hw)
    mask = np.zeros(size_hw, dtype=np.bool_)
    if rectangle.width_percent == 0 or rectangle.height_percent == 0:
        return mask  # OpenCV would fill the pixels along the edge
    if rectangle.rotation_degrees % 360:
        return _outline_mask(corners, size_hw)
    (left, top), (right, bottom) = np.rint(corners[[0, 2]].clip(0, size_hw[::-1])).astype(int)
    mask[top:bottom, left:right] = True
    return mask


def _read_area(raw: Any) -> Area | None:
    """Read a region; None where it is no area."""
    region = raw if isinstance(raw, dict) else {}
    kind, value = region.get("type"), region.get("value")
    if kind == "labels" and isinstance(value, dict):
        kind, value = _as_control(value)
    size_hw = region.get("original_height"), region.get("original_width")
    if not (
        isinstance(kind, str)
        and isinstance(value, dict)
        and all(isinstance(side, int) and side > 0 for side in size_hw)
    ):
        return None
    return Area(
        kind=kind,
        control=read_text(region, "from_name"),
        image=read_text(region, "to_name"),
        item_index=read_item_index(region),
        size_hw=cast("tuple[int, int]", size_hw),
        value=value,
        id=read_text(region, "id"),
        origin=read_text(region, "origin"),
        score=read_number(region.get("score")),
    )


def _as_control(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the kind and the value that a region of a ``<Labels>`` has with labels of its own.

    >>> _as_control({"points": [[0, 0]], "labels": ["car"]})
    ('polygonlabels', {'points': [[0, 0]], 'polygonlabels': ['car']})
    """
    kind = next((kind for key, kind in _KINDS_BY_KEY.items() if key in value), "labels")
    shape = {key: each for key, each in value.items() if key != "labels"}
    return kind, shape | {kind: value.get("labels")}


def _outline_mask(points_px: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> BoolMask:
    """Return the mask (H, W) bool of the pixels whose centres lie inside an outline.

    Args:
        points_px: (P, 2) x and y; where the outline crosses itself, the even-odd rule holds.
        size_hw: height and width of the image in px.

    OpenCV would also fill the pixels that the outline touches, which makes each region half a
    pixel wider on all sides.
    """
    height, width = size_hw
    far = 2 * max(size_hw)  # products of larger numbers overflow, and no pixels lie beyond
    points = _finite(points_px).clip(-far, far)
    ends = np.roll(points, -1, axis=0)
    # Rows whose centres, at y + 0.5, an edge passes; the lower end belongs to the next edge.
    firsts, lasts = (np.ceil(each[:, 1].clip(0, height) - 0.5) for each in (points, ends))
    low, high = np.minimum(firsts, lasts).astype(int), np.maximum(firsts, lasts).astype(int)
    counts = high - low
    crossings = int(counts.sum())
    if crossings > _MAX_CROSSINGS:
        raise ValueError(f"An outline crosses {crossings} rows, more than {_MAX_CROSSINGS}.")
    edges = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(crossings) - np.repeat(np.cumsum(counts) - counts, counts) + low[edges]
    (x0, y0), (x1, y1) = points[edges].T, ends[edges].T
    xs = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    columns = np.ceil(xs.clip(0, width) - 0.5).astype(int)
    toggles = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(toggles, (rows, columns), 1)
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(np.bool_)


def _ellipse_mask(value: Mapping[str, Any], size_hw: tuple[int, int]) -> BoolMask:
    """Return the mask (H, W) bool of the pixels whose centres are inside an ellipse."""
    height, width = size_hw
    numbers = [float(value[key]) for key in ("x", "y", "radiusX", "radiusY")]
    scaled = np.array([*numbers, float(value.get("rotation", 0))])[:, None]
    x, y, radius_x, radius_y, degrees = _finite(scaled)[:, 0].tolist()
    mask = np.zeros(size_hw, dtype=np.bool_)
    a, b = abs(radius_x) * width / 100, abs(radius_y) * height / 100
    if a == 0 or b == 0:
        return mask
    right = np.arange(width) + 0.5 - x * width / 100  # (W,)
    down = (np.arange(height) + 0.5 - y * height / 100)[:, None]  # (H, 1)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = cos * right + sin * down, cos * down - sin * right
    mask |= np.square(along / a) + np.square(across / b) <= 1
    return mask


def _finite(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not np.isfinite(points).all():
        raise ValueError("Expected a region's numbers to be finite, but got others.")
    return points


def _read_bitmask(url: str, size_hw: tuple[int, int]) -> BoolMask:
    file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
    with open_image(file, formats=("PNG",)) as picture:
        if picture.size != size_hw[::-1]:
            raise ValueError(f"A bitmask is {picture.size}, but its picture {size_hw[::-1]}.")
        return np.asarray(picture.convert("RGBA"))[..., 3] >= _MIN_ALPHA
