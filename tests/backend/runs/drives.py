"""A stand-in for Label Studio with a project of drives: frames that are cut from drawn scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clearclip_core import HELD_OUT_SEEDS, RGBArray, render_scene
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.runs.scene_project import CONFIG

FRAMES = 4
WHOLE_HW, FRAME_HW = (225, 306), (224, 304)
SEEDS = HELD_OUT_SEEDS[61:68]


def frames(seed: int, count: int = FRAMES) -> Iterator[RGBArray]:
    """Cut frames from a scene, each a few pixels further on, and a little lighter or darker."""
    whole = render_scene(seed, WHOLE_HW).image
    rng = np.random.default_rng(seed)
    for step in np.linspace(0, 1, count):
        y, x = (int(step * (a - b)) for a, b in zip(WHOLE_HW, FRAME_HW, strict=True))
        frame = whole[y : y + FRAME_HW[0], x : x + FRAME_HW[1]] * rng.uniform(0.97, 1.03)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def drive_of(task: int) -> int:
    """Return which drive a task of `drive_studio` is a frame of, from 0."""
    return (task - 1) // FRAMES


def drive_studio(seeds: Sequence[int] = SEEDS) -> FakeStudio:
    """A project of drives, whose tasks count from 1: the frames of one follow each other."""
    tasks: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        for frame in frames(seed):
            tasks[len(tasks) + 1] = {"image": data_url(frame)}
    return FakeStudio(CONFIG, tasks)
