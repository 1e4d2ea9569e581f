"""Palettes, label map PNGs, and overlays with a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from clearclip_core.images.preprocessing import RGBArray

#: Value of "no label" in a label map PNG, as in PASCAL VOC and MMSegmentation.
NONE_VALUE = 255

_GOLDEN_ANGLE = 0.381966


def palette(count: int) -> RGBArray:
    """Make (count, 3) uint8 colours that are far apart for neighbouring indices.

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


def label_map_image(label_map: npt.NDArray[Any], count: int) -> Image.Image:
    """Make a palette image of a label map: pixel values are label indices, 255 is no label.

    Args:
        label_map: (H, W) int, -1 for no label.
        count: number of labels, at most 255.

    Raises:
        ValueError: more labels than a palette image can hold.
    """
    if count > NONE_VALUE:
        raise ValueError(f"A palette PNG holds at most {NONE_VALUE} labels, but got {count}.")
    values = np.where(label_map < 0, NONE_VALUE, label_map).astype(np.uint8)
    image = Image.fromarray(values, "P")
    table = np.zeros((256, 3), np.uint8)
    table[:count] = palette(count)
    image.putpalette(table.tobytes())
    return image


def overlay(
    rgb: RGBArray, label_map: npt.NDArray[Any], labels: Sequence[str], opacity: float = 0.55
) -> Image.Image:
    """Lay the labels' colours over an image, with a legend of the labels in it.

    Args:
        rgb: (H, W, 3) uint8.
        label_map: (H, W) int, index into `labels`, -1 for no label.
        labels: names of the labels.
        opacity: of the colours, 0 to 1.
    """
    colours = palette(len(labels))
    shares = label_shares(label_map, len(labels))
    shown = [i for i in np.argsort(-shares).tolist() if shares[i] > 0]
    entries = [(f"{labels[i]}  {shares[i]:.0%}", tuple(colours[i].tolist())) for i in shown]
    return _with_legend(Image.fromarray(blend(rgb, label_map, colours, opacity)), entries)


def blend(
    rgb: RGBArray, label_map: npt.NDArray[Any], colours: RGBArray, opacity: float = 0.55
) -> RGBArray:
    """Lay the labels' colours over an image: (H, W, 3) uint8.

    Args:
        rgb: (H, W, 3) uint8.
        label_map: (H, W) int, index into `colours`, -1 for no label.
        colours: (labels, 3) uint8.
        opacity: of the colours, 0 to 1.
    """
    blended = rgb.copy()
    inside = label_map >= 0
    mixed = opacity * colours[label_map[inside]] + (1 - opacity) * rgb[inside]
    blended[inside] = np.rint(mixed).astype(np.uint8)
    return blended


def label_shares(label_map: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    """Compute (count,) the share of a label map's pixels that each label has.

    >>> label_shares(np.array([[0, 0, 2, -1]]), 3).tolist()
    [0.5, 0.0, 0.25]
    """
    inside = label_map[label_map >= 0]
    return np.asarray(np.bincount(inside.ravel(), minlength=count) / label_map.size)


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
