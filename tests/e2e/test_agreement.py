"""Two people annotate tasks of the real Label Studio, and a team lead looks where they differ."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import open_tab, settled
from tests.e2e.test_label_errors import LABELS, PHONE, asked, regions

SEEDS = [10_000_000 + number for number in (838, 853, 850, 848, 832, 860)]
OFF_PX = 4
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "agreement.png"


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
        studio.post(path, json={"result": regions(label_map, {})})
        moved = regions(np.roll(label_map, OFF_PX, axis=1), wrong.get(task, {}))
        skips = task == tasks[-1]
        body = {"result": [] if skips else moved, "was_cancelled": skips, "completed_by": second}
        studio.post(path, json=body)
    return tasks


def measured(url: str) -> dict[str, Any]:
    """Wait until the measurement is over, and return it."""
    end = time.monotonic() + 120
    while True:
        told: dict[str, Any] = requests.get(f"{url}.json", timeout=30).json()
        if told["run"]["state"] in ("done", "failed"):
            assert told["run"]["state"] == "done", told["run"]["reason"]
            return told
        assert time.monotonic() < end, told["run"]
        time.sleep(0.2)


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
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    note = lambda said: complaints.append(f"{said.text} {said.location}")  # noqa: E731
    page.on("console", lambda said: note(said) if said.type == "error" else None)
    address = f"{backend_url}/projects/{project}/agreement"
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    report = measured(address)["report"]
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
    page.set_viewport_size({"width": 1100, "height": 1340})
    path = PICTURE if os.environ.get("TAKE_PICTURE") else tmp_path / PICTURE.name
    path.write_bytes(settled(page))
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.set_viewport_size({"width": 1440, "height": 900})
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Make a view").click()
    expect(page.locator("#ask")).to_be_visible()
    views = asked(studio, f"/api/dm/views?project={project}")
    (view,) = [each for each in views if each["data"]["title"] == "Agreement"]
    shown = asked(studio, f"/api/tasks?view={view['id']}&project={project}")["tasks"]
    assert sorted(each["id"] for each in shown) == sorted(
        each["task"] for each in report["disputes"]
    )
    open_tab(page, studio.url, project, view["id"])
    page.goto(f"{backend_url}/projects/{project}")
    page.get_by_role("navigation").get_by_role("link", name="Agreement").click()
    expect(page.get_by_role("heading", name="Agreement")).to_be_visible()
    assert complaints == []
