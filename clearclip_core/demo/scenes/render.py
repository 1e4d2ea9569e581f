"""Drawn scenes with ground truth: the demo model's world, and the test picture of everything else.

`render_scene` draws a flat illustration of everyday things from a seed: the same seed and size
always give the same picture. Every pixel has one of the 18 `SCENE_LABELS`. Palettes are random
(grass may be violet, snow may be pink), so that colour and height in the picture do not give a
label away; shape and texture do. Small things are drawn large enough to be found at a patch size
of 16 pixels.

How it works: a `_Canvas` paints each stroke twice, its colour into an RGB picture and its
*material* (bark, roof tiles, waves, ...) into an index picture, both at twice the final size. The
colours are averaged down, which smooths the edges; the materials are thinned out, name the label
of each pixel, and choose the tileable texture that is added to its colour.

Seeds from `HELD_OUT_SEEDS` are for measuring only. Training draws from the seeds below.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["HELD_OUT_SEEDS", "SCENE_LABELS", "SYNONYMS", "Scene", "render_scene"]

#: Seeds that no training ever sees.
HELD_OUT_SEEDS: Final = range(10_000_000, 20_000_000)

#: The words of the scenes, and with them what the values of a label map mean.
SCENE_LABELS: Final[tuple[str, ...]] = (
    "sky",
    "cloud",
    "sun",
    "mountain",
    "grass",
    "tree",
    "house",
    "road",
    "car",
    "water",
    "boat",
    "person",
    "dog",
    "flower",
    "fence",
    "rock",
    "sand",
    "snow",
)

#: Other words for each label, which the demo model learns too.
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "sky": ("heaven", "blue sky", "air"),
    "cloud": ("clouds", "cumulus", "white cloud"),
    "sun": ("sunshine", "setting sun", "rising sun"),
    "mountain": ("mountains", "hill", "peak", "summit"),
    "grass": ("lawn", "meadow", "field", "pasture"),
    "tree": ("trees", "pine", "oak", "fir", "forest"),
    "house": ("houses", "building", "home", "cottage", "hut"),
    "road": ("street", "path", "highway", "asphalt"),
    "car": ("cars", "automobile", "vehicle", "van"),
    "water": ("sea", "lake", "river", "ocean"),
    "boat": ("boats", "ship", "sailboat", "yacht"),
    "person": ("people", "human", "man", "woman", "child", "pedestrian"),
    "dog": ("dogs", "puppy", "hound"),
    "flower": ("flowers", "blossom", "tulip", "daisy"),
    "fence": ("fences", "picket fence", "palisade"),
    "rock": ("rocks", "stone", "boulder", "cliff"),
    "sand": ("beach", "desert", "dune"),
    "snow": ("ice", "snowfield", "frost"),
}


@dataclass(frozen=True)
class Scene:
    """A picture and what it shows.

    Args:
        image: (H, W, 3) uint8, RGB.
        label_map: (H, W) int64, index into `SCENE_LABELS` at each pixel; there is no "nothing".

    Raises:
        ValueError: if the two do not fit together.
    """

    image: NDArray[np.uint8]
    label_map: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                "Expected argument `image` to be (H, W, 3) uint8, "
                f"but got {self.image.shape} {self.image.dtype}."
            )
        if self.label_map.shape != self.image.shape[:2]:
            raise ValueError(
                f"Expected argument `label_map` to have shape {self.image.shape[:2]}, "
                f"but got {self.label_map.shape}."
            )


def render_scene(seed: int, size_hw: tuple[int, int] = (448, 597)) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative integer.
        size_hw: height and width in pixels; things grow with the short side.

    Returns:
        The same `Scene` for the same arguments, on every machine with the same Pillow.

    Raises:
        ValueError: if the seed is negative or a side is shorter than 16 pixels.

    Example:
        >>> scene = render_scene(7, size_hw=(96, 128))
        >>> scene.image.shape, scene.label_map.shape
        ((96, 128, 3), (96, 128))
        >>> "sky" in {SCENE_LABELS[index] for index in scene.label_map.ravel()}
        True
    """
    if seed < 0:
        raise ValueError(f"Expected argument `seed` to be at least 0, but got {seed}.")
    if min(size_hw) < 16:
        raise ValueError(
            f"Expected argument `size_hw` to be at least 16 a side, but got {size_hw}."
        )
    canvas = _Canvas(size_hw, np.random.default_rng(seed))
    _compose(canvas)
    return canvas.finish()


# ---- materials: what is painted with, its label and its texture ---------------------------------

_TILE = 256  # side of a texture tile, in points
_SHADES = 3  # versions of each texture: fine, middle, coarse

#: material -> (label, texture, strength of the texture in grey levels)
_MATERIALS: Final[dict[str, tuple[str, str, float]]] = {
    "sky": ("sky", "plain", 4),
    "cloud": ("cloud", "puffs", 15),
    "sun": ("sun", "plain", 4),
    "ridge": ("mountain", "hatching", 20),
    "grass": ("grass", "blades", 30),
    "leaves": ("tree", "scallops", 34),
    "bark": ("tree", "planks", 26),
    "wall": ("house", "bricks", 20),
    "roof": ("house", "tiles", 28),
    "pane": ("house", "plain", 4),
    "asphalt": ("road", "speckle", 11),
    "marking": ("road", "plain", 5),
    "bodywork": ("car", "plain", 4),
    "tyre": ("car", "plain", 4),
    "waves": ("water", "waves", 30),
    "hull": ("boat", "boards", 18),
    "sail": ("boat", "plain", 5),
    "cloth": ("person", "weave", 8),
    "skin": ("person", "plain", 4),
    "fur": ("dog", "fur", 16),
    "nose": ("dog", "plain", 4),
    "petal": ("flower", "plain", 6),
    "stem": ("flower", "plain", 5),
    "picket": ("fence", "planks", 16),
    "stone": ("rock", "cracks", 30),
    "sand": ("sand", "dots", 30),
    "snow": ("snow", "drifts", 17),
}
_MATERIAL_INDEX: Final = {name: index for index, name in enumerate(_MATERIALS)}
_LABEL_OF_MATERIAL: Final = np.array(
    [SCENE_LABELS.index(label) for label, _, _ in _MATERIALS.values()], dtype=np.int64
)

