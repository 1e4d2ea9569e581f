"""The canvas of a scene, and the brush that draws things on it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clearclip_core.demo.textures import (
    LABEL_OF_MATERIAL,
    MATERIAL_INDEX,
    MATERIALS,
    SHADES,
    TILE,
    Points,
    Spot,
    texture_bank,
)

#: Base colours of each material; materials share colours, so that colour names no label.
_COLOURS: Final[dict[str, str]] = {
    "sky": "9fd3f2 6fb4e8 f7c9a0 f2a9b4 c9b8e8 b9c4cc 3d4a78 f6e3b4 8fd0c8",
    "cloud": "ffffff f4eee4 d9dee6 f6c8c0 b4bccb f4dca8 a8a0c4",
    "sun": "ffd84a ffb03a ff7a4a fff1c0 f25a5a ffffff f2a0c0",
    "ridge": "7a8aa8 8a7a9c 6a8f86 b08a70 a4aab4 5a6488 c49a9a 94a870",
    "grass": "7cb955 a3c64e 4f9a5e c9b44c 6aa88e 9a8ab8 d0a070 86a0a8",
    "leaves": "3f8a4c 6aa84a c98a34 d0553f 2f7a74 b4a040 8a6aa8 e0a0b4",
    "bark": "7a5638 5a4a44 a07c58 8a8078 4a3c50",
    "wall": "f2e2c4 e0a48c c9d4dc b85a48 f4f0ea a8c4a0 e4c060 8a9ab8",
    "roof": "a8483a 5a5a68 8a5a3c 3f6a7c c87a4a 6a7a4c",
    "pane": "cfe6f2 5a7890 f8e49a 3c4a5c",
    "asphalt": "8a8a90 6a6a74 a89c8c c4b094 54525e 9c8a9c b4b8b0",
    "marking": "f8f4e8 f4d45a ffffff",
    "bodywork": "d8443c 3c6ab8 f2c23a f4f2ee 4a9a6a 3a3c44 9ab4c4 e08a3c",
    "tyre": "2c2c34 3a3438 24303a",
    "waves": "5aa4cc 3c7ab0 5ab8b0 8a9cc4 c4a4b8 7c9a9c 4a5a8c a8c8b0",
    "hull": "b8543c f0ece4 3c5a8c 8a5c3c e0b048 4a8a80",
    "sail": "fbf7ec f2b8a0 e85a4a f4d878 a8c8e4 c4b4e0",
    "cloth": "d8504a 3c78b8 f0b83c 5aa070 8a5aa0 f0eee8 3a3f54 e08aa0 5ab0b8",
    "skin": "f4cfae d8a07c a8704c 7a4c34 f2dcc8",
    "fur": "b07a48 e0c49a 5a4438 f0e8dc 8a8a8c 3a3638 c89058",
    "nose": "241c1c 302428",
    "petal": "e8506a f4c43c f8f4ee a86ad0 f08a4a 5a7ae0 f4a4c8 d03a3a",
    "stem": "4f9a4a 3f7a54 86a83c 5a8a80",
    "picket": "f6f2e8 b48a5c 8a6444 a4a8a4 d8b48c 7aa0a8 c06a54",
    "stone": "8c8c92 a89a8a 6a6e7c b4867a c4bcae 7a8a7c 94789c",
    "sand": "ecd8a4 e0bc84 d8a87c f0e4cc c8b8a8 e4b4a0 b8b0c0 c4c890",
    "snow": "f6f8fc e4ecf8 f4e4ea d8dcec f4ecd8 c4d4e8 d4c8e0",
}

SceneColour = tuple[int, int, int]


def clip_colour(channels: Iterable[float]) -> SceneColour:
    red, green, blue = (max(0, min(255, round(value))) for value in channels)
    return red, green, blue


def shade(colour: SceneColour, factor: float) -> SceneColour:
    """Darken a colour by a factor below 1, or lighten it towards white by one above 1."""
    if factor <= 1:
        return clip_colour([value * factor for value in colour])
    return clip_colour([value + (255 - value) * (factor - 1) for value in colour])


_OVERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    """A drawn image with its ground truth."""

    image: NDArray[np.uint8]  # (H, W, 3) uint8, RGB
    label_map: NDArray[np.int64]  # (H, W) int64, index into `SCENE_LABELS`; every pixel has a label


class Canvas:
    """An RGB image and an image of materials, painted in the same strokes.

    Coordinates are *points*: the short side of the image has 448 points, whatever its size in px.

    Args:
        size_hw: size of the finished image in px.
    """

    def __init__(self, size_hw: tuple[int, int], rng: np.random.Generator) -> None:
        self.size_hw = size_hw
        self.rng = rng
        self.pixels_per_point = min(size_hw) / 448
        self.height, self.width = (side / self.pixels_per_point for side in size_hw)
        self._scale = _OVERSAMPLING * self.pixels_per_point
        size_wh = (size_hw[1] * _OVERSAMPLING, size_hw[0] * _OVERSAMPLING)
        self._colours = Image.new("RGB", size_wh)
        self._materials = Image.new("L", size_wh)
        self._draw_colour = ImageDraw.Draw(self._colours)
        self._draw_material = ImageDraw.Draw(self._materials)
        tint = rng.uniform(-1, 1, 3)
        self._gain = 1 + rng.uniform(0, 0.16) * tint + rng.uniform(-0.16, 0.06)

    def colour(self, material: str) -> SceneColour:
        """Return a random colour of a material, with jitter and the tint of the scene."""
        code = str(self.rng.choice(_COLOURS[material].split()))
        base = np.array([int(code[start : start + 2], 16) for start in (0, 2, 4)])
        if material not in ("skin", "fur") and self.rng.random() < 0.15:
            base = self.rng.permutation(base)
        return clip_colour((base + self.rng.normal(0, 11, 3)) * self._gain)

    def polygon(self, material: str | None, points: Points, colour: SceneColour) -> None:
        """Fill a polygon; without a material only the colour changes, as in a shadow."""
        self._draw("polygon", material, self._scaled(points), colour)

    def ellipse(self, material: str | None, centre: Spot, radii: Spot, colour: SceneColour) -> None:
        """Fill an axis-parallel ellipse."""
        (x, y), (across, down) = centre, radii
        corners = [(x - across, y - down), (x + across, y + down)]
        self._draw("ellipse", material, self._scaled(corners), colour)

    def limb(self, material: str, points: Points, width: float, colour: SceneColour) -> None:
        """Draw a thick line with round ends."""
        stroke = {"width": max(1, round(width * self._scale)), "joint": "curve"}
        self._draw("line", material, self._scaled(points), colour, **stroke)
        for end in (points[0], points[-1]):
            self.ellipse(material, end, (width / 2, width / 2), colour)

    def _scaled(self, points: Points) -> list[Spot]:
        return [(x * self._scale, y * self._scale) for x, y in points]

    def _draw(
        self, shape: str, material: str | None, at: list[Spot], colour: SceneColour, **stroke: Any
    ) -> None:
        """Draw a shape by the name of its method in Pillow, in both images."""
        getattr(self._draw_colour, shape)(at, fill=colour, **stroke)
        if material is not None:
            getattr(self._draw_material, shape)(at, fill=MATERIAL_INDEX[material], **stroke)

    def strip(self, bottom: float, material: str | None, colour: SceneColour) -> None:
        """Fill from the top of the image down to `bottom`, in points."""
        corners = [(0, 0), (self.width, 0), (self.width, bottom), (0, bottom)]
        self.polygon(material, corners, colour)

    def slope(
        self, material: str, top: NDArray[np.float64], colour: SceneColour, far: float
    ) -> None:
        """Fill the area below a curve.

        Args:
            top: y of the curve in points, at equal steps from the left to the right border.
            far: factor that shades the colour at the upper edge, see `shade`.
        """
        left, right = (0.0, self.height + 50), (self.width, self.height + 50)
        xs = np.linspace(0, self.width, len(top)).tolist()
        for band in range(5):
            lowered = top + (self.height + 40 - top) * ((band / 5) ** 1.5 if band else 0)
            outline = [*zip(xs, lowered.tolist(), strict=True), right, left]
            tone = shade(colour, far + (1 - far) * band / 4)
            self.polygon(None if band else material, outline, tone)

    def finish(self) -> Scene:
        """Return the scene: colours averaged down, textures added, labels of the materials."""
        colours = np.asarray(self._colours.reduce(_OVERSAMPLING)).astype(np.int16)
        materials = np.asarray(self._materials)[::_OVERSAMPLING, ::_OVERSAMPLING]
        image = np.clip(colours + self._grey_levels(materials)[:, :, None], 0, 255)
        return Scene(image.astype(np.uint8), LABEL_OF_MATERIAL[materials])

    def _grey_levels(self, materials: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Return the (H, W) int16 texture: tiles of each material, with a random offset."""
        count = len(MATERIALS)
        shade = self.rng.integers(SHADES, size=count)
        start = (shade * count + np.arange(count)) * (TILE * TILE)
        offsets = self.rng.integers(TILE, size=(2, count))
        y, x = (
            ((np.arange(side) / self.pixels_per_point).astype(np.int32)[:, None] + offset) % TILE
            for side, offset in zip(self.size_hw, offsets, strict=True)
        )
        row, column = np.indices(materials.shape, np.int32, sparse=True)
        index = (y * TILE + start)[row, materials] + x[column, materials]  # (H, W)
        grey_levels: NDArray[np.int16] = texture_bank().ravel()[index]
        return grey_levels


