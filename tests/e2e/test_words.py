"""A person tries words on the page, and the project in the real Label Studio gets the best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import render_scene
from tests.e2e.editor import keep_picture, no_complaints
from tests.e2e.masks import scene_regions
from tests.e2e.servers import finished_run

#: "turf" means nothing to the demo model, and "lawn" is a synonym that it was trained on.
LABELS = ["sky", "turf", "tree", "house"]
SEEDS = [10_000_700, 10_000_703, 10_000_706, 10_000_709]


def test_the_right_words_are_found_on_pictures_and_used(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    """Check all words, try some for the one that is unknown, use the best; look at the picture."""
    project = new_project(LABELS, seeds=SEEDS)
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    for task, seed in zip(tasks, SEEDS, strict=True):  # in the order of the uploads
        painted = ["sky", "grass", "tree", "house"]
        result = scene_regions(render_scene(seed).label_map, painted, {"grass": "turf"})
        studio.post(f"/api/tasks/{task}/annotations/", json={"result": result})
    with no_complaints(page, backend_url, "409"):
        words = f"/projects/{project}/words"
        page.goto(f"{backend_url}{words}")
        page.get_by_role("button", name="Check words").click()
        advice = page.locator("#advice")
        expect(advice).to_contain_text("“turf” (turf) means as little to the model")
        advice.get_by_role("link", name="Try words").first.click()
        expect(page.get_by_label("Label", exact=True)).to_have_value("turf")
        page.get_by_label("Wordings").fill("lawn\ngrass, meadow\nroad")
        page.get_by_role("button", name="Try words").click()
        expect(page.locator("#trials")).to_contain_text("the best first")
        told = finished_run(page.url)
        ranked = [row["words"] for row in told["trials"]]
        assert set(map(tuple, ranked[:2])) == {("lawn",), ("grass", "meadow")}
        assert told["trials"][0]["iou"] > 0.5 > (told["trials"][-1]["iou"] or 0)
        expect(page.locator("#masks img")).to_have_count(4 * len(SEEDS))
        keep_picture(page, "words.png", tmp_path, (1100, 900))
        before = studio.client.projects.get(id=project).label_config
        page.once("dialog", lambda question: question.dismiss())
        page.get_by_role("button", name="Use this").first.click()
        assert studio.client.projects.get(id=project).label_config == before, "nobody said yes"
        trial, other = page.url, page.context.new_page()
        other.goto(trial)
        page.once("dialog", lambda question: question.accept())
        page.get_by_role("button", name="Use this").first.click()
        expect(page.get_by_role("status")).to_contain_text("The words are in the label config")
        after = studio.client.projects.get(id=project).label_config
        assert f'predicted_values="{", ".join(ranked[0])}"' in after
        other.once("dialog", lambda question: question.accept())
        other.get_by_role("button", name="Use this").last.click()
        expect(other.get_by_role("alert")).to_contain_text("was changed since")
        assert studio.client.projects.get(id=project).label_config == after
