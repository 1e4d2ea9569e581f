"""A stand-in for Label Studio with a project of drawn scenes, some of them annotated."""

from typing import Any

from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, render_scene
from clearclip_core.demo.canvas import Scene
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
    return [brush_region(m, k, id=k, to_name="image") for k, m in masks.items() if m.any()]


def scene_studio(annotated: int) -> FakeStudio:
    """A project of four scenes and a task without a picture; the first so many are annotated."""
    tasks: dict[int, dict[str, Any]] = {9: {"image": "data:,"}}
    for task, scene in enumerate(scenes(), 1):
        tasks[task] = {"image": data_url(scene.image)}
    studio = FakeStudio(CONFIG, tasks)
    for task, scene in list(enumerate(scenes(), 1))[:annotated]:
        studio.annotate(task, painted(scene))
    return studio
