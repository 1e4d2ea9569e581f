"""``<Labels>`` with a ``<Brush>`` in the real editor: shown, asked for, submitted and reported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Page

from backend.cli import demo_scenes, label_studio_project
from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.editor import open_task, settled

pytestmark = pytest.mark.timeout(300)

CONFIG = """<View>
<Image name="image" value="$image"/>
<Labels name="kind" toName="image"><Label value="sky" alias="s"/><Label value="grass"/></Labels>
<Brush name="brush" toName="image"/><Polygon name="outline" toName="image"/>
<KeyPoint name="click" toName="image" smart="true"/>
</View>"""
REGIONS = "Htx.annotationStore.selected.regions"


@pytest.fixture
def project(studio: LabelStudioProcess, backend_url: str) -> Iterator[int]:
    made = studio.client.projects.create(title="Labels with tools", label_config=CONFIG)
    label_studio_project.connect(studio, int(made.id), backend_url)
    yield int(made.id)
    studio.client.projects.delete(id=int(made.id))


def report(backend_url: str, project: int) -> dict[str, Any]:
    """Wait until the report has compared an annotation, and return its figures."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = requests.get(f"{backend_url}/projects/{project}/report.json", timeout=30).json()
        if answer["annotations"]["compared"]:
            return dict(answer["all"]["labels"])
        time.sleep(0.5)
    raise AssertionError("The annotation was not read.")


def test_a_prediction_is_shown_submitted_and_reported_as_accepted(
    page: Page, studio: LabelStudioProcess, backend_url: str, project: int
) -> None:
    label_studio_project.upload(studio, project, [demo_scenes.scene_file(700)])
    (task,) = studio.client.tasks.list(project=project)
    open_task(page, studio, project, task.id)
    shown = page.evaluate(f"{REGIONS}.map(r => [r.type, r.labels[0], r.results.map(x => x.type)])")
    assert sorted(shown) == [
        ["brushregion", "grass", ["brush", "labels"]],
        ["brushregion", "s", ["brush", "labels"]],
    ]
    stored = f"/api/tasks/{task.id}/annotations"
    with page.expect_response(lambda answer: stored in answer.url):
        page.click("[data-testid=bottombar-submit-button]")
    (annotation,) = studio.client.annotations.list(id=task.id)
    (prediction,) = studio.client.predictions.list(task=task.id)
    kept = ("id", "type", "from_name", "to_name", "value")
    assert [{key: each[key] for key in kept} for each in annotation.result] == [
        {key: each[key] for key in kept} for each in prediction.result
    ]
    figures = report(backend_url, project)
    assert {label: each["accepted_share"] for label, each in figures.items()} == {
        "sky": 1,
        "grass": 1,
    }


def test_a_smart_click_is_answered_with_a_region_of_its_label(
    page: Page, studio: LabelStudioProcess, project: int
) -> None:
    studio.client.projects.update(id=project, evaluate_predictions_automatically=False)
    label_studio_project.upload(studio, project, [demo_scenes.scene_file(701)])
    (task,) = studio.client.tasks.list(project=project)
    page.goto(f"{studio.url}/projects/{project}/data?task={task.id}")
    page.wait_for_selector(".konvajs-content canvas")
    toggle = page.locator("[data-testid=bottombar-auto-annotation-toggle]")
    if not toggle.is_checked():
        toggle.click(force=True)
    settled(page)
    try:
        page.locator(".lsf-tool_smart[aria-label=key-point-tool]").last.click()
        page.locator(".lsf-label").filter(has_text="sky").first.click()
        box: Any = page.locator(".konvajs-content").bounding_box()
        with page.expect_response(lambda answer: answer.url.endswith("/interactive-annotating")):
            page.keyboard.down("Control")  # whatever region covers the spot
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 8)
            page.keyboard.up("Control")
        page.wait_for_function("Htx.annotationStore.selected.suggestions.size === 1")
        labels = page.evaluate(
            "[...Htx.annotationStore.selected.suggestions.values()].map(r => [r.type, r.labels[0]])"
        )
        assert labels == [["brushregion", "s"]]
    finally:
        if toggle.is_checked():
            toggle.click(force=True)
