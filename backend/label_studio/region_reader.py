"""Read regions of annotations and predictions, and draw them as masks."""

import base64
import io
import math
import struct
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct
from PIL import Image

from backend.errors import BadRequest
from backend.label_studio.brush_rle import decode_rle
from clearclip_core import BoolMask
from clearclip_core.images.opening import open_image

_MIN_ALPHA = 128  # of a painted pixel: the editor's brushes have soft edges

RECTANGLE: Final = "rectanglelabels"  # the kind of regions that bound what they show
ELLIPSE: Final = "ellipselabels"

#: What tells the geometry of a region from others: key of its value -> kind.
_KINDS_BY_KEY: Final[Mapping[str, str]] = {
    "rle": "brushlabels",
    "imageDataURL": "bitmasklabels",
    "points": "polygonlabels",
    "height": RECTANGLE,
    "radiusX": ELLIPSE,
}

_NOT_KEPT: Final = "Label Studio has not kept its kind, its shape or the size of its picture"

_TOLD_LETTERS: Final = 50  # letters of a region's labels that an error repeats

#: What is raised for values that are no numbers, and by decoders for broken content.
_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


Number = Annotated[float, Meta(gt=-1e6, lt=1e6)]  # a percentage or an angle


class Rectangle(Struct, frozen=True, rename=lambda name: name.rpartition("_")[0]):
    """A box, in percent of the upright image's width and height; no side is negative."""

    x_percent: Number
    y_percent: Number
    width_percent: Annotated[float, Meta(ge=0, lt=1e6)]  # its width before the rotation
    height_percent: Annotated[float, Meta(ge=0, lt=1e6)]  # its height before the rotation
    rotation_degrees: Number = 0.0  # clockwise, about the top left corner


def read_texts(given: Any) -> list[str]:
    """Read the texts of a list; other items and blank ones are left out."""
    given = given if isinstance(given, list) else []
    return [text for text in given if isinstance(text, str) and text.strip()]


def read_item_index(region: Mapping[str, Any]) -> int | None:
    """Read which image of a list a region is on; None where the region does not say."""
    index = region.get("item_index")
    return index if type(index) is int and index >= 0 else None


def read_text(message: Mapping[str, Any], key: str) -> str:
    """Read a text; empty where there is another value."""
    value = message.get(key)
    return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class Area:
    """A region that covers a part of an image, with its geometry as Label Studio writes it."""

    kind: str  # its type, and the key of its labels in `value`
    control: str
    image: str
    item_index: int | None
    size_hw: tuple[int, int]
    value: Mapping[str, Any] = field(repr=False)
    id: str = ""
    origin: str = ""  # see `backend.annotations.regions.Origin`; empty where it does not say
    source: str = ""  # "review" where it was accepted or repaired there, and not changed since
    score: float | None = None  # of the prediction that it came from; None where it has none
    parent: str = ""  # id of the region that it lies below in the editor's list; empty where none
    labels: tuple[str, ...] = ()  # as the editor writes them, each once: aliases where it has some


#: Stands for the area of what Label Studio has not.
NO_AREA: Final = Area("", "", "", None, (0, 0), {})


def drawn_areas(regions: Iterable[Any]) -> Iterator[Area]:
    """Iterate over the areas among some regions; broken regions are left out."""
    return (area for raw in regions if (area := _read_area(raw)) is not None)


def count_regions(regions: Iterable[Any]) -> dict[str, dict[str, int]]:
    """Count the regions of an annotation by their place and label, see `RegionCounts`.

    Broken ones are left out.

    >>> sky = {"from_name": "b", "to_name": "img", "type": "brushlabels"}
    >>> count_regions([{**sky, "value": {"brushlabels": ["sky"]}}, sky])
    {'b|img|brushlabels': {'sky': 1, '': 1}}
    """
    found: dict[str, dict[str, int]] = {}
    for raw in regions:
        names = [read_text(raw, key) for key in ("from_name", "to_name", "type")]
        if not all(names):
            continue
        value = raw.get("value")
        labels = read_texts(value.get(names[-1])) if isinstance(value, dict) else []
        counts = found.setdefault("|".join(names), {})
        for label in labels or [""]:
            counts[label] = counts.get(label, 0) + 1
    return found


