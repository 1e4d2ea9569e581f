"""A team lead reviews annotations on the page, and the real Label Studio shows the suspicious."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import render_scene
from tests.e2e.editor import keep_picture, make_view, no_complaints
from tests.e2e.masks import scene_regions
from tests.e2e.servers import finished_run

LABELS = ["sky", "grass", "tree", "house"]
SEEDS = list(range(10_000_731, 10_000_743))


def annotate(studio: LabelStudioProcess, project: int) -> list[int]:
    """Annotate all tasks; the first's sky is painted as a house, and the second's not at all."""
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    wrong: dict[int, dict[str, str]] = {tasks[0]: {"sky": "house"}, tasks[1]: {"sky": ""}}
    for task, seed in zip(tasks, SEEDS, strict=True):
        result = scene_regions(render_scene(seed).label_map, LABELS, wrong.get(task))
        studio.post(f"/api/tasks/{task}/annotations/", json={"result": result})
    return tasks


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
    with no_complaints(page, backend_url):
        address = f"{backend_url}/projects/{project}/label-errors"
        page.goto(address)
        page.get_by_role("button", name="Start").click()
        report = finished_run(address)
        assert {each["task"] for each in report["suspicions"][:2]} == set(tasks[:2])
        page.goto(address)
        expect(page.locator("article")).to_have_count(len(report["suspicions"]))
        keep_picture(page, "label_errors.png", tmp_path, (1100, 900))
        shown = make_view(page, studio, project, "Label errors")
        assert shown == sorted({each["task"] for each in report["suspicions"]}), "each task once"
        page.goto(address)
        first = report["suspicions"][0]["annotation"]
        page.get_by_role("button", name=f"Annotation {first} is right").click()
        expect(page.locator(f"[id^='annotation-{first}-']")).to_have_count(0)
        expect(page.locator("#confirmed")).to_contain_text(f"Annotation {first}")