#: Base colours. The lists overlap between materials on purpose.
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

_Colour = tuple[int, int, int]
_Spot = tuple[float, float]
_Points = Sequence[_Spot]


def _clip_colour(channels: Iterable[float]) -> _Colour:
    red, green, blue = (max(0, min(255, round(value))) for value in channels)
    return red, green, blue


def _shade(colour: _Colour, factor: float) -> _Colour:
    """Darker below 1; above 1, nearer to white."""
    if factor <= 1:
        return _clip_colour([value * factor for value in colour])
    return _clip_colour([value + (255 - value) * (factor - 1) for value in colour])


# ---- textures: tileable grey-level patterns in [-1, 1] ------------------------------------------

_Pattern = NDArray[np.float64]  # (_TILE, _TILE)


class _Mark(NamedTuple):
    """One mark of a texture: where it goes, about how large and how light, in pixels and greys."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    step: float
    tone: int
    rng: np.random.Generator

    def ellipse(self, across: float, above: float, below: float, tone: int | None = None) -> None:
        box = [self.x - across, self.y - above, self.x + across, self.y + below]
        self.draw.ellipse(box, fill=self.tone if tone is None else tone)

    def line(self, points: Sequence[tuple[float, float]], width: float) -> None:
        moved = [(self.x + x, self.y + y) for x, y in points]
        self.draw.line(moved, fill=self.tone, width=max(2, round(width)), joint="curve")


def _blade(mark: _Mark) -> None:
    lean = mark.rng.uniform(-0.5, 0.5) * mark.step
    height, half = mark.rng.uniform(1.3, 2.2) * mark.step, mark.step * 0.16
    corners = [(mark.x - half, mark.y), (mark.x + half, mark.y), (mark.x + lean, mark.y - height)]
    mark.draw.polygon(corners, fill=mark.tone)


def _scallop(mark: _Mark) -> None:
    radius = mark.step * mark.rng.uniform(0.35, 0.6)
    mark.ellipse(radius, radius, radius * 0.7)


def _puff(mark: _Mark) -> None:
    radius = mark.step * mark.rng.uniform(0.4, 0.7)
    box = [mark.x - radius, mark.y - radius, mark.x + radius, mark.y + radius]
    mark.draw.arc(box, 180, 350, fill=mark.tone, width=max(2, round(mark.step * 0.09)))


def _dot(mark: _Mark) -> None:
    radius = mark.step * mark.rng.uniform(0.12, 0.26)
    mark.ellipse(radius, radius, radius)


def _wave(mark: _Mark) -> None:
    length = mark.step * mark.rng.uniform(0.35, 0.6)
    rise = mark.step * mark.rng.uniform(0.04, 0.1)
    points = [(length * t, rise * math.sin(t * 4.5)) for t in np.linspace(-1, 1, 9).tolist()]
    mark.line(points, mark.step * 0.075)


def _drift(mark: _Mark) -> None:
    length = mark.step * mark.rng.uniform(0.4, 0.8)
    rise = mark.step * mark.rng.uniform(0.12, 0.25)
    mark.ellipse(length, rise, rise, tone=int(128 + (mark.tone - 128) * 0.55))
    mark.ellipse(length, rise * 0.5, rise * 1.6, tone=128)


def _hatch(mark: _Mark) -> None:
    length = mark.step * mark.rng.uniform(0.5, 0.9)
    mark.line([(-length * 0.6, -length), (length * 0.6, length)], mark.step * 0.16)


def _hair(mark: _Mark) -> None:
    length = mark.step * mark.rng.uniform(0.5, 0.8)
    mark.line([(-length, -length * 0.5), (length, length * 0.5)], 2)


#: texture -> (its mark, how far apart the marks are in points, across and down)
_PENS: Final[dict[str, tuple[Callable[[_Mark], None], float, float]]] = {
    "blades": (_blade, 7, 9),
    "scallops": (_scallop, 11, 9),
    "puffs": (_puff, 34, 24),
    "dots": (_dot, 7, 7),
    "waves": (_wave, 38, 9),
    "drifts": (_drift, 58, 26),
    "hatching": (_hatch, 16, 16),
    "fur": (_hair, 6, 4),
}


def _stamped(name: str, scale: float, rng: np.random.Generator) -> _Pattern:
    """One mark on a jittered grid, wrapped around at the borders."""
    big = Image.new("L", (_TILE * 2, _TILE * 2), 128)
    draw = ImageDraw.Draw(big)
    pen, *pitch_xy = _PENS[name]
    columns, rows = (max(2, round(_TILE / (pitch * scale))) for pitch in pitch_xy)
    step_x, step_y = _TILE / columns, _TILE / rows
    for row, column in np.ndindex(rows, columns):
        x = (column + 0.5 * (row % 2) + rng.uniform(-0.3, 0.3)) * step_x
        y = (row + rng.uniform(-0.3, 0.3)) * step_y
        tone = int(rng.choice((20, 60, 200, 236)))
        state = rng.bit_generator.state
        for down, right in itertools.product((-_TILE, 0, _TILE), repeat=2):
            rng.bit_generator.state = state  # the same mark again beyond each border
            pen(_Mark(draw, (x + right) * 2, (y + down) * 2, step_x * 2, tone, rng))
    return np.asarray(big.reduce(2), dtype=np.float64) / 127.5 - 1.0


def _grain(rng: np.random.Generator) -> _Pattern:
    return rng.normal(0.0, 0.35, (_TILE, _TILE))


def _cells(pitch: float, rng: np.random.Generator) -> _Pattern:
    """Facets with dark cracks between them: wrapped Voronoi cells."""
    count = round((_TILE / pitch) ** 2)
    centres = rng.uniform(0, _TILE, (count, 2))
    tones = rng.uniform(-0.5, 0.6, count)
    grid = np.arange(_TILE)
    nearest = np.full((2, _TILE, _TILE), np.inf)
    owner = np.zeros((_TILE, _TILE), dtype=np.int64)
    for index, (y, x) in enumerate(centres):
        rise = (grid[:, None] - y + _TILE / 2) % _TILE - _TILE / 2
        run = (grid[None, :] - x + _TILE / 2) % _TILE - _TILE / 2
        distance = np.hypot(rise, run)
        closer = distance < nearest[0]
        nearest[1] = np.where(closer, nearest[0], np.minimum(nearest[1], distance))
        nearest[0] = np.where(closer, distance, nearest[0])
        owner[closer] = index
    return np.where(nearest[1] - nearest[0] < 1.6, -1.0, tones[owner])


def _masonry(pitch_xy: _Spot, rng: np.random.Generator, rounded: bool) -> _Pattern:
    """Bricks with joints, or rows of rounded roof tiles."""
    columns, rows = (max(2, 2 * round(_TILE / pitch / 2)) for pitch in pitch_xy)
    y, x = np.mgrid[0:_TILE, 0:_TILE].astype(np.float64)
    row = np.floor(y * rows / _TILE)
    across = x * columns / _TILE + 0.5 * (row % 2)
    down = y * rows / _TILE - row
    tones = rng.uniform(-0.35, 0.55, (rows, columns))
    tone = tones[row.astype(np.int64), np.floor(across).astype(np.int64) % columns]
    across = across - np.floor(across)
    if rounded:
        return np.where(down > 0.55 + 0.4 * np.sin(np.pi * across), -1.0, tone)
    return np.where((across < 0.10) | (down < 0.18), -1.0, tone)


def _stripes(pitch: float, rng: np.random.Generator, upright: bool) -> _Pattern:
    """Boards of changing tone with dark gaps."""
    count = max(2, round(_TILE / pitch))
    position = np.arange(_TILE) * count / _TILE
    tone = rng.uniform(-0.4, 0.6, count)[position.astype(np.int64)]
    row = np.where(position % 1.0 < 0.14, -1.0, tone)
    return np.tile(row, (_TILE, 1)) if upright else np.tile(row[:, None], (1, _TILE))


def _texture(name: str, scale: float, rng: np.random.Generator) -> _Pattern:
    """A pattern in about [-1, 1]; `scale` stretches its marks."""
    match name:
        case "plain":
            return _grain(rng)
        case "speckle":
            return np.sign(_grain(rng)) * rng.uniform(0.2, 1.0, (_TILE, _TILE))
        case "cracks":
            return _cells(24 * scale, rng)
        case "bricks":
            return _masonry((18 * scale, 9 * scale), rng, rounded=False)
        case "tiles":
            return _masonry((11 * scale, 10 * scale), rng, rounded=True)
        case "planks":
            return _stripes(8 * scale, rng, upright=True)
        case "boards":
            return _stripes(9 * scale, rng, upright=False)
        case "weave":
            return _stripes(5 * scale, rng, upright=False) * 0.5 + _grain(rng) * 0.5
        case _:
            return _stamped(name, scale, rng) + 0.25 * _grain(rng)


@cache
def _texture_bank() -> NDArray[np.int16]:
    """(shades x materials, _TILE * _TILE) grey levels to add, drawn once per process."""
    rng = np.random.default_rng(18)
    bank = np.empty((_SHADES, len(_MATERIALS), _TILE, _TILE))
    for shade, scale in enumerate((0.8, 1.1, 1.5)):
        for material, (_, name, strength) in enumerate(_MATERIALS.values()):
            pattern = _texture(name, scale, rng)
            bank[shade, material] = (pattern - pattern.mean()).clip(-1.2, 1.2) * strength
    return bank.reshape(_SHADES * len(_MATERIALS), _TILE * _TILE).astype(np.int16)


# ---- the canvas ---------------------------------------------------------------------------------

_OVERSAMPLING = 2


class _Canvas:
    """Paints colours and materials in the same stroke.

    Coordinates are *points*: the short side of the picture is 448 of them, whatever its size.

    Args:
        size_hw: size of the finished picture in pixels.
        rng: the source of every random choice in the scene.
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

    def colour(self, material: str) -> _Colour:
        """A random colour for a material, jittered and tinted like the rest of the scene."""
        code = str(self.rng.choice(_COLOURS[material].split()))
        base = np.array([int(code[start : start + 2], 16) for start in (0, 2, 4)])
        if material not in ("skin", "fur") and self.rng.random() < 0.15:
            base = self.rng.permutation(base)
        return _clip_colour((base + self.rng.normal(0, 11, 3)) * self._gain)

    def polygon(self, material: str | None, points: _Points, colour: _Colour) -> None:
        """Fill a polygon; without a material only its colour changes what is there (a shadow)."""
        scaled = [(x * self._scale, y * self._scale) for x, y in points]
        self._draw_colour.polygon(scaled, fill=colour)
        if material is not None:
            self._draw_material.polygon(scaled, fill=_MATERIAL_INDEX[material])

    def ellipse(self, material: str | None, centre: _Spot, radii: _Spot, colour: _Colour) -> None:
        """Fill an axis-parallel ellipse."""
        (x, y), (across, down) = centre, radii
        corners = (x - across, y - down, x + across, y + down)
        box = [value * self._scale for value in corners]
        self._draw_colour.ellipse(box, fill=colour)
        if material is not None:
            self._draw_material.ellipse(box, fill=_MATERIAL_INDEX[material])

    def limb(self, material: str, points: _Points, width: float, colour: _Colour) -> None:
        """Draw a thick line with round ends."""
        scaled = [(x * self._scale, y * self._scale) for x, y in points]
        stroke, index = max(1, round(width * self._scale)), _MATERIAL_INDEX[material]
        self._draw_colour.line(scaled, fill=colour, width=stroke, joint="curve")
        self._draw_material.line(scaled, fill=index, width=stroke, joint="curve")
        for end in (points[0], points[-1]):
            self.ellipse(material, end, (width / 2, width / 2), colour)

    def strip(self, bottom: float, material: str | None, colour: _Colour) -> None:
        """Fill from the top of the picture down to `bottom`."""
        corners = [(0, 0), (self.width, 0), (self.width, bottom), (0, bottom)]
        self.polygon(material, corners, colour)

    def slope(self, material: str, top: NDArray[np.float64], colour: _Colour, far: float) -> None:
        """Fill everything below a curve; `far` shades its upper edge.

        Args:
            top: y in points, at equal steps from the left to the right border.
        """
        left, right = (0.0, self.height + 50), (self.width, self.height + 50)
        xs = np.linspace(0, self.width, len(top)).tolist()
        for band in range(5):
            lowered = top + (self.height + 40 - top) * ((band / 5) ** 1.5 if band else 0)
            outline = [*zip(xs, lowered.tolist(), strict=True), right, left]
            tone = _shade(colour, far + (1 - far) * band / 4)
            self.polygon(None if band else material, outline, tone)

    def finish(self) -> Scene:
        """Average down, add the textures, read off the labels."""
        colours = np.asarray(self._colours.reduce(_OVERSAMPLING)).astype(np.int16)
        materials = np.asarray(self._materials)[::_OVERSAMPLING, ::_OVERSAMPLING]
        image = colours + self._grey_levels(materials)[:, :, None]
        return Scene(
            image=np.clip(image, 0, 255).astype(np.uint8),
            label_map=_LABEL_OF_MATERIAL[materials],
        )

    def _grey_levels(self, materials: NDArray[np.uint8]) -> NDArray[np.int16]:
        """(H, W) texture to add: each material's tile, at a random place of its own."""
        bank = _texture_bank()
        count = len(_MATERIALS)
        shade = self.rng.integers(_SHADES, size=count)
        start = (shade * count + np.arange(count)) * (_TILE * _TILE)
        offset_y, offset_x = self.rng.integers(_TILE, size=(2, count))
        y, x = (
            (np.arange(side) / self.pixels_per_point).astype(np.int32)[:, None] + offset
            for side, offset in zip(self.size_hw, (offset_y, offset_x), strict=True)
        )
        rows = (y % _TILE * _TILE + start).astype(np.int32)  # (H, materials)
        columns = (x % _TILE).astype(np.int32)  # (W, materials)
        height, width = self.size_hw
        index = rows.ravel()[np.arange(height, dtype=np.int32)[:, None] * count + materials]
        index += columns.ravel()[np.arange(width, dtype=np.int32)[None, :] * count + materials]
        grey_levels: NDArray[np.int16] = bank.ravel()[index]
        return grey_levels


