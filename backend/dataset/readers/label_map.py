"""Read label maps from PNG files: grey or palette pictures whose pixels are class values."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.dataset.labelled_image import LabelledRegion
from backend.dataset.mask_source import Limits, check_pixels, check_size
from backend.dataset.readers.label_values import LabelValues
from backend.errors import DatasetError
from clearclip_core.images.opening import open_image

_BROKEN: Final = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)

#: Offset of the bit depth in a PNG file: signature (8), length and type of IHDR (8), size (8).
_BIT_DEPTH_AT: Final = 24


@dataclass(frozen=True)
class LabelMap:
    """A label map.

    Attributes:
        values: (H, W) uint8 or uint16.
        palette: (N, 3) uint8, the colours of a palette picture; None for a grey one.
        where: the file, for errors.
    """

    values: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None
    where: str

    def regions(self, values: LabelValues, picture_hw: tuple[int, int]) -> list[LabelledRegion]:
        """Return a region of each class that the map has, in the order of the values.

        Raises:
            DatasetError: the map has another size than the picture, a value without a class, or a
                palette that contradicts the colours of the classes.
        """
        check_size(self.where, self.values.shape, picture_hw)
        found = np.flatnonzero(np.bincount(self.values.ravel())).tolist()
        unknown = [value for value in found if value not in values.names]
        if unknown:
            raise DatasetError(
                f"{self.where} has the value {unknown[0]}, which {values.file or 'no file'} does "
                "not name."
            )
        regions = []
        for value in found:
            name = values.names[value]
            if name is not None:
                self._check_colour(value, name, values)
                regions.append(LabelledRegion(name, lambda value=value: self.values == value))  # type: ignore[misc]
        return regions

    def _check_colour(self, value: int, name: str, values: LabelValues) -> None:
        """Refuse a palette with other colours: image editors renumber palettes as they save."""
        expected = values.colours.get(value)
        if expected is None or self.palette is None:
            return
        found = tuple(self.palette[value].tolist()) if value < len(self.palette) else None
        if found != expected:
            raise DatasetError(
                f'{self.where} draws the value {value} ("{name}") in {found or "no colour"}, but '
                f"{values.file} in {expected}: a program that has saved it may have renumbered "
                'the palette. Take "colour" out of the classes if the values are right.'
            )


def read_label_map(content: bytes, where: str, limits: Limits) -> LabelMap:
    """Read a label map from the bytes of a PNG file.

    Grey levels of 1, 2 and 4 bits are values from 0 to 1, 3 and 15, as written, which Pillow would
    stretch to 0 to 255.

    Raises:
        DatasetError: it is no PNG, truncated, over the limit, or a picture in colour.
    """
    try:
        with open_image(io.BytesIO(content), formats=("PNG",)) as picture:
            check_pixels(where, picture.size[::-1], limits)
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise DatasetError(
                    f"{where} is a picture in colour or with transparency (mode {picture.mode}), "
                    "but expected a grey or palette picture whose pixels are the values of classes."
                )
            picture.load()  # which fails where the file is truncated
            values = np.asarray(picture)
            colours = np.array(picture.getpalette() or (), np.uint8).reshape(-1, 3)
            palette = colours if picture.mode == "P" else None
    except Image.DecompressionBombError:
        raise DatasetError(f"{where} is over the limit of {limits.max_megapixels:g} MP.") from None
    except _BROKEN:
        raise DatasetError(f"{where} is no PNG picture, or is damaged or truncated.") from None
    if values.dtype == np.bool_:
        return LabelMap(values.astype(np.uint8), None, where)
    bits = content[_BIT_DEPTH_AT]
    if palette is None and bits < 8:
        values = values // np.uint8(255 // ((1 << bits) - 1))
    if values.dtype != np.uint8:
        values = values.astype(np.uint16)  # PNG has no more bits than these
    return LabelMap(values, palette, where)
