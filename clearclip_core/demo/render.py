"""Compose and render drawn scenes with their ground truth.

`render_scene` draws a flat illustration of everyday things from a seed. Equal seeds and sizes give
equal images. Every pixel has one of the 18 `SCENE_LABELS`. Colours are random (grass may be
violet, snow may be pink), so that a label follows from shape and texture, not from colour or
height in the image. Small things are large enough to be found at a patch size of 16 px.

A `Canvas` paints each stroke twice at twice the final size: its colour into an RGB image, and its
*material* (bark, roof tiles, waves, ...) into an index image. The colours are averaged down, which
smooths the edges. The materials are sampled down; each names the label of a pixel and the texture
that is added to its colour.

Seeds from `HELD_OUT_SEEDS` are for measurements only. Training draws from the seeds below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearclip_core.demo.canvas import Brush, Canvas, Scene, SceneColour, clip_colour, shade
from clearclip_core.demo.objects import THINGS, draw_cloud, draw_sun
from clearclip_core.demo.textures import Spot
from clearclip_core.vocabulary import DEMO_WORDS

#: Seeds of scenes that are not used for training.
HELD_OUT_SEEDS: Final = range(10_000_000, 20_000_000)

#: Names of the labels, in the order of the values of a label map.
SCENE_LABELS: Final[tuple[str, ...]] = DEMO_WORDS

#: Other words for each label, which the demo model is trained on.
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


def render_scene(seed: int, size_hw: tuple[int, int] = (448, 597)) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative integer.
        size_hw: height and width in px; things grow with the short side.

    Returns:
        The scene. Equal arguments give equal scenes on every machine with the same Pillow.

    Raises:
        ValueError: the seed is negative, or a side is shorter than 16 px.

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
    canvas = Canvas(size_hw, np.random.default_rng(seed))
    _compose(canvas)
    return canvas.finish()


def _compose(canvas: Canvas) -> None:
    """Paint sky, mountains, grounds and things, from far to near."""
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
        draw, small, large, _ = THINGS[name]
        nearness = (spot[1] - max(horizon, 0)) / (canvas.height - max(horizon, 0))
        size = rng.uniform(small, large) * (0.72 + 0.45 * nearness)
        draw(Brush(canvas, spot, size, ground.colour))


def _choose_things(rng: np.random.Generator) -> list[str]:
    weights = np.array([weight for *_, weight in THINGS.values()])
    count = int(rng.integers(3, 8))
    return [str(name) for name in rng.choice(list(THINGS), count, p=weights / weights.sum())]


def _place(
    canvas: Canvas, things: list[str], grounds: list[GroundStrip]
) -> list[tuple[str, Spot, GroundStrip]]:
    """Choose a place and a ground for each thing, from far to near."""
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


def _choose_ground(name: str, grounds: list[GroundStrip], rng: np.random.Generator) -> int:
    """Choose an index in `grounds`: water for boats, the road for cars, land for other things."""
    materials = [ground.material for ground in grounds]
    number = int(rng.integers(len(grounds)))
    if name == "boat":
        return materials.index("waves")
    if name == "car" and materials[-1] == "asphalt":
        return len(grounds) - 1
    if materials[number] == "waves" and len(grounds) > 1:
        return number - 1 if number else 1
    return number


#: Ranges of the far and the near end of the road, in widths of the image.
_ROAD_ENDS: Final = ((0.2, 0.8), (0.15, 0.85))

_GROUND_KINDS: Final = ("grass", "waves", "sand", "snow")


@dataclass(frozen=True)
class GroundStrip:
    """A strip of ground, from its upper edge to the edge of the next strip or to the bottom."""

    material: str
    top: NDArray[np.float64]  # (11,) float64, y of the upper edge at each tenth of the width
    colour: SceneColour

    def edge(self, canvas: Canvas, x: float) -> float:
        return float(np.interp(x, np.linspace(0, canvas.width, len(self.top)), self.top))


def _paint_sky(canvas: Canvas, horizon: float) -> None:
    rng, colour = canvas.rng, canvas.colour("sky")
    low = shade(colour, rng.uniform(0.8, 1.5))
    canvas.strip(canvas.height, "sky", low)
    for band in range(10, 0, -1):
        blend = [a + (b - a) * band / 10 for a, b in zip(colour, low, strict=True)]
        canvas.strip(max(horizon, 0) * band / 10, None, clip_colour(blend))
    if horizon < 60:
        return
    if rng.random() < 0.5:
        size = rng.uniform(28, 58)
        spot = (rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.15, 0.85) * horizon)
        draw_sun(Brush(canvas, spot, size, low))
    for _ in range(rng.choice((0, 1, 2, 3, 4), p=(0.25, 0.2, 0.25, 0.2, 0.1))):
        spot = (rng.uniform(0, 1) * canvas.width, rng.uniform(0.1, 0.8) * horizon)
        draw_cloud(Brush(canvas, spot, rng.uniform(45, 110), low))


def _paint_mountains(canvas: Canvas, horizon: float) -> None:
    rng, foot = canvas.rng, horizon + 30
    for distance in range(rng.integers(1, 3)):
        colour = shade(canvas.colour("ridge"), 1.15 - 0.2 * distance)
        for _ in range(rng.integers(1, 4)):
            x, high = rng.uniform(0, 1) * canvas.width, rng.uniform(60, 190) - 30 * distance
            brush = Brush(canvas, (x, foot), high, colour)
            left, right = rng.uniform(0.8, 1.6), rng.uniform(0.8, 1.6)
            peak, knee = (0.0, 1 + 30 / high), (-left * 0.45, rng.uniform(0.45, 0.7))
            brush.polygon("ridge", [(-left, 0), knee, peak, (right, 0)], colour)
            shaded = [peak, (right * 0.2, 0.45), (right * 0.05, 0), (right, 0)]
            brush.polygon("ridge", shaded, shade(colour, 0.8))


def _paint_grounds(canvas: Canvas, horizon: float, water: bool) -> list[GroundStrip]:
    """Paint one to three kinds of ground, from the horizon down to the bottom."""
    rng, names = canvas.rng, _choose_ground_kinds(canvas.rng, water)
    room = canvas.height - max(horizon, 0)
    grounds: list[GroundStrip] = []
    for number, name in enumerate(names):
        level = horizon + room * number / len(names) * rng.uniform(0.75, 1.1)
        top = np.full(11, level, dtype=np.float64)
        if number or name != "waves":  # the sea is level at the horizon
            bumps = np.linspace(0, rng.uniform(2, 7), 11) + rng.uniform(0, 6)
            top += rng.uniform(2, 16) * np.sin(bumps)
        if number:
            top += rng.uniform(-0.15, 0.15) * room * np.linspace(-1, 1, 11)
        grounds.append(GroundStrip(name, top, canvas.colour(name)))
        canvas.slope(name, top, grounds[-1].colour, far=rng.uniform(0.85, 1.15))
    return grounds


def _choose_ground_kinds(rng: np.random.Generator, water: bool) -> list[str]:
    count = int(rng.choice((1, 2, 3), p=(0.4, 0.42, 0.18)))
    kinds = rng.choice(_GROUND_KINDS, count, replace=False, p=(0.42, 0.14, 0.22, 0.22))
    names = [str(kind) for kind in kinds]
    if water and "waves" not in names:
        names[0] = "waves"
    if names == ["waves"]:  # the other things need land to stand on
        names.append(str(rng.choice(["grass", "sand", "snow"])))
    return names


def _paint_road(canvas: Canvas, horizon: float) -> GroundStrip:
    """Paint a road across the image, or one that leads to the horizon."""
    colour, marking = canvas.colour("asphalt"), canvas.colour("marking")
    paint = _paint_road_across if canvas.rng.random() < 0.6 else _paint_road_away
    return paint(canvas, max(horizon, 0.0), colour, marking)


def _paint_road_across(
    canvas: Canvas, start: float, colour: SceneColour, marking: SceneColour
) -> GroundStrip:
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
    return GroundStrip("asphalt", edge, colour)


def _paint_road_away(
    canvas: Canvas, start: float, colour: SceneColour, marking: SceneColour
) -> GroundStrip:
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
    return GroundStrip("asphalt", np.full(11, start + length * 0.75), colour)