# ---- the things ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Brush:
    """Draws one thing in units of its own: it stands on (0, 0) and is 1 tall; x right, y up.

    Args:
        canvas: what is drawn on.
        spot: where the thing stands, in points.
        size: its height in points.
        ground: the colour of what it stands on, for its shadow.
        facing: -1 mirrors it.
    """

    canvas: _Canvas
    spot: _Spot
    size: float
    ground: _Colour
    facing: int = 1

    @property
    def rng(self) -> np.random.Generator:
        return self.canvas.rng

    def turned(self) -> _Brush:
        """The same brush, facing left or right."""
        return replace(self, facing=int(self.rng.choice((-1, 1))))

    def colours(self, *materials: str) -> list[_Colour]:
        return [self.canvas.colour(material) for material in materials]

    def polygon(self, material: str, points: _Points, colour: _Colour) -> None:
        self.canvas.polygon(material, self._placed(points), colour)

    def trapezoid(self, material: str, low: _Spot, high: _Spot, colour: _Colour) -> None:
        """Upright and symmetric: `low` and `high` are each half a width and a height."""
        (half_low, bottom), (half_high, top) = low, high
        corners = [(-half_low, bottom), (-half_high, top), (half_high, top), (half_low, bottom)]
        self.polygon(material, corners, colour)

    def box(self, material: str, foot: _Spot, size_xy: _Spot, colour: _Colour) -> None:
        """An upright box that stands on `foot`; its size is half a width and a height."""
        (x, y), (half, high) = foot, size_xy
        self.polygon(
            material,
            [(x - half, y), (x - half, y + high), (x + half, y + high), (x + half, y)],
            colour,
        )

    def ellipse(self, material: str, centre: _Spot, radii: _Spot, colour: _Colour) -> None:
        scaled = (radii[0] * self.size, radii[1] * self.size)
        self.canvas.ellipse(material, self._placed([centre])[0], scaled, colour)

    def limb(self, material: str, points: _Points, width: float, colour: _Colour) -> None:
        self.canvas.limb(material, self._placed(points), width * self.size, colour)

    def shadow(self, half_width: float, x: float = 0.0) -> None:
        half = half_width * self.size
        spot = self._placed([(x, 0.0)])[0]
        self.canvas.ellipse(None, spot, (half, half * 0.13), _shade(self.ground, 0.72))

    def _placed(self, points: _Points) -> list[_Spot]:
        (x, y), run = self.spot, self.facing * self.size
        return [(x + run * across, y - self.size * up) for across, up in points]


