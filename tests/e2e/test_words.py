"""A person tries words on the page, and the project in the real Label Studio gets the best."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests
from label_studio_sdk.converter import brush
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import settled

#: "turf" means nothing to the demo model, and "lawn" is a synonym that it was trained on.
LABELS = ["sky", "turf", "tree", "house"]
TRUE = {"turf": "grass"}
SEEDS = [10_000_700, 10_000_703, 10_000_706, 10_000_709]
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "words.png"
PHONE = {"width": 390, "height": 844}


def annotate(studio: LabelStudioProcess, project: int) -> None:
    """Paint the truth of the scenes, in the order of the uploads."""
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    for task, seed in zip(tasks, SEEDS, strict=True):
        label_map = render_scene(seed).label_map
        height, width = label_map.shape
        result = []
        for label in LABELS:
            mask = label_map == SCENE_LABELS.index(TRUE.get(label, label))
            if mask.any():
                rle = brush.mask2rle(mask.astype(np.uint8) * 255)
                result.append(
                    {
                        "type": "brushlabels",
                        "from_name": "mask",
                        "to_name": "image",
                        "original_width": width,
                        "original_height": height,
                        "image_rotation": 0,
                        "value": {"format": "rle", "rle": rle, "brushlabels": [label]},
                    }
                )
        studio.post(f"/api/tasks/{task}/annotations/", json={"result": result})


def finished(backend_url: str, path: str) -> dict[str, Any]:
    """Wait until a trial is over, and return it."""
    end = time.monotonic() + 60
    while True:
        told: dict[str, Any] = requests.get(f"{backend_url}{path}", timeout=30).json()
        if told["run"]["state"] in ("done", "failed"):
            assert told["run"]["state"] == "done", told["run"]["reason"]
            return told
        assert time.monotonic() < end, told
        time.sleep(0.2)


def test_the_right_words_are_found_on_pictures_and_used(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    """Check all words, try some for the one that is unknown, use the best; look at the picture."""
    project = new_project(LABELS, seeds=SEEDS)
    annotate(studio, project)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    words = f"/projects/{project}/words"
    page.goto(f"{backend_url}{words}")
    offered = page.locator("#labels option")
    expect(offered).to_have_count(len(LABELS))
    assert [each.get_attribute("value") for each in offered.all()] == LABELS
    page.get_by_role("button", name="Check words").click()
    expect(page.locator("#advice")).to_contain_text("“turf” (turf) means as little to the model")
    page.locator("#advice").get_by_role("link", name="Try words").first.click()
    expect(page.get_by_label("Label", exact=True)).to_have_value("turf")
    page.get_by_label("Wordings").fill("lawn\ngrass, meadow\nroad")
    page.get_by_role("button", name="Try words").click()
    expect(page.locator("#trials")).to_contain_text("the best first")
    told = finished(backend_url, page.url.removeprefix(backend_url))["report"]
    ranked = [row["words"] for row in told["trials"]]
    assert set(map(tuple, ranked[:2])) == {("lawn",), ("grass", "meadow")}
    assert told["trials"][0]["iou"] > 0.5 > (told["trials"][-1]["iou"] or 0)
    expect(page.locator("#masks img")).to_have_count(4 * len(SEEDS))
    page.set_viewport_size({"width": 1100, "height": 900})
    path = PICTURE if os.environ.get("TAKE_PICTURE") else tmp_path / PICTURE.name
    path.write_bytes(settled(page))
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.set_viewport_size({"width": 1440, "height": 900})
    before = studio.client.projects.get(id=project).label_config
    page.once("dialog", lambda question: question.dismiss())
    page.get_by_role("button", name="Use this").first.click()
    assert studio.client.projects.get(id=project).label_config == before, "nobody said yes"
    trial, other = page.url, page.context.new_page()
    other.goto(trial)
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Use this").first.click()
    expect(page.get_by_role("status")).to_contain_text("These words were written")
    after = studio.client.projects.get(id=project).label_config
    assert f'predicted_values="{", ".join(ranked[0])}"' in after
    page.goto(trial)
    expect(page.locator("main")).to_contain_text("These words were written")
    expect(page.get_by_role("button", name="Use this")).to_have_count(0)
    other.once("dialog", lambda question: question.accept())
    other.get_by_role("button", name="Use this").last.click()
    expect(other.get_by_role("alert")).to_contain_text("was changed since")
    assert studio.client.projects.get(id=project).label_config == after
    assert [each for each in complaints if "409" not in each] == []
