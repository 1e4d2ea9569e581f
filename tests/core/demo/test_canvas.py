"""The canvas: colours, areas against their formulas, and what a brush mirrors."""

import math

import numpy as np
import pytest

from clearclip_core import SCENE_LABELS
from clearclip_core.demo.canvas import Brush, Canvas, clip_colour, shade

SKY, SUN = SCENE_LABELS.index("sky"), SCENE_LABELS.index("sun")
GREY = (100, 100, 100)


@pytest.fixture
def canvas() -> Canvas:
    """A canvas of 448 x 448 points at half a pixel a point, all sky."""
    canvas = Canvas((224, 224), np.random.default_rng(1))
    canvas.strip(448, "sky", GREY)
    return canvas


def test_a_colour_is_rounded_and_kept_in_its_range() -> None:
    assert clip_colour([-3, 99.6, 300]) == (0, 100, 255)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(0.5, (50, 100, 20)), (1, (100, 200, 40)), (1.5, (178, 228, 148)), (2, (255, 255, 255))],
)
def test_a_shade_is_between_black_and_white(factor: float, expected: tuple[int, int, int]) -> None:
    assert shade((100, 200, 40), factor) == expected


def test_an_ellipse_has_its_area(canvas: Canvas) -> None:
    canvas.ellipse("sun", (224, 224), (150, 80), GREY)
    area_px = (canvas.finish().label_map == SUN).sum()
    assert area_px == pytest.approx(math.pi * 150 * 80 / 4, rel=0.02)


def test_a_limb_has_round_ends(canvas: Canvas) -> None:
    canvas.limb("sun", [(100, 224), (300, 224)], 40, GREY)
    area_px = (canvas.finish().label_map == SUN).sum()
    assert area_px == pytest.approx((200 * 40 + math.pi * 20**2) / 4, rel=0.03)


def test_a_shadow_changes_colours_and_no_label(canvas: Canvas) -> None:
    canvas.ellipse(None, (224, 224), (150, 80), (0, 0, 0))
    scene = canvas.finish()
    assert (scene.label_map == SKY).all()
    assert scene.image[112, 112].max() < 30 < scene.image[2, 2].min()


def test_a_slope_fills_what_is_below_its_curve(canvas: Canvas) -> None:
    canvas.slope("sun", np.array([112.0, 336.0]), GREY, far=0.8)
    below = canvas.finish().label_map == SUN
    assert below[:, 0].sum() == pytest.approx(168, abs=2)
    assert below[:, -1].sum() == pytest.approx(56, abs=2)


def test_a_brush_draws_in_units_of_its_height_and_mirrors() -> None:
    sides = []
    for facing in (1, -1):
        canvas = Canvas((224, 224), np.random.default_rng(1))
        canvas.strip(448, "sky", GREY)
        brush = Brush(canvas, (224, 400), 200, GREY, facing)
        brush.polygon("sun", [(0, 0), (1, 0), (0, 1)], GREY)
        drawn = canvas.finish().label_map == SUN
        rows = np.flatnonzero(drawn.any(axis=1))
        assert (rows[0], rows[-1]) == pytest.approx((100, 200), abs=1)
        sides.append((drawn[:, :110].sum(), drawn[:, 114:].sum()))
    assert sides[0][0] == sides[1][1] == 0
    assert sides[0][1] == pytest.approx(sides[1][0], rel=0.05)
