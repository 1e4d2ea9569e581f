"""The things of a scene: each stands on its foot, in its size and with its label."""

import numpy as np
import pytest
from numpy.typing import NDArray

from clearclip_core import SCENE_LABELS
from clearclip_core.demo.canvas import Brush, Canvas
from clearclip_core.demo.objects import THINGS, draw_cloud, draw_sun

GREY = (100, 100, 100)


def drawn_by(label: str, seed: int) -> NDArray[np.bool_]:
    """Draw a thing of 200 points on a foot at 320 of 448 points; return its mask, 2 points a px."""
    canvas = Canvas((224, 224), np.random.default_rng(seed))
    canvas.strip(448, "snow", GREY)
    draw = {"sun": draw_sun, "cloud": draw_cloud}.get(label) or THINGS[label][0]
    draw(Brush(canvas, (224, 320), 200, GREY))
    return canvas.finish().label_map == SCENE_LABELS.index(label)


@pytest.mark.parametrize("label", THINGS)
def test_a_thing_stands_on_its_foot_in_its_size(label: str) -> None:
    for seed in range(8):
        rows = np.flatnonzero(drawn_by(label, seed).any(axis=1))
        assert rows[-1] == pytest.approx(160, abs=12)
        assert 15 <= rows[0] <= 110, "from half of its height to half more"


@pytest.mark.parametrize("label", [*THINGS, "sun", "cloud"])
def test_a_thing_looks_different_each_time(label: str) -> None:
    assert len({drawn_by(label, seed).tobytes() for seed in range(6)}) > 1


def test_no_two_seeds_are_needed_to_draw_the_same() -> None:
    assert np.array_equal(drawn_by("dog", 3), drawn_by("dog", 3))