def is_shape(area: Area) -> bool:
    """Return whether an area covers pixels, as a point or a text does not."""
    return area.kind in _KINDS_BY_KEY.values()


def read_areas(
    regions: Sequence[Any], controls: Container[str], prompt_tools: Container[str] = ()
) -> list[Area]:
    """Read the areas that some controls have drawn, without those of prompt tools.

    Raises:
        BadRequest: one of them is broken, so that the others alone would be incomplete.

    >>> box = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["car"]}
    >>> read_areas([{"from_name": "box", "type": "rectanglelabels", "value": box}], {"box"})
    Traceback (most recent call last):
    ...
    backend.errors.BadRequest: A rectangle region of car (made with "box") is broken: Label Studio \
has not kept its kind, its shape or the size of its picture. Delete it and draw it again.
    """
    asked = {_id_of(raw) for raw in regions if _name_of(raw) in prompt_tools}
    drawn = [raw for raw in regions if _name_of(raw) and _name_of(raw) in controls]
    found: list[Area] = []
    for raw in drawn:
        if _id_of(raw) in asked:
            continue
        area = _read_area(raw)
        if area is None:
            raise BadRequest(_why_broken(raw))
        if area.kind != "labels":  # a point, or another shape without an area, beside <Labels>
            found.append(area)
    return found


def _why_broken(raw: Mapping[str, Any]) -> str:
    """Say which region Label Studio has not kept."""
    kind, value = read_text(raw, "type"), raw.get("value")
    labels = read_texts(value.get(kind)) if isinstance(value, dict) else []
    return _say_broken(kind, labels, _NOT_KEPT, _name_of(raw))


def _name_of(raw: Any) -> str:
    return read_text(raw, "from_name") if isinstance(raw, dict) else ""


def _id_of(raw: Any) -> str:
    return read_text(raw, "id") if isinstance(raw, dict) else ""


def image_size(areas: Iterable[Area]) -> tuple[int, int]:
    """Return the height and width in px of the image that some areas, at least one, are on.

    Raises:
        BadRequest: they are of images of different sizes, or it is too large to be drawn on.

    >>> image_size([Area("brushlabels", "mask", "img", None, (4, side), {}) for side in (5, 6)])
    Traceback (most recent call last):
    ...
    backend.errors.BadRequest: Its regions were drawn on pictures of different sizes: 5×4 and \
6×4 px.
    """
    sizes = sorted({area.size_hw for area in areas})
    told = " and ".join(f"{width}×{height}" for height, width in sizes)
    if len(sizes) > 1:
        raise BadRequest(f"Its regions were drawn on pictures of different sizes: {told} px.")
    height, width = sizes[0]
    if height * width > LARGEST_PX:
        raise BadRequest(
            f"Its picture is too large: {told} px are {width * height // 10**6} megapixels, and "
            f"regions on at most {LARGEST_PX // 10**6} are drawn. Annotate a smaller one."
        )
    return sizes[0]


def area_mask(area: Area, step: int = 1) -> BoolMask:
    """Return the mask (H, W) bool of ``area.size_hw`` of the pixels that an area covers.

    With a step of n, return every nth row and column of it, from the first.

    Raises:
        BadRequest: see `draw_area`.

    >>> box = {"x": 50, "y": 0, "width": 50, "height": 100}
    >>> area_mask(Area("rectanglelabels", "box", "img", None, (1, 4), box))
    array([[False, False,  True,  True]])
    """
    if area.kind == "brushlabels":
        with _told(area):
            return decode_rle(area.value["rle"], *area.size_hw, step) >= _MIN_ALPHA
    mask = np.zeros(area.size_hw, dtype=np.bool_)
    draw_area(area, mask)
    return np.ascontiguousarray(mask[::step, ::step])


