"""Fill ellipses, in memory that does not grow with the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.label_studio.json_fields import to_float
from backend.label_studio.outlines import check_finite
from clearclip_core import BoolMask

#: Pixels that are looked at at once; each takes about forty bytes of memory meanwhile.
_BAND_PX: Final = 1 << 20


@dataclass(frozen=True)
class Ellipse:
    """An ellipse on an image.

    Attributes:
        x: of its centre, in px.
        y: of its centre, in px.
        a: half its first axis, in px.
        b: half its second axis, in px.
        angle: by which the first axis is turned clockwise from the rows, in radians.
        size_hw: height and width of the image, in px.
    """

    x: float
    y: float
    a: float
    b: float
    angle: float
    size_hw: tuple[int, int]

    @classmethod
    def read(cls, value: Mapping[str, Any], size_hw: tuple[int, int]) -> Ellipse:
        """Read the value of a region, whose numbers are percents and degrees.

        Raises:
            KeyError: a number is missing.
            TypeError: one is no number.
            ValueError: one is not finite in px.
        """
        height, width = size_hw
        x, y, radius_x, radius_y = (
            to_float(value[key]) for key in ("x", "y", "radiusX", "radiusY")
        )
        degrees = to_float(value.get("rotation", 0))
        in_px = [x * width, y * height, abs(radius_x) * width, abs(radius_y) * height]
        x, y, a, b = check_finite(np.array(in_px) / 100).tolist()
        (degrees,) = check_finite(np.array([degrees])).tolist()
        return cls(x, y, a, b, math.radians(degrees), size_hw)

    @property
    def box(self) -> tuple[slice, slice]:
        """The rows and columns of the image outside of which it covers no pixel.

        >>> Ellipse(5, 5, 2, 1, 0, (10, 20)).box
        (slice(3, 7, None), slice(2, 8, None))
        """
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        reach = math.hypot(self.a * sin, self.b * cos), math.hypot(self.a * cos, self.b * sin)
        rows, columns = (
            # A pixel more on each side, for what is rounded.
            slice(*(int(min(max(at, 0), side)) for at in (middle - far - 1, middle + far + 1)))
            for middle, far, side in zip((self.y, self.x), reach, self.size_hw, strict=True)
        )
        return rows, columns

    def fill(self, mask: BoolMask) -> None:
        """Add the pixels whose centres are inside to a mask (H, W) bool of the image."""
        if self.a == 0 or self.b == 0:
            return
        rows, columns = self.box
        height = max(1, _BAND_PX // max(1, columns.stop - columns.start))
        right = np.arange(columns.start, columns.stop) + 0.5 - self.x  # (W,)
        for top in range(rows.start, rows.stop, height):
            band = slice(top, min(top + height, rows.stop))
            down = (np.arange(band.start, band.stop) + 0.5 - self.y)[:, None]  # (H, 1)
            mask[band, columns] |= self._is_inside(right, down)

    def _is_inside(
        self, right: npt.NDArray[np.float64], down: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """Tell of pixels, by their distances (W,) and (H, 1) to the centre, whether they are in."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        with np.errstate(over="ignore"):  # far outside of a tiny one
            along, across = (cos * right + sin * down) / self.a, (cos * down - sin * right) / self.b
            inside: npt.NDArray[np.bool_] = np.square(along) + np.square(across) <= 1
        return inside