def _draw_tree(brush: _Brush) -> None:
    bark, leaves = brush.colours("bark", "leaves")
    brush.shadow(0.32)
    trunk = brush.rng.uniform(0.05, 0.08)
    brush.trapezoid("bark", (trunk, 0), (trunk / 2, 0.55), bark)
    (_draw_conifer, _draw_poplar, _draw_crown)[brush.rng.integers(3)](brush, leaves)


def _draw_conifer(brush: _Brush, leaves: _Colour) -> None:
    for tier in range(3):
        half, base = 0.34 - 0.08 * tier, 0.18 + 0.24 * tier
        corners = [(-half, base), (0, base + 0.4), (half, base)]
        brush.polygon("leaves", corners, _shade(leaves, 0.84 + 0.14 * tier))


def _draw_poplar(brush: _Brush, leaves: _Colour) -> None:
    brush.ellipse("leaves", (0, 0.58), (0.21, 0.42), leaves)
    brush.ellipse("leaves", (-0.06, 0.64), (0.11, 0.3), _shade(leaves, 1.14))


def _draw_crown(brush: _Brush, leaves: _Colour) -> None:
    for turn in brush.rng.permutation(6):
        angle = turn * math.pi / 3 + brush.rng.uniform(-0.3, 0.3)
        centre = (0.21 * math.cos(angle), 0.68 + 0.16 * math.sin(angle))
        radius = brush.rng.uniform(0.15, 0.21)
        tone = _shade(leaves, 0.96 + 0.12 * math.sin(angle))
        brush.ellipse("leaves", centre, (radius, radius), tone)
    brush.ellipse("leaves", (0, 0.68), (0.22, 0.19), leaves)