@dataclass(frozen=True)
class Brush:
    """Draws one thing in units of its height: it stands on (0, 0); x to the right, y up."""

    canvas: Canvas
    spot: Spot  # foot of the thing, in points
    size: float  # height of the thing in points
    ground: SceneColour
    facing: int = 1  # 1, or -1 to mirror the thing

    @property
    def rng(self) -> np.random.Generator:
        return self.canvas.rng

    def turned(self) -> "Brush":
        """Return this brush, facing left or right at random."""
        return replace(self, facing=int(self.rng.choice((-1, 1))))

    def colours(self, *materials: str) -> list[SceneColour]:
        return [self.canvas.colour(material) for material in materials]

    def polygon(self, material: str, points: Points, colour: SceneColour) -> None:
        self.canvas.polygon(material, self._placed(points), colour)

    def trapezoid(
        self, material: str, low: Spot, high: Spot, colour: SceneColour, x: float = 0.0
    ) -> None:
        """Fill an upright symmetric trapezoid; `low` and `high` are (half a width, a height)."""
        (half_low, bottom), (half_high, top) = low, high
        left, right = (x - half_low, bottom), (x + half_low, bottom)
        self.polygon(material, [left, (x - half_high, top), (x + half_high, top), right], colour)

    def box(self, material: str, foot: Spot, size_xy: Spot, colour: SceneColour) -> None:
        """Fill an upright box on `foot`; its size is (half a width, a height)."""
        (x, y), (half, high) = foot, size_xy
        self.trapezoid(material, (half, y), (half, y + high), colour, x)

    def ellipse(self, material: str, centre: Spot, radii: Spot, colour: SceneColour) -> None:
        scaled = (radii[0] * self.size, radii[1] * self.size)
        self.canvas.ellipse(material, self._placed([centre])[0], scaled, colour)

    def limb(self, material: str, points: Points, width: float, colour: SceneColour) -> None:
        self.canvas.limb(material, self._placed(points), width * self.size, colour)

    def shadow(self, half_width: float, x: float = 0.0) -> None:
        half = half_width * self.size
        spot = self._placed([(x, 0.0)])[0]
        self.canvas.ellipse(None, spot, (half, half * 0.13), shade(self.ground, 0.72))

    def _placed(self, points: Points) -> list[Spot]:
        (x, y), run = self.spot, self.facing * self.size
        return [(x + run * across, y - self.size * up) for across, up in points]
