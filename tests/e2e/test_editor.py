"""What an annotator sees and does, in Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Page

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import (
    Canvas,
    erase_a_little,
    keep_editor_picture,
    open_task,
    settled,
    submit,
    switch,
)
from tests.e2e.masks import Mask, decode, iou, labelled, masks_of, scene_seed
from tests.e2e.servers import sdk

REGIONS = "Htx.annotationStore.selected.regions"


@pytest.fixture(autouse=True)
def _backend(backend_url: str) -> None:
    """Serve the backend, which Label Studio calls whenever a task is opened."""


def task_of(
    studio: LabelStudioProcess, project: int, index: int
) -> tuple[int, npt.NDArray[np.int64]]:
    task = sorted(sdk(studio).tasks.list(project=project), key=lambda task: task.id)[index]
    return task.id, render_scene(scene_seed(task.data["image"])).label_map


def prediction_of(studio: LabelStudioProcess, task: int) -> dict[str, Mask]:
    (prediction,) = sdk(studio).predictions.list(task=task)
    return masks_of(prediction.result)


def test_masks_are_seen_where_they_belong(
    page: Page, studio: LabelStudioProcess, demo_project: int
) -> None:
    task, truth = task_of(studio, demo_project, 0)
    predicted = prediction_of(studio, task)
    open_task(page, studio, demo_project, task)
    page.click("[aria-label=move-tool]")  # the brush's slider lies over the picture
    canvas = Canvas(page, truth.shape)
    labels = page.evaluate(f"{REGIONS}.map(region => region.labels[0])")
    assert sorted(labels) == sorted(predicted)

    page.evaluate(f"{REGIONS}.forEach(region => region.toggleHidden())")
    bare, in_sight = canvas.read_pixels()
    assert in_sight.mean() > 0.8
    seen_against_truth = []
    for index, label in enumerate(labels):
        true = truth == SCENE_LABELS.index(label)
        if true.mean() < 0.05:
            continue
        page.evaluate(f"{REGIONS}[{index}].toggleHidden()")
        seen = np.abs(canvas.read_pixels()[0] - bare).sum(axis=2) > 20
        page.evaluate(f"{REGIONS}[{index}].toggleHidden()")
        assert iou(seen & in_sight, predicted[label] & in_sight) > 0.9, label
        seen_against_truth.append(iou(seen & in_sight, true & in_sight))
    assert len(seen_against_truth) >= 3
    assert np.mean(seen_against_truth) > 0.6


def test_a_corrected_mask_is_stored_as_changed(
    page: Page, studio: LabelStudioProcess, demo_project: int
) -> None:
    task, _ = task_of(studio, demo_project, 4)
    predicted = prediction_of(studio, task)
    open_task(page, studio, demo_project, task)
    label = max(predicted, key=lambda label: predicted[label].sum())
    row, column = erase_a_little(page, label, predicted[label])
    submit(page, task)

    (annotation,) = sdk(studio).annotations.list(id=task)
    regions = dict(labelled(annotation.result))
    assert regions.keys() == predicted.keys()
    assert {name: region["origin"] for name, region in regions.items()} == {
        name: "prediction-changed" if name == label else "prediction" for name in predicted
    }
    for name in predicted.keys() - {label}:
        assert (decode(regions[name]) == predicted[name]).all()
    erased = predicted[label] & ~decode(regions[label])
    assert erased[row, column]
    rows, columns = np.nonzero(erased)
    far = np.hypot(rows - row, columns - column) > 60
    assert far.mean() < 0.02, "something else went with it"


@pytest.mark.thorough
def test_the_readmes_picture(
    page: Page, studio: LabelStudioProcess, demo_project: int, tmp_path: Path
) -> None:
    """Take the picture of the docs; it is kept on request only, so that tests change no file."""
    task, _ = task_of(studio, demo_project, 1)
    open_task(page, studio, demo_project, task)
    page.click("[aria-label=move-tool]")
    page.mouse.move(0, 0)  # away from the tool, whose tip would stay
    keep_editor_picture(page, "editor.png", tmp_path)


#: `<Labels>` with a `<Brush>`.
CONFIG = """<View>
<Image name="image" value="$image"/>
<Labels name="kind" toName="image"><Label value="sky" alias="s"/><Label value="grass"/></Labels>
<Brush name="brush" toName="image"/><Polygon name="outline" toName="image"/>
<KeyPoint name="click" toName="image" smart="true"/>
</View>"""
ASKED = "/interactive-annotating"


@pytest.fixture
def project(studio: LabelStudioProcess, backend_url: str) -> Iterator[int]:
    made = sdk(studio).projects.create(title="Labels with tools", label_config=CONFIG)
    demo.connect(studio, int(made.id), backend_url)
    yield int(made.id)
    sdk(studio).projects.delete(id=int(made.id))


def click_and_accept(page: Page, label: str, down: float) -> list[dict[str, Any]]:
    """Click with a label in the middle of the picture, so far down; accept what is answered."""
    suggestions = "Htx.annotationStore.selected.suggestions.size"
    page.locator(".lsf-tool_smart").first.hover()
    page.locator(".lsf-tool_smart[aria-label=key-point-tool]").last.click()
    page.locator(".lsf-label").filter(has_text=label).last.click()
    box: Any = page.locator(".konvajs-content").bounding_box()
    with page.expect_response(lambda each: each.url.endswith(ASKED)) as answer:
        page.keyboard.down("Control")  # a region covers the spot
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * down)
        page.keyboard.up("Control")
    page.wait_for_function(f"{suggestions} === 1")
    page.click("[data-testid=bottombar-accept-suggestions-button]")
    page.wait_for_function(f"{suggestions} === 0")
    result: list[dict[str, Any]] = answer.value.json()["data"]["result"]
    return result


RULE = """<View>
<Image name="image" value="$image"/>
<PolygonLabels name="hand" toName="image" prelabel="no">
  <Label value="sky"/><Label value="grass"/></PolygonLabels>
<BrushLabels name="mask" toName="image"><Label value="sky"/></BrushLabels>
<RectangleLabels name="box" toName="image"><Label value="sky"/></RectangleLabels>
<KeyPointLabels name="click" toName="image" smart="true" smartOnly="true">
  <Label value="sky"/><Label value="grass"/></KeyPointLabels>
</View>"""


def test_a_click_is_answered_by_one_control_and_a_control_for_hand_only_by_none(
    page: Page, studio: LabelStudioProcess, project: int
) -> None:
    """The brush comes before the box; the polygon answers for the label that only it has."""
    sdk(studio).projects.update(id=project, label_config=RULE)
    demo.upload(studio, project, [demo.scene_file(702)])
    (task,) = sdk(studio).tasks.list(project=project)
    open_task(page, studio, project, task.id)
    shown = page.evaluate(f"{REGIONS}.map(r => r.type)")
    assert "polygonregion" not in shown
    switch(page, "auto-annotation", True)
    settled(page)
    try:
        for label, down, kind in (("sky", 1 / 8, "brushlabels"), ("grass", 7 / 8, "polygonlabels")):
            found = click_and_accept(page, label, down)
            assert {each["type"] for each in found} == {kind}, label
    finally:
        switch(page, "auto-annotation", False)
