"""A team lead reviews annotations on the page, and the real Label Studio shows the suspicious."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
from label_studio_sdk.converter import brush
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import open_tab, settled

LABELS = ["sky", "grass", "tree", "house"]
SEEDS = list(range(10_000_731, 10_000_743))
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "label_errors.png"
PHONE = {"width": 390, "height": 844}


def regions(label_map: npt.NDArray[Any], names: dict[str, str]) -> list[dict[str, Any]]:
    """Paint labels of a scene, each as the one that `names` says; "" leaves it out."""
    height, width = label_map.shape
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    made = []
    for label in LABELS:
        mask, name = label_map == SCENE_LABELS.index(label), names.get(label, label)
        if mask.any() and name:
            rle = brush.mask2rle(mask.astype(np.uint8) * 255)
            value = {"format": "rle", "rle": rle, "brushlabels": [name]}
            place = {"type": "brushlabels", "from_name": "mask", "to_name": "image"}
            made.append(place | size | {"value": value})
    return made


def annotate(studio: LabelStudioProcess, project: int) -> list[int]:
    """Annotate all tasks; the first's sky is painted as a house, and the second's not at all."""
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    wrong: dict[int, dict[str, str]] = {tasks[0]: {"sky": "house"}, tasks[1]: {"sky": ""}}
    for task, seed in zip(tasks, SEEDS, strict=True):
        result = regions(render_scene(seed).label_map, wrong.get(task, {}))
        studio.post(f"/api/tasks/{task}/annotations/", json={"result": result})
    return tasks


def asked(studio: LabelStudioProcess, path: str) -> Any:
    """Ask Label Studio's API."""
    headers = {"Authorization": studio.authorization}
    return requests.get(studio.url + path, headers=headers, timeout=30).json()


def reviewed(url: str) -> dict[str, Any]:
    """Wait until the run is over, and return it."""
    end = time.monotonic() + 240
    while True:
        told: dict[str, Any] = requests.get(url, timeout=30).json()
        if told["run"]["state"] in ("done", "failed"):
            assert told["run"]["state"] == "done", told["run"]["reason"]
            return told
        assert time.monotonic() < end, told["run"]
        time.sleep(0.5)


def test_suspicious_annotations_are_listed_with_pictures_confirmed_and_shown_as_a_view(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    """Review, look at the picture, make the view, open it, confirm one."""
    project = new_project(LABELS, seeds=SEEDS)
    tasks = annotate(studio, project)
    studio.post(f"/api/tasks/{tasks[0]}/annotations/", json={"result": []})  # a second, empty one
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    note = lambda said: complaints.append(f"{said.text} {said.location}")  # noqa: E731
    page.on("console", lambda said: note(said) if said.type == "error" else None)
    address = f"{backend_url}/projects/{project}/label-errors"
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    report = reviewed(address)["report"]
    assert {each["task"] for each in report["suspicions"][:2]} == set(tasks[:2])
    page.goto(address)
    expect(page.locator("article")).to_have_count(len(report["suspicions"]))
    page.set_viewport_size({"width": 1100, "height": 900})
    path = PICTURE if os.environ.get("TAKE_PICTURE") else tmp_path / PICTURE.name
    path.write_bytes(settled(page))
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.set_viewport_size({"width": 1440, "height": 900})
    page.once("dialog", lambda question: question.dismiss())
    page.get_by_role("button", name="Make a view").click()
    views = f"/api/dm/views?project={project}"
    assert not [v for v in asked(studio, views) if v["data"]["title"] == "Label errors"]
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Make a view").click()
    expect(page.locator("#ask")).to_be_visible()
    (view,) = [v for v in asked(studio, views) if v["data"]["title"] == "Label errors"]
    shown = asked(studio, f"/api/tasks?view={view['id']}&project={project}")["tasks"]
    listed = {each["task"] for each in report["suspicions"]}
    assert sorted(each["id"] for each in shown) == sorted(listed), "each task once"
    first = report["suspicions"][0]["annotation"]
    page.get_by_role("button", name=f"Annotation {first} is right").click()
    expect(page.locator(f"[id^='annotation-{first}-']")).to_have_count(0)
    expect(page.locator("#confirmed")).to_contain_text(f"Annotation {first}")
    assert complaints == []
    open_tab(page, studio.url, project, view["id"])
