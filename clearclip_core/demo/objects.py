"""The things of a scene, each drawn in units of its height."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from clearclip_core.demo.canvas import Brush, SceneColour, shade
from clearclip_core.demo.textures import Spot


def _draw_tree(brush: Brush) -> None:
    bark, leaves = brush.colours("bark", "leaves")
    brush.shadow(0.32)
    trunk = brush.rng.uniform(0.05, 0.08)
    brush.trapezoid("bark", (trunk, 0), (trunk / 2, 0.55), bark)
    (_draw_conifer, _draw_poplar, _draw_crown)[brush.rng.integers(3)](brush, leaves)


def _draw_conifer(brush: Brush, leaves: SceneColour) -> None:
    for tier in range(3):
        half, base = 0.34 - 0.08 * tier, 0.18 + 0.24 * tier
        corners = [(-half, base), (0, base + 0.4), (half, base)]
        brush.polygon("leaves", corners, shade(leaves, 0.84 + 0.14 * tier))


def _draw_poplar(brush: Brush, leaves: SceneColour) -> None:
    brush.ellipse("leaves", (0, 0.58), (0.21, 0.42), leaves)
    brush.ellipse("leaves", (-0.06, 0.64), (0.11, 0.3), shade(leaves, 1.14))


def _draw_crown(brush: Brush, leaves: SceneColour) -> None:
    for turn in brush.rng.permutation(6):
        angle = turn * math.pi / 3 + brush.rng.uniform(-0.3, 0.3)
        centre = (0.21 * math.cos(angle), 0.68 + 0.16 * math.sin(angle))
        radius = brush.rng.uniform(0.15, 0.21)
        tone = shade(leaves, 0.96 + 0.12 * math.sin(angle))
        brush.ellipse("leaves", centre, (radius, radius), tone)
    brush.ellipse("leaves", (0, 0.68), (0.22, 0.19), leaves)


def _draw_house(brush: Brush) -> None:
    rng, (wall, roof, pane) = brush.rng, brush.colours("wall", "roof", "pane")
    half, eaves = rng.uniform(0.42, 0.72), rng.uniform(0.5, 0.62)
    brush.shadow(half * 1.15)
    if rng.random() < 0.6:
        chimney = half * rng.uniform(-0.6, 0.6)
        brush.box("wall", (chimney, eaves + 0.1), (0.05, 0.3), shade(wall, 0.8))
    brush.box("wall", (0, 0), (half, eaves), wall)
    ridge = half * rng.choice((0.0, 0.0, 0.55))
    brush.trapezoid("roof", (half * 1.14, eaves), (ridge, 1), roof)
    door = half * rng.uniform(-0.25, 0.25)
    brush.box("pane", (door, 0), (0.075, 0.27), brush.canvas.colour("bark"))
    for side in (-1, 1):
        window = door / 2 + side * half * 0.58
        brush.box("pane", (window, 0.18), (0.1, 0.21), shade(wall, 1.5))
        brush.box("pane", (window, 0.2), (0.08, 0.17), pane)
        brush.box("pane", (window, 0.2), (0.008, 0.17), shade(wall, 1.5))


def _draw_car(brush: Brush) -> None:
    paint, glass, rubber = brush.colours("bodywork", "pane", "tyre")
    brush = brush.turned()
    rear = -1.05 if brush.rng.random() < 0.35 else -0.72  # a van or not
    brush.shadow(1.3)
    cabin = [(rear, 0.5), (rear + 0.16, 1.0), (0.28, 1.0), (0.62, 0.5)]
    windows = [(rear + 0.14, 0.56), (rear + 0.25, 0.9), (0.24, 0.9), (0.48, 0.56)]
    brush.polygon("bodywork", cabin, shade(paint, 0.93))
    brush.polygon("bodywork", windows, glass)
    brush.box("bodywork", (-0.2, 0.5), (0.04, 0.45), paint)
    body = [(-1.18, 0.16), (-1.2, 0.44), (-1.08, 0.56), (0.6, 0.56)]
    body += [(1.1, 0.46), (1.22, 0.34), (1.2, 0.16)]
    brush.polygon("bodywork", body, paint)
    sill = [(-1.19, 0.16), (-1.19, 0.26), (1.21, 0.26), (1.2, 0.16)]
    brush.polygon("bodywork", sill, shade(paint, 0.75))
    brush.ellipse("bodywork", (1.13, 0.4), (0.06, 0.06), (255, 240, 180))
    brush.ellipse("bodywork", (-1.15, 0.42), (0.05, 0.06), (210, 60, 50))
    for wheel in (-0.68, 0.7):
        brush.ellipse("tyre", (wheel, 0.2), (0.25, 0.25), rubber)
        brush.ellipse("tyre", (wheel, 0.2), (0.12, 0.12), (206, 208, 212))


def _draw_boat(brush: Brush) -> None:
    hull, sail = brush.colours("hull", "sail")
    brush = brush.turned()
    spot, radii = brush.spot, (brush.size * 0.62, brush.size * 0.06)
    brush.canvas.ellipse(None, spot, radii, shade(brush.ground, 0.8))
    if brush.rng.random() < 0.65:
        brush.box("hull", (0, 0.2), (0.02, 0.8), shade(hull, 0.6))
        brush.polygon("sail", [(-0.05, 0.28), (-0.03, 0.98), (-0.5, 0.32)], sail)
        brush.polygon("sail", [(0.04, 0.26), (0.03, 0.9), (0.46, 0.28)], shade(sail, 0.88))
    else:  # a motor boat
        brush.polygon("hull", [(-0.4, 0.2), (-0.36, 0.46), (0.12, 0.46), (0.22, 0.2)], sail)
        for across in (-0.22, 0.0):
            brush.ellipse("sail", (across, 0.34), (0.05, 0.05), brush.canvas.colour("pane"))
        brush.box("hull", (-0.2, 0.46), (0.06, 0.2), shade(hull, 0.7))
    brush.polygon("hull", [(-0.54, 0.24), (-0.44, -0.03), (0.42, -0.03), (0.64, 0.26)], hull)
    rim = [(-0.54, 0.24), (-0.52, 0.18), (0.59, 0.19), (0.64, 0.26)]
    brush.polygon("hull", rim, shade(hull, 1.35))


def _draw_person(brush: Brush) -> None:
    skin, top, bottom, hair = brush.colours("skin", "cloth", "cloth", "fur")
    brush.shadow(0.2)
    stride, swing = brush.rng.uniform(0.03, 0.11), brush.rng.uniform(0.02, 0.14)
    for side in (-1, 1):
        foot = side * stride
        brush.limb("cloth", [(side * 0.05, 0.46), (foot, 0.03)], 0.095, bottom)
        brush.limb("cloth", [(foot, 0.03), (foot + 0.04, 0.03)], 0.06, shade(bottom, 0.5))
    if brush.rng.random() < 0.4:  # a skirt
        brush.trapezoid("cloth", (0.19, 0.22), (0.09, 0.52), bottom)
    raised = brush.rng.random() < 0.3
    for side in (-1, 1):
        hand = (side * (0.14 + swing), 0.96 if raised and side == 1 else 0.49)
        brush.limb("cloth", [(side * 0.11, 0.73), hand], 0.075, shade(top, 0.86))
        brush.ellipse("skin", hand, (0.04, 0.04), skin)
    brush.trapezoid("cloth", (0.11, 0.43), (0.14, 0.77), top)
    _draw_head(brush, skin, hair)


def _draw_head(brush: Brush, skin: SceneColour, hair: SceneColour) -> None:
    brush.limb("skin", [(0, 0.76), (0, 0.81)], 0.07, shade(skin, 0.88))
    brush.ellipse("skin", (0, 0.91), (0.098, 0.1), hair)
    if brush.rng.random() < 0.45:  # long hair
        brush.trapezoid("skin", (0.12, 0.72), (0.09, 0.885), hair)
    brush.ellipse("skin", (0, 0.873), (0.078, 0.088), skin)
    for side in (-1, 1):
        brush.ellipse("skin", (side * 0.03, 0.885), (0.01, 0.012), (50, 40, 44))


def _draw_dog(brush: Brush) -> None:
    coat = brush.canvas.colour("fur")
    patch = shade(coat, brush.rng.choice((0.6, 0.75, 1.5)))
    nose = brush.canvas.colour("nose")
    brush = brush.turned()
    brush.shadow(0.65)
    brush.limb("fur", [(-0.5, 0.6), (-0.72, brush.rng.uniform(0.6, 0.95))], 0.1, coat)
    for leg, tone in ((-0.38, 0.82), (0.36, 0.82), (-0.5, 1.0), (0.24, 1.0)):
        brush.limb("fur", [(leg, 0.45), (leg + 0.02, 0.06)], 0.14, shade(coat, tone))
    brush.limb("fur", [(-0.38, 0.52), (0.32, 0.55)], 0.38, coat)
    brush.limb("fur", [(0.34, 0.6), (0.5, 0.85)], 0.28, coat)
    brush.ellipse("fur", (0.56, 0.9), (0.22, 0.2), coat)
    brush.limb("fur", [(0.62, 0.85), (0.84, 0.82)], 0.18, shade(coat, 1.2))
    brush.ellipse("nose", (0.93, 0.86), (0.06, 0.05), nose)
    brush.ellipse("nose", (0.64, 0.96), (0.032, 0.036), nose)
    brush.limb("fur", [(0.46, 0.98), (0.38, 0.72)], 0.14, patch)
    if brush.rng.random() < 0.4:
        brush.ellipse("fur", (-0.1, 0.58), (0.18, 0.12), patch)
    brush.limb("nose", [(0.34, 0.72), (0.5, 0.66)], 0.07, brush.canvas.colour("bodywork"))


def _draw_flowers(brush: Brush) -> None:
    rng, (petal, heart, stem) = brush.rng, brush.colours("petal", "petal", "stem")
    draw_head = _draw_tulip if rng.random() < 0.35 else _draw_daisy
    for number in range(rng.integers(1, 5)):
        tall = rng.uniform(0.75, 1.05)
        foot = (number * 0.46, rng.uniform(-0.1, 0.1))
        head = (foot[0] + rng.uniform(-0.1, 0.1), foot[1] + tall)
        brush.limb("stem", [foot, head], 0.06, stem)
        for side in (-1, 1):
            tip, fork = (foot[0] + side * 0.2, foot[1] + 0.36), (foot[0], foot[1] + 0.16)
            brush.polygon("stem", [foot, tip, fork], shade(stem, 1 + 0.12 * side))
        draw_head(brush, head, rng.uniform(0.26, 0.34), petal, heart)


def _draw_daisy(
    brush: Brush, head: Spot, size: float, petal: SceneColour, heart: SceneColour
) -> None:
    count = int(brush.rng.integers(5, 9))
    for number in range(count):
        angle, reach = 2 * math.pi * number / count - 0.3, size * 0.6
        centre = (head[0] + reach * math.cos(angle), head[1] + reach * math.sin(angle))
        tone = shade(petal, 0.92 if number % 2 else 1.08)
        brush.ellipse("petal", centre, (size * 0.4, size * 0.4), tone)
    brush.ellipse("petal", head, (size * 0.36, size * 0.36), heart)


def _draw_tulip(
    brush: Brush, head: Spot, size: float, petal: SceneColour, heart: SceneColour
) -> None:
    x, y = head
    wide, high = size * 0.8, size * 1.1
    half = [(0.0, 1.15), (0.5, 0.3), (1.0, 1.0), (0.9, 0.0), (0.45, -0.5)]  # of the cup
    cup = [*half, *((-across, up) for across, up in reversed(half))]
    brush.polygon("petal", [(x + across * wide, y + up * high) for across, up in cup], petal)
    radii = (wide * 0.45, high * 0.55)
    brush.ellipse("petal", (x, y + high * 0.1), radii, shade(petal, 1.2))


def _draw_fence(brush: Brush) -> None:
    rng, paint = brush.rng, brush.canvas.colour("picket")
    left, right = -rng.uniform(0.8, 2.2), rng.uniform(0.8, 2.2)
    board, gap = rng.uniform(0.14, 0.2), rng.uniform(0.04, 0.07)
    for up in (0.3, 0.7):
        brush.limb("picket", [(left, up), (right, up)], 0.1, shade(paint, 0.75))
    tip = (board / 2, 1 + rng.choice((0.0, 0.12)))
    outline = [(0.0, 0.0), (0.0, 1.0), tip, (board, 1.0), (board, 0.0)]
    for x in np.arange(left, right, board + gap).tolist():
        corners = [(x + across, up) for across, up in outline]
        brush.polygon("picket", corners, shade(paint, rng.uniform(0.9, 1.1)))


def _draw_rocks(brush: Brush) -> None:
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
        brush.polygon("stone", [right, *rim[:3], inner, (x, 0.0)], shade(grey, 0.78))


def draw_sun(brush: Brush) -> None:
    colour = brush.canvas.colour("sun")
    if brush.rng.random() < 0.5:
        for number in range(12):
            angle = number * math.pi / 6
            beam = [(1.7, angle), (1.02, angle - 0.2), (1.02, angle + 0.2)]
            corners = [(reach * math.cos(turn), reach * math.sin(turn)) for reach, turn in beam]
            brush.polygon("sun", corners, shade(colour, 0.96))
    brush.ellipse("sun", (0, 0), (1, 1), colour)
    brush.ellipse("sun", (0, 0), (0.8, 0.8), shade(colour, 1.2))


def draw_cloud(brush: Brush) -> None:
    colour = brush.canvas.colour("cloud")
    puffs = [(0.56 - 0.28 * abs(x), x) for x in (-0.9, -0.45, 0.0, 0.45, 0.9)]
    radii = [(radius * brush.rng.uniform(0.75, 1.2), x) for radius, x in puffs]
    for lift, tone in ((0.0, 0.9), (0.12, 1.0)):  # the underside, then the cloud
        for radius, x in radii:
            centre = (x, lift + radius * 0.45)
            brush.ellipse("cloud", centre, (radius * 1.1, radius), shade(colour, tone))
        brush.ellipse("cloud", (0, lift - 0.08), (1.25, 0.2), shade(colour, tone))


#: Label -> (function that draws the thing, smallest and largest height in points, frequency).
THINGS: Final[dict[str, tuple[Callable[[Brush], None], float, float, float]]] = {
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