def draw_area(area: Area, mask: BoolMask) -> None:
    """Add the pixels that an area covers to a mask (H, W) bool of ``area.size_hw``.

    An outline, a rectangle and an ellipse touch only the pixels of their bounding box.

    Raises:
        BadRequest: an area of an unknown kind, or with a broken geometry.
    """
    with _told(area):
        if area.kind == "brushlabels":
            mask |= decode_rle(area.value["rle"], *area.size_hw) >= _MIN_ALPHA
        elif area.kind == "bitmasklabels":
            mask |= _read_bitmask(area.value["imageDataURL"], area.size_hw)
        elif area.kind == RECTANGLE:
            _fill_rectangle(_read_rectangle(area), mask)
        elif area.kind == ELLIPSE:
            _fill_ellipse(_read_ellipse(area), mask)
        else:
            fill_outline(_outline_points(area), mask)


def area_box(area: Area) -> tuple[slice, slice]:
    """Return the rows and columns of the image that hold all pixels of an area.

    >>> box = {"x": 50, "y": 0, "width": 25, "height": 100}
    >>> area_box(Area("rectanglelabels", "box", "img", None, (10, 40), box))
    (slice(0, 10, None), slice(19, 31, None))
    """
    height, width = area.size_hw
    with _told(area):
        if area.kind in ("brushlabels", "bitmasklabels"):
            return slice(0, height), slice(0, width)
        points = _check_finite(_outline_points(area))
    # A pixel more on each side: the edge of an outline covers the pixels that it goes through.
    low = (np.floor(points.min(axis=0)) - 1).clip(0, (width, height)).astype(int).tolist()
    high = (np.ceil(points.max(axis=0)) + 1).clip(0, (width, height)).astype(int).tolist()
    return slice(low[1], high[1]), slice(low[0], high[0])