def _draw_house(brush: _Brush) -> None:
    rng, (wall, roof, pane) = brush.rng, brush.colours("wall", "roof", "pane")
    half, eaves = rng.uniform(0.42, 0.72), rng.uniform(0.5, 0.62)
    brush.shadow(half * 1.15)
    if rng.random() < 0.6:
        chimney = half * rng.uniform(-0.6, 0.6)
        brush.box("wall", (chimney, eaves + 0.1), (0.05, 0.3), _shade(wall, 0.8))
    brush.box("wall", (0, 0), (half, eaves), wall)
    ridge = half * rng.choice((0.0, 0.0, 0.55))
    brush.trapezoid("roof", (half * 1.14, eaves), (ridge, 1), roof)
    door = half * rng.uniform(-0.25, 0.25)
    brush.box("pane", (door, 0), (0.075, 0.27), brush.canvas.colour("bark"))
    for side in (-1, 1):
        window = door / 2 + side * half * 0.58
        brush.box("pane", (window, 0.18), (0.1, 0.21), _shade(wall, 1.5))
        brush.box("pane", (window, 0.2), (0.08, 0.17), pane)
        brush.box("pane", (window, 0.2), (0.008, 0.17), _shade(wall, 1.5))


def _draw_car(brush: _Brush) -> None:
    paint, glass, rubber = brush.colours("bodywork", "pane", "tyre")
    brush = brush.turned()
    rear = -1.05 if brush.rng.random() < 0.35 else -0.72  # a van or not
    brush.shadow(1.3)
    cabin = [(rear, 0.5), (rear + 0.16, 1.0), (0.28, 1.0), (0.62, 0.5)]
    windows = [(rear + 0.14, 0.56), (rear + 0.25, 0.9), (0.24, 0.9), (0.48, 0.56)]
    brush.polygon("bodywork", cabin, _shade(paint, 0.93))
    brush.polygon("bodywork", windows, glass)
    brush.box("bodywork", (-0.2, 0.5), (0.04, 0.45), paint)
    body = [(-1.18, 0.16), (-1.2, 0.44), (-1.08, 0.56), (0.6, 0.56)]
    body += [(1.1, 0.46), (1.22, 0.34), (1.2, 0.16)]
    brush.polygon("bodywork", body, paint)
    sill = [(-1.19, 0.16), (-1.19, 0.26), (1.21, 0.26), (1.2, 0.16)]
    brush.polygon("bodywork", sill, _shade(paint, 0.75))
    brush.ellipse("bodywork", (1.13, 0.4), (0.06, 0.06), (255, 240, 180))
    brush.ellipse("bodywork", (-1.15, 0.42), (0.05, 0.06), (210, 60, 50))
    for wheel in (-0.68, 0.7):
        brush.ellipse("tyre", (wheel, 0.2), (0.25, 0.25), rubber)
        brush.ellipse("tyre", (wheel, 0.2), (0.12, 0.12), (206, 208, 212))


def _draw_boat(brush: _Brush) -> None:
    hull, sail = brush.colours("hull", "sail")
    brush = brush.turned()
    spot, radii = brush.spot, (brush.size * 0.62, brush.size * 0.06)
    brush.canvas.ellipse(None, spot, radii, _shade(brush.ground, 0.8))
    if brush.rng.random() < 0.65:
        brush.box("hull", (0, 0.2), (0.02, 0.8), _shade(hull, 0.6))
        brush.polygon("sail", [(-0.05, 0.28), (-0.03, 0.98), (-0.5, 0.32)], sail)
        brush.polygon("sail", [(0.04, 0.26), (0.03, 0.9), (0.46, 0.28)], _shade(sail, 0.88))
    else:  # a motor boat
        brush.polygon("hull", [(-0.4, 0.2), (-0.36, 0.46), (0.12, 0.46), (0.22, 0.2)], sail)
        for across in (-0.22, 0.0):
            brush.ellipse("sail", (across, 0.34), (0.05, 0.05), brush.canvas.colour("pane"))
        brush.box("hull", (-0.2, 0.46), (0.06, 0.2), _shade(hull, 0.7))
    brush.polygon("hull", [(-0.54, 0.24), (-0.44, -0.03), (0.42, -0.03), (0.64, 0.26)], hull)
    rim = [(-0.54, 0.24), (-0.52, 0.18), (0.59, 0.19), (0.64, 0.26)]
    brush.polygon("hull", rim, _shade(hull, 1.35))


def _draw_person(brush: _Brush) -> None:
    skin, top, bottom, hair = brush.colours("skin", "cloth", "cloth", "fur")
    brush.shadow(0.2)
    stride, swing = brush.rng.uniform(0.03, 0.11), brush.rng.uniform(0.02, 0.14)
    for side in (-1, 1):
        foot = side * stride
        brush.limb("cloth", [(side * 0.05, 0.46), (foot, 0.03)], 0.095, bottom)
        brush.limb("cloth", [(foot, 0.03), (foot + 0.04, 0.03)], 0.06, _shade(bottom, 0.5))
    if brush.rng.random() < 0.4:  # a skirt
        brush.trapezoid("cloth", (0.19, 0.22), (0.09, 0.52), bottom)
    raised = brush.rng.random() < 0.3
    for side in (-1, 1):
        hand = (side * (0.14 + swing), 0.96 if raised and side == 1 else 0.49)
        brush.limb("cloth", [(side * 0.11, 0.73), hand], 0.075, _shade(top, 0.86))
        brush.ellipse("skin", hand, (0.04, 0.04), skin)
    brush.trapezoid("cloth", (0.11, 0.43), (0.14, 0.77), top)
    _draw_head(brush, skin, hair)


