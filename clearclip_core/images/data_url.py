"""Encode an image as a data URL, for a page that loads nothing else."""

from __future__ import annotations

import base64
import io
from typing import Final

from PIL import Image

from clearclip_core.images.preprocessing import RGBArray

_JPEG_QUALITY: Final = 80


def to_data_url(rgb: RGBArray) -> str:
    """Encode an (H, W, 3) uint8 image as the data URL of a JPEG.

    >>> import numpy as np
    >>> to_data_url(np.zeros((2, 2, 3), np.uint8))[:27]
    'data:image/jpeg;base64,/9j/'
    """
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