def rectangle_corners(rectangle: Rectangle, size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return x and y of its corners, (4, 2) float64, clockwise from the one that it turns about.

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
    return _check_finite(origin + np.array([along * 0, along, along + down, down]))


def rectangle_mask(rectangle: Rectangle, size_hw: tuple[int, int]) -> BoolMask:
    """Return the mask (H, W) bool of the pixels inside a rectangle; empty where a side is 0."""
    mask = np.zeros(size_hw, dtype=np.bool_)
    _fill_rectangle(rectangle, mask)
    return mask


def _read_area(raw: Any) -> Area | None:
    region = raw if isinstance(raw, dict) else {}
    kind, value = region.get("type"), region.get("value")
    if kind == "labels" and isinstance(value, dict):
        kind, value = _as_control(value)

    size_hw = region.get("original_height"), region.get("original_width")
    if not (
        isinstance(kind, str)
        and isinstance(value, dict)
        and all(type(side) is int and side > 0 for side in size_hw)
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
        parent=read_text(region, "parentID"),
        origin=read_text(region, "origin"),
        source=read_text(region, "source"),
        score=float(score) if isinstance(score := region.get("score"), int | float) else None,
        labels=tuple(dict.fromkeys(read_texts(value.get(kind)))),
    )


def _as_control(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the kind and the value that a region of a ``<Labels>`` has with labels of its own.

    >>> _as_control({"points": [[0, 0]], "labels": ["car"]})
    ('polygonlabels', {'points': [[0, 0]], 'polygonlabels': ['car']})
    """
    kind = next((kind for key, kind in _KINDS_BY_KEY.items() if key in value), "labels")
    shape = {key: each for key, each in value.items() if key != "labels"}
    return kind, shape | {kind: value.get("labels")}


def _outline_points(area: Area) -> npt.NDArray[np.float64]:
    """Return x and y in px, (P, 2) float64, of the corners of a polygon or of what lies in them.

    These are the corners of a rectangle, and of the rectangle around an ellipse.
    """
    height, width = area.size_hw
    if area.kind == RECTANGLE:
        return rectangle_corners(_read_rectangle(area), area.size_hw)
    if area.kind == ELLIPSE:
        return _ellipse_corners(_read_ellipse(area))
    if area.kind != "polygonlabels":
        raise ValueError("It is of a kind that has no area.")
    xs, ys = np.array(area.value["points"], dtype=np.float64).T
    with np.errstate(over="ignore"):  # `fill_outline` refuses infinity
        return np.stack([xs * width, ys * height], axis=1) / 100


def _read_rectangle(area: Area) -> Rectangle:
    return Rectangle(*_numbers(area, "x", "y", "width", "height", "rotation"))


def _numbers(area: Area, *keys: str) -> list[float]:
    """Read numbers of an area's geometry; without a rotation, it is 0."""
    value = {"rotation": 0, **area.value}
    return [float(value[key]) for key in keys]


def _fill_rectangle(rectangle: Rectangle, mask: BoolMask) -> None:
    height, width = mask.shape
    corners = rectangle_corners(rectangle, (height, width))
    if rectangle.width_percent == 0 or rectangle.height_percent == 0:
        return  # OpenCV would fill the pixels along the edge
    if rectangle.rotation_degrees % 360:
        fill_outline(corners, mask)
        return
    (left, top), (right, bottom) = np.rint(corners[[0, 2]].clip(0, (width, height))).astype(int)
    mask[top:bottom, left:right] = True


class Ellipse(NamedTuple):
    """An ellipse in px."""

    x_px: float  # of its centre
    y_px: float
    along_px: float  # radii
    down_px: float
    rotation: float  # clockwise, in radians


def _read_ellipse(area: Area) -> Ellipse:
    height, width = area.size_hw
    x, y, along, down, degrees = _numbers(area, "x", "y", "radiusX", "radiusY", "rotation")
    ellipse = Ellipse(
        x_px=x * width / 100,
        y_px=y * height / 100,
        along_px=along * width / 100,
        down_px=down * height / 100,
        rotation=math.radians(degrees),
    )
    _check_finite(np.array(ellipse))
    return ellipse


def _ellipse_corners(ellipse: Ellipse) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of the upright rectangle around an ellipse."""
    cos, sin = math.cos(ellipse.rotation), math.sin(ellipse.rotation)
    half_width = math.hypot(ellipse.along_px * cos, ellipse.down_px * sin)
    half_height = math.hypot(ellipse.along_px * sin, ellipse.down_px * cos)
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return np.array([ellipse.x_px, ellipse.y_px]) + signs * (half_width, half_height)


def _fill_ellipse(ellipse: Ellipse, mask: BoolMask) -> None:
    """Add the pixels with their centres inside an ellipse to a mask (H, W) bool.

    In the row at dy from the centre these are the dx between both solutions of the equation
    ``A dx² + 2 B dx dy + C dy² = 1``.
    """
    height, width = mask.shape
    along = min(abs(ellipse.along_px), _LONGEST_RADIUS_PX)
    down = min(abs(ellipse.down_px), _LONGEST_RADIUS_PX)
    if not (along and down):
        return
    cos, sin = math.cos(ellipse.rotation), math.sin(ellipse.rotation)
    a = (cos / along) ** 2 + (sin / down) ** 2
    b = cos * sin * (along**-2 - down**-2)

    half_height = math.hypot(along * sin, down * cos)
    top, bottom = (
        math.ceil(min(max(ellipse.y_px + side * half_height, 0), height) - 0.5) for side in (-1, 1)
    )
    dy = np.arange(top, bottom) + 0.5 - ellipse.y_px
    # A C - B² is 1 / (along · down)²: what is under the root, without the difference of large ones.
    half_length = np.sqrt(np.maximum(0, a - (dy / (along * down)) ** 2)) / a
    middle = ellipse.x_px - b * dy / a
    first, last = (
        np.ceil((middle + side * half_length).clip(0, width) - 0.5).astype(np.intp)
        for side in (-1, 1)
    )
    if not dy.size:
        return
    left, right = int(first.min()), int(last.max())
    columns = np.arange(left, right)
    mask[top:bottom, left:right] |= (columns >= first[:, None]) & (columns < last[:, None])


@contextmanager
def _told(area: Area) -> Iterator[None]:
    """Tell of an area that cannot be read which it is, why, and what to do."""
    try:
        yield
    except _BROKEN:
        height, width = area.size_hw
        reason = (
            "it is cut off, has no numbers where they should be, or is of a picture of another "
            f"size than {width}×{height} px"
        )
        raise BadRequest(_say_broken(area.kind, area.labels, reason)) from None


def _say_broken(kind: str, labels: Sequence[str], reason: str, control: str = "") -> str:
    noun = f"{kind.removesuffix('labels')[:_TOLD_LETTERS]} region".lstrip()
    label = ", ".join(labels)[:_TOLD_LETTERS]
    of_label = f" of {label}" if label else ""
    made_with = f' (made with "{control[:_TOLD_LETTERS]}")' if control else ""
    article = "An" if noun.startswith("e") else "A"  # an ellipse
    return (
        f"{article} {noun}{of_label}{made_with} is broken: {reason}. Delete it and draw it again."
    )


def _read_bitmask(url: str, size_hw: tuple[int, int]) -> BoolMask:
    file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
    with open_image(file, formats=("PNG",)) as image:
        if image.size != size_hw[::-1]:
            raise ValueError(f"A bitmask is {image.size}, but its picture {size_hw[::-1]}.")
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        return np.asarray(rgba.getchannel("A")) >= _MIN_ALPHA


#: The most pixels of an image whose areas are drawn. Its size is what the annotation says.
LARGEST_PX: Final = 1 << 28

# ---- outlines ------------------------------------------------------------------------------------

#: Longer radii are as good as this one: their edges are straight lines in any picture.
_LONGEST_RADIUS_PX: Final = 1e9

#: Rows of pixels that the edges of an outline may cross, all edges together. Each takes about a
#: tenth of a microsecond, and 60 bytes of memory while the outline is filled.
_MAX_CROSSINGS: Final = 5_000_000


def fill_outline(points_px: npt.NDArray[np.float64], mask: BoolMask) -> None:
    """Add the pixels with their centres inside an outline (P, 2), x and y, to a mask (H, W) bool.

    Only its bounding box is touched. Where the outline crosses itself, the even-odd rule holds.
    OpenCV would also fill the pixels on the outline, which makes each region half a pixel wider on
    all sides.
    """
    far = 2 * max(mask.shape)  # products of larger numbers overflow, and no pixels lie beyond
    starts = _check_finite(points_px).clip(-far, far)
    ends = np.roll(starts, -1, axis=0)
    one, other = (
        np.ceil(each[:, 1].clip(0, mask.shape[0]) - 0.5).astype(np.intp) for each in (starts, ends)
    )

    # The first row whose centre each edge passes, and how many: its lower end is the next edge's.
    first, counts = np.minimum(one, other), abs(one - other)
    crossings = int(counts.sum())

    if not crossings:
        return
    if crossings > _MAX_CROSSINGS:
        raise ValueError(
            f"A polygon is too jagged: its edges cross {crossings} rows of pixels, more than "
            f"{_MAX_CROSSINGS}. Draw it with fewer points, or as a brush region."
        )

    edges = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(crossings) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    (x0, y0), (x1, y1) = starts[edges].T, ends[edges].T
    xs = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    columns = np.ceil(xs.clip(0, mask.shape[1]) - 0.5).astype(np.intp)

    top, left = rows.min(), columns.min()
    bottom, right = rows.max() + 1, columns.max()
    inside = np.zeros((bottom - top, right - left + 1), np.uint8)
    np.bitwise_xor.at(inside, (rows - top, columns - left), 1)  # where it begins, and ends
    np.bitwise_xor.accumulate(inside, axis=1, out=inside)
    mask[top:bottom, left:right] |= inside[:, :-1].view(np.bool_)


def _check_finite(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not np.isfinite(points).all():
        raise ValueError("A region lies at a place that is no finite number.")
    return points