def _draw_head(brush: _Brush, skin: _Colour, hair: _Colour) -> None:
    brush.limb("skin", [(0, 0.76), (0, 0.81)], 0.07, _shade(skin, 0.88))
    brush.ellipse("skin", (0, 0.91), (0.098, 0.1), hair)
    if brush.rng.random() < 0.45:  # long hair
        brush.trapezoid("skin", (0.12, 0.72), (0.09, 0.885), hair)
    brush.ellipse("skin", (0, 0.873), (0.078, 0.088), skin)
    for side in (-1, 1):
        brush.ellipse("skin", (side * 0.03, 0.885), (0.01, 0.012), (50, 40, 44))


def _draw_dog(brush: _Brush) -> None:
    coat = brush.canvas.colour("fur")
    patch = _shade(coat, brush.rng.choice((0.6, 0.75, 1.5)))
    nose = brush.canvas.colour("nose")
    brush = brush.turned()
    brush.shadow(0.65)
    brush.limb("fur", [(-0.5, 0.6), (-0.72, brush.rng.uniform(0.6, 0.95))], 0.1, coat)
    for leg, tone in ((-0.38, 0.82), (0.36, 0.82), (-0.5, 1.0), (0.24, 1.0)):
        brush.limb("fur", [(leg, 0.45), (leg + 0.02, 0.06)], 0.14, _shade(coat, tone))
    brush.limb("fur", [(-0.38, 0.52), (0.32, 0.55)], 0.38, coat)
    brush.limb("fur", [(0.34, 0.6), (0.5, 0.85)], 0.28, coat)
    brush.ellipse("fur", (0.56, 0.9), (0.22, 0.2), coat)
    brush.limb("fur", [(0.62, 0.85), (0.84, 0.82)], 0.18, _shade(coat, 1.2))
    brush.ellipse("nose", (0.93, 0.86), (0.06, 0.05), nose)
    brush.ellipse("nose", (0.64, 0.96), (0.032, 0.036), nose)
    brush.limb("fur", [(0.46, 0.98), (0.38, 0.72)], 0.14, patch)
    if brush.rng.random() < 0.4:
        brush.ellipse("fur", (-0.1, 0.58), (0.18, 0.12), patch)
    brush.limb("nose", [(0.34, 0.72), (0.5, 0.66)], 0.07, brush.canvas.colour("bodywork"))


def _draw_flowers(brush: _Brush) -> None:
    rng, (petal, heart, stem) = brush.rng, brush.colours("petal", "petal", "stem")
    draw_head = _draw_tulip if rng.random() < 0.35 else _draw_daisy
    for number in range(rng.integers(1, 5)):
        tall = rng.uniform(0.75, 1.05)
        foot = (number * 0.46, rng.uniform(-0.1, 0.1))
        head = (foot[0] + rng.uniform(-0.1, 0.1), foot[1] + tall)
        brush.limb("stem", [foot, head], 0.06, stem)
        for side in (-1, 1):
            tip, fork = (foot[0] + side * 0.2, foot[1] + 0.36), (foot[0], foot[1] + 0.16)
            brush.polygon("stem", [foot, tip, fork], _shade(stem, 1 + 0.12 * side))
        draw_head(brush, head, rng.uniform(0.26, 0.34), petal, heart)


def _draw_daisy(brush: _Brush, head: _Spot, size: float, petal: _Colour, heart: _Colour) -> None:
    count = int(brush.rng.integers(5, 9))
    for number in range(count):
        angle, reach = 2 * math.pi * number / count - 0.3, size * 0.6
        centre = (head[0] + reach * math.cos(angle), head[1] + reach * math.sin(angle))
        tone = _shade(petal, 0.92 if number % 2 else 1.08)
        brush.ellipse("petal", centre, (size * 0.4, size * 0.4), tone)
    brush.ellipse("petal", head, (size * 0.36, size * 0.36), heart)


def _draw_tulip(brush: _Brush, head: _Spot, size: float, petal: _Colour, heart: _Colour) -> None:
    x, y = head
    wide, high = size * 0.8, size * 1.1
    half = [(0.0, 1.15), (0.5, 0.3), (1.0, 1.0), (0.9, 0.0), (0.45, -0.5)]  # of the cup
    cup = [*half, *((-across, up) for across, up in reversed(half))]
    brush.polygon("petal", [(x + across * wide, y + up * high) for across, up in cup], petal)
    radii = (wide * 0.45, high * 0.55)
    brush.ellipse("petal", (x, y + high * 0.1), radii, _shade(petal, 1.2))


def _draw_fence(brush: _Brush) -> None:
    rng, paint = brush.rng, brush.canvas.colour("picket")
    left, right = -rng.uniform(0.8, 2.2), rng.uniform(0.8, 2.2)
    board, gap = rng.uniform(0.14, 0.2), rng.uniform(0.04, 0.07)
    for up in (0.3, 0.7):
        brush.limb("picket", [(left, up), (right, up)], 0.1, _shade(paint, 0.75))
    tip = (board / 2, 1 + rng.choice((0.0, 0.12)))
    outline = [(0.0, 0.0), (0.0, 1.0), tip, (board, 1.0), (board, 0.0)]
    for x in np.arange(left, right, board + gap).tolist():
        corners = [(x + across, up) for across, up in outline]
        brush.polygon("picket", corners, _shade(paint, rng.uniform(0.9, 1.1)))


