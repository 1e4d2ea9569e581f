"""A team lead has different pictures chosen, and the real Label Studio shows them in a tab."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import render_scene
from tests.e2e.editor import keep_picture, make_view, no_complaints
from tests.e2e.masks import scene_regions
from tests.e2e.servers import finished_run, wait_for_json

LABELS = ["sky", "grass", "tree", "house"]
SEEDS = [10_000_000 + number for number in (731, 733, 735, 737, 739, 741)]
FRAMES = 4
WHOLE_HW, FRAME_HW = (450, 603), (448, 597)


def drive(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the frames of a drive through a scene, and their label maps."""
    whole, rng = render_scene(seed, WHOLE_HW), np.random.default_rng(seed)
    made = []
    for step in np.linspace(0, 1, FRAMES):
        y, x = (int(step * (a - b)) for a, b in zip(WHOLE_HW, FRAME_HW, strict=True))
        window = slice(y, y + FRAME_HW[0]), slice(x, x + FRAME_HW[1])
        frame = np.clip(whole.image[window] * rng.uniform(0.95, 1.05), 0, 255)
        made.append((frame.astype(np.uint8), whole.label_map[window]))
    return made


def upload(studio: LabelStudioProcess, project: int) -> list[int]:
    """Upload all drives; return their tasks, those of a drive one after the other."""
    files = []
    for seed in SEEDS:
        for number, (frame, _) in enumerate(drive(seed)):
            content = io.BytesIO()
            Image.fromarray(frame).save(content, "png")
            files.append((f"drive-{seed}-{number}.png", content.getvalue()))
    demo.upload(studio, project, files)
    tasks = list(studio.client.tasks.list(project=project))
    named = {str((task.data or {})["image"]).partition("drive-")[2]: task.id for task in tasks}
    return [named[name.removeprefix("drive-")] for name, _ in files]


def test_one_picture_of_each_drive_is_chosen_shown_and_labeled_from_a_tab(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    """Correct a frame, choose, look, make the view, open its tab and label from it."""
    project = new_project(LABELS, seeds=[])
    tasks = upload(studio, project)
    demo.connect(studio, project, backend_url)
    corrected = scene_regions(drive(SEEDS[0])[1][1], LABELS)
    studio.post(f"/api/tasks/{tasks[1]}/annotations/", json={"result": corrected})
    studio.post(f"/api/tasks/{tasks[2]}/drafts", json={"result": corrected, "lead_time": 1.0})
    client = LabelStudioClient(studio.url, studio.token, retry_for_s=20)
    free = TaskFilter(labeled=False, drafted=False)
    assert client.count(project, free) == len(tasks) - 2
    address = f"{backend_url}/projects/{project}"
    wait_for_json(f"{address}/learning", lambda told: told["annotations"] == 1)
    with no_complaints(page, backend_url):
        page.goto(f"{address}/next-tasks")
        page.get_by_label("Number of tasks").fill("20")
        page.get_by_role("button", name="Choose tasks").click()
        report = finished_run(f"{address}/next-tasks.json")
        found = sorted(each["task"] for each in report["tasks"])
        assert [tasks.index(task) // FRAMES for task in found] == [1, 2, 3, 4, 5]
        assert (report["examples"], report["unlabeled"]) == (1, len(tasks) - 2)
        expect(page.locator("#shortage")).to_contain_text("22 of 22 tasks were tried")
        expect(page.locator("figure img")).to_have_count(5)  # the page has loaded itself again
        keep_picture(page, "next_tasks.png", tmp_path, (1100, 760))
        assert make_view(page, studio, project, "Next tasks") == found
    page.get_by_text("Label All Tasks").locator("xpath=ancestor::button[1]/..").get_by_label(
        "Toggle open"
    ).click()
    page.get_by_text("Label Tasks As Displayed").click()
    canvas = page.locator(".konvajs-content canvas").first
    canvas.wait_for()
    labeled = page.evaluate("Htx.task.id")
    assert labeled in found
