"""Label maps of a drawn data set, and the pictures and the project that they are for."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CONFIG = """<View><Image name="img" value="$image"/>
  <BrushLabels name="mask" toName="img"><Label value="Sky"/>
    <Label value="Traffic Light" alias="tl"/></BrushLabels>
  <PolygonLabels name="outline" toName="img"><Label value="Sky"/><Label value="Car"/>
  </PolygonLabels></View>"""

#: 0: Sky; 1: Traffic Light; 255: nothing.
VALUES = np.full((40, 60), 255, np.uint8)
VALUES[:10] = 0
VALUES[20:30, 5:15] = VALUES[20:30, 30:40] = 1


def picture(size_hw: tuple[int, int] = (40, 60), orientation: int = 1) -> bytes:
    """A JPEG whose stored pixels have a size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", size_hw[::-1]).save(file, "JPEG", exif=exif)
    return file.getvalue()


def put(folder: Path, name: str, values: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(values).save(folder / f"{name}.png")
