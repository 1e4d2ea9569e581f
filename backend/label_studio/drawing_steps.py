"""Count the work of drawing areas, before anything of them is drawn.

Work is counted in steps of about a nanosecond, as of a core of a server.
"""

from __future__ import annotations

from typing import Final

from backend.label_studio.brush_rle import count_tokens
from backend.label_studio.outlines import check_crossings
from backend.label_studio.region_reader import Area, area_box, outline_points

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
