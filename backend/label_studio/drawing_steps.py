"""Count the work of drawing areas, and bound it, before anything of them is drawn.

Work is counted in steps of about a nanosecond, as of a core of a server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from backend.errors import BadRequest
from backend.label_studio.brush_rle import count_tokens
from backend.label_studio.region_reader import Area, area_box, outline_points
from backend.label_studio.shapes import check_crossings

#: The most pixels of an image whose areas are drawn. Its size is what the annotation says.
LARGEST_PX: Final = 1 << 28

#: Steps for one annotation. An image of 100 megapixels with 30 labels of three painted regions each
#: takes 110 billion.
MAX_STEPS: Final = 150_000_000_000
#: Steps for one annotation in an export, which runs in the background and draws one area at a time.
#: On an image of 100 megapixels, 7000 small areas take as many.
MAX_EXPORT_STEPS: Final = 1_500_000_000_000

#: Steps of an area beside its pixels.
_AREA: Final = 20_000
#: Steps of a pixel of a PNG.
_BITMAP_PX: Final = 20
#: Steps of a token of a brush's run-length encoding.
_TOKEN: Final = 500
#: Steps of a pixel in the bounding box of an outline.
_OUTLINE_PX: Final = 6
#: Steps of a pixel in the bounding box of an ellipse.
_ELLIPSE_PX: Final = 12
#: Steps of a pixel of an image for an area whose mask is as large as the image.
_MASK_PX: Final = 2
#: Steps of a row of pixels that an edge of an outline crosses.
_CROSSING: Final = 100


def drawing_steps(area: Area) -> int:
    """Return the most steps that it takes to draw an area once.

    Raises:
        ValueError: it is an outline, a rectangle or an ellipse with a broken geometry, or an
            outline that takes too long to fill.

    >>> box = {"x": 0, "y": 0, "width": 100, "height": 100}
    >>> drawing_steps(Area("rectanglelabels", "box", "img", None, (1000, 2000), box))
    2020000
    """
    rows, columns = area_box(area)
    pixels: int = (rows.stop - rows.start) * (columns.stop - columns.start)
    if area.kind == "brushlabels":
        return _AREA + pixels + _TOKEN * count_tokens(area.value.get("rle"))
    if area.kind == "bitmasklabels":
        return _AREA + _BITMAP_PX * pixels
    if area.kind == "ellipselabels":
        return _AREA + _ELLIPSE_PX * pixels
    if area.kind == "polygonlabels":
        crossings = check_crossings(outline_points(area), area.size_hw)
        return _AREA + _OUTLINE_PX * pixels + _CROSSING * crossings
    return _AREA + pixels


def check_image_size(size_hw: tuple[int, int]) -> None:
    """Refuse an image that is too large for its areas to be drawn.

    Args:
        size_hw: its height and width in px.

    Raises:
        BadRequest: it is.
    """
    height, width = size_hw
    if height * width > LARGEST_PX:
        raise BadRequest(
            f"Its picture is too large: {width}×{height} px are {width * height // 10**6} "
            f"megapixels, and regions on at most {LARGEST_PX // 10**6} are drawn. Annotate a "
            "smaller one."
        )


def check_steps(steps: int) -> None:
    """Refuse an annotation that takes too many steps.

    Raises:
        BadRequest: it does.
    """
    if steps > MAX_STEPS:
        raise BadRequest(
            "It has too many regions or labels for a picture of this size: they would take "
            f"{steps} steps to draw, more than {MAX_STEPS}. Join regions of one label, or annotate "
            "a smaller picture."
        )


def check_masks(size_hw: tuple[int, int], areas: Iterable[Area]) -> None:
    """Refuse areas that take too many steps to be drawn one by one, each as large as the image.

    Args:
        size_hw: height and width of the image in px.
        areas: all areas of an annotation on it.

    Raises:
        BadRequest: they would.
        ValueError: see `drawing_steps`.
    """
    check_steps(_mask_steps(size_hw, areas))


def check_exported_masks(size_hw: tuple[int, int], areas: Iterable[Area]) -> None:
    """Refuse areas that take too many steps for an export, see `check_masks`.

    Raises:
        BadRequest: they do.
        ValueError: see `drawing_steps`.
    """
    steps = _mask_steps(size_hw, areas)
    if steps > MAX_EXPORT_STEPS:
        raise BadRequest(
            "It has too many regions for a picture of this size: they would take "
            f"{steps} steps to draw, more than {MAX_EXPORT_STEPS}. Annotate smaller pictures, such "
            "as tiles of this one."
        )


def _mask_steps(size_hw: tuple[int, int], areas: Iterable[Area]) -> int:
    whole = _MASK_PX * size_hw[0] * size_hw[1]
    return sum(whole + drawing_steps(area) for area in areas)