def _draw_rocks(brush: _Brush) -> None:
    rng, grey = brush.rng, brush.canvas.colour("stone")
    boulders = [(0.0, 1.0), (rng.uniform(0.6, 1.0), rng.uniform(0.4, 0.7))]
    for x, high in boulders[: rng.integers(1, 3)]:
        angles, reach = np.sort(rng.uniform(0, math.pi, 7)), rng.uniform(0.75, 1.05, 7)
        ups = high * reach * np.sin(angles)
        rim = [*zip((x + high * 0.85 * reach * np.cos(angles)).tolist(), ups.tolist(), strict=True)]
        left, right, inner = (
            (x - high * 0.9, 0.0),
            (x + high * 0.9, 0.0),
            (x + high * 0.1, high * 0.35),
        )
        brush.shadow(high * 0.95, x)
        brush.polygon("stone", [right, *rim, left], grey)
        brush.polygon("stone", [right, *rim[:3], inner, (x, 0.0)], _shade(grey, 0.78))


def _draw_sun(brush: _Brush) -> None:
    colour = brush.canvas.colour("sun")
    if brush.rng.random() < 0.5:
        for number in range(12):
            angle = number * math.pi / 6
            beam = [(1.7, angle), (1.02, angle - 0.2), (1.02, angle + 0.2)]
            corners = [(reach * math.cos(turn), reach * math.sin(turn)) for reach, turn in beam]
            brush.polygon("sun", corners, _shade(colour, 0.96))
    brush.ellipse("sun", (0, 0), (1, 1), colour)
    brush.ellipse("sun", (0, 0), (0.8, 0.8), _shade(colour, 1.2))


def _draw_cloud(brush: _Brush) -> None:
    colour = brush.canvas.colour("cloud")
    puffs = [(0.56 - 0.28 * abs(x), x) for x in (-0.9, -0.45, 0.0, 0.45, 0.9)]
    radii = [(radius * brush.rng.uniform(0.75, 1.2), x) for radius, x in puffs]
    for lift, tone in ((0.0, 0.9), (0.12, 1.0)):  # the underside, then the cloud
        for radius, x in radii:
            centre = (x, lift + radius * 0.45)
            brush.ellipse("cloud", centre, (radius * 1.1, radius), _shade(colour, tone))
        brush.ellipse("cloud", (0, lift - 0.08), (1.25, 0.2), _shade(colour, tone))


# ---- the composition ----------------------------------------------------------------------------

_THINGS: Final[dict[str, tuple[Callable[[_Brush], None], float, float, float]]] = {
    # name: (how it is drawn, height in points from .. to, how often)
    "tree": (_draw_tree, 140, 270, 1.6),
    "house": (_draw_house, 130, 230, 1.3),
    "car": (_draw_car, 65, 110, 1.4),
    "boat": (_draw_boat, 110, 200, 1.3),
    "person": (_draw_person, 150, 270, 1.9),
    "dog": (_draw_dog, 85, 150, 1.8),
    "flower": (_draw_flowers, 85, 160, 1.6),
    "fence": (_draw_fence, 70, 120, 1.0),
    "rock": (_draw_rocks, 70, 160, 1.7),
}

_ROAD_ENDS: Final = ((0.2, 0.8), (0.15, 0.85))  # far and near, in widths
_GROUND_KINDS: Final = ("grass", "waves", "sand", "snow")


@dataclass(frozen=True)
class _Ground:
    """A strip of ground: from its upper edge to the next one's, or to the bottom."""

    material: str
    top: NDArray[np.float64]  # (11,) y in points at each tenth of the width
    colour: _Colour

    def edge(self, canvas: _Canvas, x: float) -> float:
        return float(np.interp(x, np.linspace(0, canvas.width, len(self.top)), self.top))


def _compose(canvas: _Canvas) -> None:
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.2, 0.72) if rng.random() < 0.88 else -30.0
    things = _choose_things(rng)
    _paint_sky(canvas, horizon)
    if rng.random() < 0.5:
        _paint_mountains(canvas, horizon)
    grounds = _paint_grounds(canvas, horizon, water="boat" in things)
    if rng.random() < (0.75 if "car" in things else 0.22):
        grounds.append(_paint_road(canvas, horizon))
    for name, spot, ground in _place(canvas, things, grounds):
        draw, small, large, _ = _THINGS[name]
        nearness = (spot[1] - max(horizon, 0)) / (canvas.height - max(horizon, 0))
        size = rng.uniform(small, large) * (0.72 + 0.45 * nearness)
        draw(_Brush(canvas, spot, size, ground.colour))


def _choose_things(rng: np.random.Generator) -> list[str]:
    weights = np.array([weight for *_, weight in _THINGS.values()])
    count = int(rng.integers(3, 8))
    return [str(name) for name in rng.choice(list(_THINGS), count, p=weights / weights.sum())]


def _paint_sky(canvas: _Canvas, horizon: float) -> None:
    rng, colour = canvas.rng, canvas.colour("sky")
    low = _shade(colour, rng.uniform(0.8, 1.5))
    canvas.strip(canvas.height, "sky", low)
    for band in range(10, 0, -1):
        blend = [a + (b - a) * band / 10 for a, b in zip(colour, low, strict=True)]
        canvas.strip(max(horizon, 0) * band / 10, None, _clip_colour(blend))
    if horizon < 60:
        return
    if rng.random() < 0.5:
        size = rng.uniform(28, 58)
        spot = (rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.15, 0.85) * horizon)
        _draw_sun(_Brush(canvas, spot, size, low))
    for _ in range(rng.choice((0, 1, 2, 3, 4), p=(0.25, 0.2, 0.25, 0.2, 0.1))):
        spot = (rng.uniform(0, 1) * canvas.width, rng.uniform(0.1, 0.8) * horizon)
        _draw_cloud(_Brush(canvas, spot, rng.uniform(45, 110), low))


