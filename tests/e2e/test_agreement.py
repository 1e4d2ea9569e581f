"""Two people annotate tasks of the real Label Studio, and a team lead looks where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import keep_picture, make_view, no_complaints
from tests.e2e.masks import scene_regions
from tests.e2e.servers import finished_run

LABELS = ["sky", "grass", "tree", "house"]
SEEDS = [10_000_000 + number for number in (838, 853, 850, 848, 832, 860)]
OFF_PX = 4


@pytest.fixture
def second_person(studio: LabelStudioProcess) -> Iterator[int]:
    """Another user of the same organization."""
    person = {"email": "bo@example.com", "username": "bo", "first_name": "Bo", "last_name": "Lind"}
    made = studio.post("/api/users/", json=person | {"password": "a-second-annotator"})["id"]
    yield made
    studio.client.users.delete(id=made)


def annotate_twice(studio: LabelStudioProcess, project: int, second: int) -> list[int]:
    """Let both people annotate all tasks but the last, which the second has skipped.

    The second's edges are some px off; the first task's sky is a house to the second, and the
    second task has no tree.
    """
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    wrong: dict[int, dict[str, str]] = {tasks[0]: {"sky": "house"}, tasks[1]: {"tree": ""}}
    for task, seed in zip(tasks, SEEDS, strict=True):
        label_map = render_scene(seed).label_map
        path = f"/api/tasks/{task}/annotations/"
        studio.post(path, json={"result": scene_regions(label_map, LABELS)})
        moved = scene_regions(np.roll(label_map, OFF_PX, axis=1), LABELS, wrong.get(task))
        skips = task == tasks[-1]
        body = {"result": [] if skips else moved, "was_cancelled": skips, "completed_by": second}
        studio.post(path, json=body)
    return tasks


def test_pixels_in_dispute_are_shown_as_pictures_and_their_tasks_as_a_view(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    second_person: int,
    tmp_path: Path,
) -> None:
    project = new_project(LABELS, seeds=SEEDS)
    tasks = annotate_twice(studio, project, second_person)
    with no_complaints(page, backend_url):
        address = f"{backend_url}/projects/{project}/agreement"
        page.goto(address)
        page.get_by_role("button", name="Start").click()
        report = finished_run(f"{address}.json")
        assert (report["tasks"], report["annotations"], report["left_out"]) == (5, 10, {})
        first = report["disputes"][0]
        label_map = render_scene(SEEDS[0]).label_map
        sky, moved = (
            each == SCENE_LABELS.index("sky") for each in (label_map, np.roll(label_map, OFF_PX, 1))
        )
        figures = {each["label"]: each for each in first["labels"]}
        assert first["task"] == tasks[0]
        assert figures["sky"]["iou"] == 0, "the second person has none"
        assert figures["sky"]["disputed"] == pytest.approx(sky.mean(), abs=1e-4)
        assert figures["house"]["disputed"] > 0.9 * moved.mean()
        pairs = {(each["label"], each["other"]) for each in report["confusions"]}
        assert {("sky", "house"), ("tree", "")} <= pairs
        names = [each["name"] for each in report["annotators"]]
        assert names == sorted(names, key=str.casefold)
        assert "Bo Lind" in names
        assert {each["iou"] for each in report["annotators"]} == {report["annotators"][0]["iou"]}
        page.goto(address)
        expect(page.locator("article")).to_have_count(len(report["disputes"]))
        keep_picture(page, "agreement.png", tmp_path, (1100, 1340))
        shown = make_view(page, studio, project, "Agreement")
        assert shown == sorted(each["task"] for each in report["disputes"])
        page.goto(f"{backend_url}/projects/{project}")
        page.get_by_role("navigation").get_by_role("link", name="Agreement").click()
        expect(page.get_by_role("heading", name="Agreement")).to_be_visible()
