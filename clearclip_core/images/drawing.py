"""Draw label maps for people: colours of labels, laid over an image, with a legend."""

import colorsys
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from clearclip_core.images.label_maps import label_shares
from clearclip_core.images.preprocessing import RGBArray

#: Turn of the hue from one label to the next, as a share of the circle.
_GOLDEN_ANGLE = 0.381966


def palette(count: int) -> RGBArray:
    """Make colours that are far apart for neighbouring indices.

    Args:
        count: number of colours.

    Returns:
        (count, 3) uint8 RGB.

    >>> len({tuple(colour) for colour in palette(150).tolist()})
    150
    """
    colours = [
        colorsys.hsv_to_rgb(
            (0.58 + i * _GOLDEN_ANGLE) % 1, (0.85, 0.55, 0.7)[i % 3], (0.95, 0.8, 0.6)[i // 3 % 3]
        )
        for i in range(count)
    ]
    return np.asarray(np.rint(255 * np.array(colours).reshape(-1, 3)), dtype=np.uint8)


#: How strongly a label's colour covers the picture below it: enough to tell the label, little
#: enough to see what the mask covers. The contour says where it ends.
FILL_OPACITY: Final = 0.35

#: A contour's two lines as mixtures of the label's colour: the darker one with black, the lighter
#: one with white. One of them stands out from any picture, also blue from a blue sky.
_DARK_SHARE: Final = 0.65

_LIGHT_SHARE: Final = 0.65


#: Short side in pixels for which a contour gains a pixel on each side.
_CONTOUR_EVERY_PX: Final = 1000


def overlay(
    rgb: RGBArray,
    label_map: npt.NDArray[Any],
    labels: Sequence[str],
    opacity: float = FILL_OPACITY,
) -> Image.Image:
    """Lay the labels' colours over an image, with a legend of the labels in it.

    Args:
        rgb: (H, W, 3) uint8.
        label_map: (H, W) int, indices into `labels`; -1 for no label.
        labels: names of the labels.
        opacity: of the fill, 0 (contours alone) to 1.

    Returns:
        The image, H px high, with the legend to the right of it.
    """
    colours = palette(len(labels))
    shares = label_shares(label_map, len(labels))
    shown = [i for i in np.argsort(-shares).tolist() if shares[i] > 0]
    entries = [(f"{labels[i]}  {shares[i]:.0%}", tuple(colours[i].tolist())) for i in shown]
    return _with_legend(Image.fromarray(blend(rgb, label_map, colours, opacity)), entries)


def blend(
    rgb: RGBArray, label_map: npt.NDArray[Any], colours: RGBArray, opacity: float = FILL_OPACITY
) -> RGBArray:
    """Lay labels' colours over an image, and draw a contour where one label meets another.

    A contour has a light and a dark line, each a pixel wide for a short side below 1,000 pixels,
    two for one below 2,000, and so on.

    Args:
        rgb: (H, W, 3) uint8.
        label_map: (H, W) int, indices into `colours`; -1 for no label.
        colours: (labels, 3) uint8.
        opacity: of the fill, 0 (contours alone) to 1.

    Returns:
        (H, W, 3) uint8.
    """
    last = np.zeros((1, 3))  # of -1, never seen
    table = np.vstack((colours, last)).astype(np.uint8)
    painted = table.take(label_map, axis=0, mode="wrap")
    mixed = cv2.addWeighted(painted, opacity, rgb, 1 - opacity, 0)
    image = cv2.copyTo(rgb, (label_map < 0).astype(np.uint8), mixed)

    # Of two neighbours the lower index has the dark line and the higher one, which is a label, the
    # light one, both in the colour of the higher.
    known = label_map.astype(np.int16)
    side = 2 * (1 + min(known.shape) // _CONTOUR_EVERY_PX) + 1
    around = np.ones((side, side), np.uint8)
    highest, lowest = cv2.dilate(known, around), cv2.erode(known, around)
    is_dark = known < highest
    is_light = (known > lowest) & ~is_dark

    dark = np.rint(table * (1 - _DARK_SHARE)).astype(np.uint8)
    light = np.rint(255 * _LIGHT_SHARE + table * (1 - _LIGHT_SHARE)).astype(np.uint8)
    image[is_dark] = dark[highest[is_dark]]
    image[is_light] = light[known[is_light]]
    return np.asarray(image, np.uint8)


def thumbnail(
    rgb: RGBArray,
    label_map: npt.NDArray[np.signedinteger[Any]],
    colours: RGBArray,
    side_px: int,
    opacity: float = FILL_OPACITY,
) -> RGBArray:
    """Shrink an image, and lay the labels' colours over it as `blend` does.

    Args:
        rgb: (H, W, 3) uint8.
        label_map: int, indices into `colours`; -1 for no label. It is (H, W), or of the size that
            the image had before it was reduced.
        colours: (labels, 3) uint8.
        side_px: limit of the long side; a smaller image keeps its size.
        opacity: of the fill, 0 (contours alone) to 1.

    Returns:
        (h, w, 3) uint8.
    """
    factor = min(1.0, side_px / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels = cv2.resize(label_map.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
    return blend(small, labels, colours, opacity)


def _with_legend(image: Image.Image, entries: list[tuple[str, tuple[int, ...]]]) -> Image.Image:
    size = max(12, min(image.size) // 28)
    font = ImageFont.load_default(size)
    line = round(size * 1.6)
    rows = max(1, (image.height - size) // line)
    column = size * 3 + max((round(font.getlength(text)) for text, _ in entries), default=0)
    columns = -(-len(entries) // rows)
    canvas = Image.new("RGB", (image.width + columns * column, image.height), "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for index, (text, colour) in enumerate(entries):
        x = image.width + index // rows * column + size // 2
        y = size // 2 + index % rows * line
        draw.rectangle((x, y, x + size, y + size), fill=colour)
        draw.text((x + size * 1.5, y + size / 2), text, fill="black", font=font, anchor="lm")
    return canvas