def _paint_mountains(canvas: _Canvas, horizon: float) -> None:
    rng, foot = canvas.rng, horizon + 30
    for distance in range(rng.integers(1, 3)):
        colour = _shade(canvas.colour("ridge"), 1.15 - 0.2 * distance)
        for _ in range(rng.integers(1, 4)):
            x, high = rng.uniform(0, 1) * canvas.width, rng.uniform(60, 190) - 30 * distance
            brush = _Brush(canvas, (x, foot), high, colour)
            left, right = rng.uniform(0.8, 1.6), rng.uniform(0.8, 1.6)
            peak, knee = (0.0, 1 + 30 / high), (-left * 0.45, rng.uniform(0.45, 0.7))
            brush.polygon("ridge", [(-left, 0), knee, peak, (right, 0)], colour)
            shaded = [peak, (right * 0.2, 0.45), (right * 0.05, 0), (right, 0)]
            brush.polygon("ridge", shaded, _shade(colour, 0.8))


def _paint_grounds(canvas: _Canvas, horizon: float, water: bool) -> list[_Ground]:
    """One to three kinds of ground, from the horizon down to the bottom."""
    rng, names = canvas.rng, _choose_grounds(canvas.rng, water)
    room = canvas.height - max(horizon, 0)
    grounds: list[_Ground] = []
    for number, name in enumerate(names):
        level = horizon + room * number / len(names) * rng.uniform(0.75, 1.1)
        top = np.full(11, level, dtype=np.float64)
        if number or name != "waves":  # the sea is level at the horizon
            bumps = np.linspace(0, rng.uniform(2, 7), 11) + rng.uniform(0, 6)
            top += rng.uniform(2, 16) * np.sin(bumps)
        if number:
            top += rng.uniform(-0.15, 0.15) * room * np.linspace(-1, 1, 11)
        grounds.append(_Ground(name, top, canvas.colour(name)))
        canvas.slope(name, top, grounds[-1].colour, far=rng.uniform(0.85, 1.15))
    return grounds


def _choose_grounds(rng: np.random.Generator, water: bool) -> list[str]:
    count = int(rng.choice((1, 2, 3), p=(0.4, 0.42, 0.18)))
    kinds = rng.choice(_GROUND_KINDS, count, replace=False, p=(0.42, 0.14, 0.22, 0.22))
    names = [str(kind) for kind in kinds]
    if water and "waves" not in names:
        names[0] = "waves"
    if names == ["waves"]:  # the other things need land to stand on
        names.append(str(rng.choice(["grass", "sand", "snow"])))
    return names


def _paint_road(canvas: _Canvas, horizon: float) -> _Ground:
    """A road across the picture, or one that leads to the horizon."""
    colour, marking = canvas.colour("asphalt"), canvas.colour("marking")
    paint = _paint_road_across if canvas.rng.random() < 0.6 else _paint_road_away
    return paint(canvas, max(horizon, 0.0), colour, marking)


def _paint_road_across(canvas: _Canvas, start: float, colour: _Colour, marking: _Colour) -> _Ground:
    rng, right = canvas.rng, canvas.width
    middle = start + (canvas.height - start) * float(rng.uniform(0.45, 0.85))
    half, rise = float(rng.uniform(28, 60)), float(rng.uniform(-60, 60))
    left_y, right_y = middle - rise / 2, middle + rise / 2
    upper, lower = [(0.0, left_y - half), (right, right_y - half)], [(right, right_y + half)]
    canvas.polygon("asphalt", [*upper, *lower, (0.0, left_y + half)], colour)
    for x in np.arange(rng.uniform(-40, 0), right, 64).tolist():
        y0, y1 = (left_y + rise * end / right for end in (x, x + 34))
        dash = [(x, y0 - 3), (x + 34, y1 - 3), (x + 34, y1 + 3), (x, y0 + 3)]
        canvas.polygon("marking", dash, marking)
    edge = np.linspace(left_y, right_y, 11, dtype=np.float64)
    return _Ground("asphalt", edge, colour)


def _paint_road_away(canvas: _Canvas, start: float, colour: _Colour, marking: _Colour) -> _Ground:
    far, near = (canvas.width * float(canvas.rng.uniform(*ends)) for ends in _ROAD_ENDS)
    half_far, half_near = float(canvas.rng.uniform(8, 20)), float(canvas.rng.uniform(110, 200))
    length = canvas.height + 5 - start

    def across(t: float, half: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Left and right edge at `t`: 0 on the horizon, 1 at the bottom."""
        x, y = far + (near - far) * t, start + 8 + length * t
        return (x - half, y), (x + half, y)

    corners = [*across(0, half_far), *reversed(across(1, half_near))]
    canvas.polygon("asphalt", corners, colour)
    for dash in range(7):
        top, bottom = (((dash + part) / 7) ** 2 for part in (0.15, 0.65))
        corners = [*across(top, 8 * top), *reversed(across(bottom, 8 * bottom))]
        canvas.polygon("marking", corners, marking)
    return _Ground("asphalt", np.full(11, start + length * 0.75), colour)


def _place(
    canvas: _Canvas, things: list[str], grounds: list[_Ground]
) -> list[tuple[str, _Spot, _Ground]]:
    """Where each thing stands, from far to near."""
    placed = []
    for name in things:
        x = canvas.rng.uniform(0.02, 0.98) * canvas.width
        number = _choose_ground(name, grounds, canvas.rng)
        ground = grounds[number]
        upper = ground.edge(canvas, x)
        if ground.material == "asphalt":
            y = upper + canvas.rng.uniform(-6, 22)
        else:
            below = [g.edge(canvas, x) for g in grounds[number + 1 :] if g.material != "asphalt"]
            lower = min([canvas.height + 20, *below])
            y = upper + (lower - upper) * canvas.rng.uniform(0.15, 0.95)
        placed.append((name, (x, max(y, 60.0)), ground))
    return sorted(placed, key=lambda entry: entry[1][1])


def _choose_ground(name: str, grounds: list[_Ground], rng: np.random.Generator) -> int:
    """Boats go on water, cars on the road if there is one, the rest anywhere but on water."""
    materials = [ground.material for ground in grounds]
    number = int(rng.integers(len(grounds)))
    if name == "boat":
        return materials.index("waves")
    if name == "car" and materials[-1] == "asphalt":
        return len(grounds) - 1
    if materials[number] == "waves" and len(grounds) > 1:
        return number - 1 if number else 1
    return number
