"""Materials of a scene, and the tileable grey-level texture of each."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clearclip_core.vocabulary import DEMO_WORDS

TILE = 256  # side of a texture tile, in points
SHADES = 3  # number of versions of each texture: fine, middle, coarse

#: Material -> (label, texture, strength of the texture in grey levels).
MATERIALS: Final[dict[str, tuple[str, str, float]]] = {
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

#: Material -> its value in an index image.
MATERIAL_INDEX: Final = {name: index for index, name in enumerate(MATERIALS)}

#: (materials,) int64, label index of each material.
LABEL_OF_MATERIAL: Final = np.array(
    [DEMO_WORDS.index(label) for label, _, _ in MATERIALS.values()], dtype=np.int64
)

Spot = tuple[float, float]  # (x, y), in points or in units of a thing

Points = Sequence[Spot]

_Pattern = NDArray[np.float64]  # (TILE, TILE) float64 grey levels in about [-1, 1]


class _Mark(NamedTuple):
    """One mark of a texture: its place and size in px, and its grey level."""

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


#: Texture -> (function that draws a mark, distance of marks in points, across and down).
_MARKS: Final[dict[str, tuple[Callable[[_Mark], None], float, float]]] = {
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
    """Draw one kind of mark on a jittered grid; the pattern wraps around at the borders."""
    big = Image.new("L", (TILE * 2, TILE * 2), 128)
    draw = ImageDraw.Draw(big)
    draw_mark, *pitch_xy = _MARKS[name]
    columns, rows = (max(2, round(TILE / (pitch * scale))) for pitch in pitch_xy)
    step_x, step_y = TILE / columns, TILE / rows
    for row, column in np.ndindex(rows, columns):
        x = (column + 0.5 * (row % 2) + rng.uniform(-0.3, 0.3)) * step_x
        y = (row + rng.uniform(-0.3, 0.3)) * step_y
        tone = int(rng.choice((20, 60, 200, 236)))
        state = rng.bit_generator.state
        for down, right in itertools.product((-TILE, 0, TILE), repeat=2):
            rng.bit_generator.state = state  # the same mark again beyond each border
            draw_mark(_Mark(draw, (x + right) * 2, (y + down) * 2, step_x * 2, tone, rng))
    return np.asarray(big.reduce(2), dtype=np.float64) / 127.5 - 1.0


def _grain(rng: np.random.Generator) -> _Pattern:
    return rng.normal(0.0, 0.35, (TILE, TILE))


def _cells(pitch: float, rng: np.random.Generator) -> _Pattern:
    """Draw facets with dark cracks between them: Voronoi cells that wrap around."""
    count = round((TILE / pitch) ** 2)
    centres = rng.uniform(0, TILE, (count, 2))
    tones = rng.uniform(-0.5, 0.6, count)
    grid = np.arange(TILE)
    nearest = np.full((2, TILE, TILE), np.inf)
    owner = np.zeros((TILE, TILE), dtype=np.int64)
    for index, (y, x) in enumerate(centres):
        rise = (grid[:, None] - y + TILE / 2) % TILE - TILE / 2
        run = (grid[None, :] - x + TILE / 2) % TILE - TILE / 2
        distance = np.hypot(rise, run)
        closer = distance < nearest[0]
        nearest[1] = np.where(closer, nearest[0], np.minimum(nearest[1], distance))
        nearest[0] = np.where(closer, distance, nearest[0])
        owner[closer] = index
    return np.where(nearest[1] - nearest[0] < 1.6, -1.0, tones[owner])


def _masonry(pitch_xy: Spot, rng: np.random.Generator, rounded: bool) -> _Pattern:
    """Draw bricks with joints, or rows of rounded roof tiles."""
    columns, rows = (max(2, 2 * round(TILE / pitch / 2)) for pitch in pitch_xy)
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float64)
    row = np.floor(y * rows / TILE)
    across = x * columns / TILE + 0.5 * (row % 2)
    down = y * rows / TILE - row
    tones = rng.uniform(-0.35, 0.55, (rows, columns))
    tone = tones[row.astype(np.int64), np.floor(across).astype(np.int64) % columns]
    across = across - np.floor(across)
    if rounded:
        return np.where(down > 0.55 + 0.4 * np.sin(np.pi * across), -1.0, tone)
    return np.where((across < 0.10) | (down < 0.18), -1.0, tone)


def _stripes(pitch: float, rng: np.random.Generator, upright: bool) -> _Pattern:
    """Draw boards of different tones with dark gaps."""
    count = max(2, round(TILE / pitch))
    position = np.arange(TILE) * count / TILE
    tone = rng.uniform(-0.4, 0.6, count)[position.astype(np.int64)]
    row = np.where(position % 1.0 < 0.14, -1.0, tone)
    return np.tile(row, (TILE, 1)) if upright else np.tile(row[:, None], (1, TILE))


def _texture(name: str, scale: float, rng: np.random.Generator) -> _Pattern:
    """Return the pattern of a texture; `scale` stretches its marks."""
    match name:
        case "plain":
            return _grain(rng)
        case "speckle":
            return np.sign(_grain(rng)) * rng.uniform(0.2, 1.0, (TILE, TILE))
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
def texture_bank() -> NDArray[np.int16]:
    """Return (shades x materials, TILE * TILE) int16 grey levels, drawn once a process."""
    rng = np.random.default_rng(18)
    bank = np.empty((SHADES, len(MATERIALS), TILE, TILE))
    for shade, scale in enumerate((0.8, 1.1, 1.5)):
        for material, (_, name, strength) in enumerate(MATERIALS.values()):
            pattern = _texture(name, scale, rng)
            bank[shade, material] = (pattern - pattern.mean()).clip(-1.2, 1.2) * strength
    return bank.reshape(SHADES * len(MATERIALS), TILE * TILE).astype(np.int16)
