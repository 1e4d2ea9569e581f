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

import numpy as np

from clearclip_core.demo.scenes.canvas import Brush, Canvas
from clearclip_core.demo.scenes.ground import (
    GroundStrip,
    paint_grounds,
    paint_mountains,
    paint_road,
    paint_sky,
)
from clearclip_core.demo.scenes.objects import THINGS
from clearclip_core.demo.scenes.scene import Scene
from clearclip_core.demo.scenes.textures import Spot


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
        >>> from clearclip_core.demo.scenes.scene import SCENE_LABELS
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
    paint_sky(canvas, horizon)
    if rng.random() < 0.5:
        paint_mountains(canvas, horizon)
    grounds = paint_grounds(canvas, horizon, water="boat" in things)
    if rng.random() < (0.75 if "car" in things else 0.22):
        grounds.append(paint_road(canvas, horizon))
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
