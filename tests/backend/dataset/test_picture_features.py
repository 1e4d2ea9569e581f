"""Near-duplicates by the demo model's features."""

from __future__ import annotations

import numpy as np

from backend.dataset.splits import describe_picture
from backend.inference.engine import Engine
from backend.settings import Settings
from clearclip_core import render_scene


def test_a_brightened_scene_is_nearer_than_another_scene() -> None:
    scenes = [render_scene(10_000_400 + n).image for n in range(3)]
    brighter = np.clip(scenes[0].astype(np.int16) + 6, 0, 255).astype(np.uint8)
    with Engine.from_settings(Settings(model="demo")) as engine:
        found = [describe_picture(engine, each) for each in (*scenes, brighter)]
    vectors = [np.frombuffer(each, np.float16).astype(np.float64) for each in found]
    assert np.allclose([each @ each for each in vectors], 1, atol=1e-3)
    assert vectors[0] @ vectors[3] > 0.98
    assert max(vectors[0] @ vectors[1], vectors[0] @ vectors[2]) < 0.98
