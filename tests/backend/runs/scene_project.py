"""A stand-in for Label Studio with a project of drawn scenes, some of them annotated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, RGBArray, Scene, render_scene
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import FakeStudio

LABELS = ("sky", "grass", "tree", "house")
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
    + "".join(f'<Label value="{name}"/>' for name in LABELS)
    + "</BrushLabels></View>"
)
MODEL = ("--model=demo", "--device=cpu", "--precision=fp32", "--short-side-px=224")
SIZE_HW = (96, 128)
SEEDS = HELD_OUT_SEEDS[40:44]


def scenes() -> list[Scene]:
    return [render_scene(seed, SIZE_HW) for seed in SEEDS]


def painted(scene: Scene) -> list[dict[str, Any]]:
    """The labels of a scene as brush regions."""
    masks = {name: scene.label_map == SCENE_LABELS.index(name) for name in LABELS}
    return [
        brush_region(mask, name, id=name, to_name="image")
        for name, mask in masks.items()
        if mask.any()
    ]


def scene_studio(annotated: int) -> FakeStudio:
    """A project of four scenes and a task without a picture; the first so many are annotated."""
    tasks: dict[int, dict[str, Any]] = {9: {"image": "data:,"}}
    for task, scene in enumerate(scenes(), 1):
        tasks[task] = {"image": data_url(scene.image)}
    studio = FakeStudio(CONFIG, tasks)
    for task, scene in list(enumerate(scenes(), 1))[:annotated]:
        studio.annotate(task, painted(scene))
    return studio


FRAMES = 4
WHOLE_HW, FRAME_HW = (225, 306), (224, 304)
DRIVE_SEEDS = HELD_OUT_SEEDS[61:68]


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


def drive_studio(seeds: Sequence[int] = DRIVE_SEEDS) -> FakeStudio:
    """A project of drives, whose tasks count from 1: the frames of one follow each other."""
    tasks: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        for frame in frames(seed):
            tasks[len(tasks) + 1] = {"image": data_url(frame)}
    return FakeStudio(CONFIG, tasks)
