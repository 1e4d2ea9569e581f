"""Annotators correct predictions of two words that the model does not know, and it adapts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk.converter import brush
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import Canvas, deepest_point, open_task
from tests.e2e.masks import Mask, decode, iou

pytestmark = pytest.mark.timeout(300)

#: Label of the scenes -> name of the label in the project.
CALLED = {
    **{name: name for name in ("sky", "mountain", "grass", "house")},
    "tree": "vegetation",
    "road": "lane",
}
CORRECTED = 11
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "learning.png"
SEEDS = [10_000_600 + number for number in range(18)]

Region = dict[str, Any]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"{what} has not come"
        time.sleep(0.2)


def true_masks(image: str) -> dict[str, Mask]:
    """Return label -> mask, of labels that a scene shows."""
    label_map = render_scene(demo.scene_seed(image)).label_map
    masks = {label: label_map == SCENE_LABELS.index(name) for name, label in CALLED.items()}
    return {label: mask for label, mask in masks.items() if mask.any()}


def masks_of(result: Iterable[Region]) -> dict[str, Mask]:
    """Return label -> union of its regions' masks."""
    masks: dict[str, Mask] = {}
    for region in result:
        if region["type"] == "brushlabels":
            (label,) = region["value"]["brushlabels"]
            masks[label] = decode(region) | masks.get(label, False)
    return masks


def mean_iou(pairs: Iterable[tuple[Mapping[str, Mask], Mapping[str, Mask]]]) -> dict[str, float]:
    """Return label -> IoU over all (predicted, true) pairs of masks together."""
    shared, either = dict.fromkeys(CALLED.values(), 0), dict.fromkeys(CALLED.values(), 0)
    for predicted, true in pairs:
        nothing = np.zeros_like(next(iter(true.values())))
        for label in CALLED.values():
            a, b = predicted.get(label, nothing), true.get(label, nothing)
            shared[label] += int((a & b).sum())
            either[label] += int((a | b).sum())
    return {label: shared[label] / either[label] for label in shared if either[label]}


def corrected(predicted: list[Region], true: Mapping[str, Mask]) -> list[Region]:
    """Return regions as an annotator corrects them: some kept, changed or removed, some added."""
    by_label = {region["value"]["brushlabels"][0]: region for region in predicted}
    left = []
    for label, mask in true.items():
        before = by_label.get(label)
        if before is not None and iou(decode(before), mask) > 0.97:
            left.append(before | {"origin": "prediction"})
            continue
        rle = brush.mask2rle(mask.astype(np.uint8) * 255)
        value = {"format": "rle", "rle": rle, "brushlabels": [label]}
        origin = "manual" if before is None else "prediction-changed"
        template = before or predicted[0] | {"id": f"hand-{label}"}
        left.append(template | {"value": value, "origin": origin})
    return left


class Team:
    """A project and its backend, with queries to Label Studio and the backend."""

    def __init__(self, studio: LabelStudioProcess, project: int, backend_url: str) -> None:
        self.studio, self.project, self._url = studio, project, backend_url
        self.config = studio.client.projects.get(id=project).label_config
        self.images = {
            task.id: task.data["image"] for task in studio.client.tasks.list(project=project)
        }
        self.tasks = sorted(self.images)

    def version(self) -> str:
        """Return the model version in the response of /setup."""
        body = {"project": f"{self.project}.1", "schema": self.config, "hostname": self.studio.url}
        answer = requests.post(f"{self._url}/setup", json=body, timeout=60)
        return str(answer.json()["model_version"])

    @property
    def learning(self) -> str:
        return f"{self._url}/projects/{self.project}/learning"

    def learned(self) -> dict[str, Any]:
        told: dict[str, Any] = requests.get(self.learning, timeout=60).json()
        return told

    def report(self) -> dict[str, Any]:
        path = f"{self._url}/projects/{self.project}/report.json"
        told: dict[str, Any] = requests.get(path, timeout=60).json()
        return told

    def retrieve(self, tasks: list[int]) -> None:
        """Run the action Retrieve Predictions of the data manager on tasks."""
        self.studio.post(
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.project}",
            json={"selectedItems": {"all": False, "included": tasks}},
        )

    def predictions(self, version: str) -> dict[int, Any]:
        """Return task -> its only prediction of a version."""
        found = [
            each
            for each in self.studio.client.predictions.list(project=self.project)
            if each.model_version == version
        ]
        assert len({each.task for each in found}) == len(found)
        return {each.task: each for each in found}

    def shown(self, task: int) -> set[str]:
        """Return the versions of the predictions that Label Studio shows an annotator."""
        answer = self.studio.post(
            f"/api/dm/actions?id=next_task&project={self.project}",
            json={"selectedItems": {"all": False, "included": [task]}},
        )
        assert answer["id"] == task
        return {each["model_version"] for each in answer["predictions"]}

    def quality(self, version: str, tasks: Iterable[int]) -> dict[str, float]:
        """Return label -> IoU of the predictions of a version with the ground truth."""
        stored = self.predictions(version)
        return mean_iou(
            (masks_of(stored[task].result), true_masks(self.images[task])) for task in tasks
        )

    def exported(self) -> list[dict[str, Any]]:
        """Return all annotations as Label Studio exports them."""
        path = f"{self.studio.url}/api/projects/{self.project}/export?exportType=JSON"
        headers = {"Authorization": self.studio.authorization}
        tasks = requests.get(path, headers=headers, timeout=60).json()
        return [annotation for task in tasks for annotation in task["annotations"]]


def erase_a_little(page: Page, team: Team, task: int, predicted: list[Region]) -> None:
    """Erase a stroke in the middle of the largest region in the editor, and submit."""
    open_task(page, team.studio, team.project, task)
    region = max(predicted, key=lambda region: decode(region).sum())
    mask = decode(region)
    x, y = Canvas(page, mask.shape).on_screen(*deepest_point(mask))
    label = region["value"]["brushlabels"][0]
    page.locator("[class*=outliner-item]").filter(has_text=label).first.click()
    page.click("[aria-label=eraser]")
    page.mouse.move(x - 15, y)
    page.mouse.down()
    page.mouse.move(x + 15, y, steps=6)
    page.mouse.up()
    with page.expect_response(lambda answer: f"/api/tasks/{task}/annotations" in answer.url):
        page.click("[data-testid=bottombar-submit-button]")


def figures_by_hand(
    annotations: list[dict[str, Any]], studio: LabelStudioProcess
) -> dict[str, Any]:
    """Compute the report's figures from an export with Label Studio's own decoder."""
    sums = {label: {"hit": 0, "old": 0, "new": 0} for label in CALLED.values()}
    ious: dict[str, list[float]] = {label: [] for label in CALLED.values()}
    counts = dict.fromkeys(("accepted", "corrected", "deleted", "added"), 0)
    for annotation in annotations:
        before = studio.client.predictions.get(id=annotation["parent_prediction"]).result
        old, new = masks_of(before), masks_of(annotation["result"])
        for label in old.keys() | new.keys():
            nothing = np.zeros_like(next(iter(new.values())))
            a, b = old.get(label, nothing), new.get(label, nothing)
            sums[label]["hit"] += int((a & b).sum())
            sums[label]["old"] += int(a.sum())
            sums[label]["new"] += int(b.sum())
            ious[label].append(iou(a, b))
        ids = {region["id"]: decode(region) for region in annotation["result"]}
        for region in before:
            same = region["id"] in ids and np.array_equal(ids[region["id"]], decode(region))
            counts["accepted"] += same
            counts["corrected"] += region["id"] in ids and not same
            counts["deleted"] += region["id"] not in ids
        counts["added"] += len(ids.keys() - {region["id"] for region in before})
    return {
        "labels": {
            label: {
                "mean_iou": float(np.mean(ious[label])),
                "saved_paint": 1 - (each["old"] + each["new"] - 2 * each["hit"]) / each["new"],
            }
            for label, each in sums.items()
            if each["new"]
        },
        "seconds": median(annotation["lead_time"] for annotation in annotations),
        **counts,
    }


def test_corrections_are_measured_learned_from_shown_as_pictures_and_forgotten(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    project = new_project(list(CALLED.values()), seeds=SEEDS)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    team = Team(studio, project, backend_url)
    done, rest = team.tasks[:CORRECTED], team.tasks[CORRECTED:]
    words = team.version()
    first = team.predictions(words)
    assert sorted(first) == team.tasks

    erase_a_little(page, team, done[0], first[done[0]].result)
    for number, task in enumerate(done[1:]):
        studio.client.annotations.create(
            id=task,
            result=corrected(first[task].result, true_masks(team.images[task])),
            parent_prediction=first[task].id,
            lead_time=20.0 + number,
        )
    wait_for(lambda: team.report()["annotations"]["compared"] == CORRECTED, "the last correction")
    check_the_report(team)

    wait_for(lambda: team.version() != words, "a version that has learned")
    learned = team.version()
    assert learned.startswith("demo clearclip ")
    made_of, number = learned.rpartition(" +")[2].split(" v")
    assert int(made_of) in (CORRECTED - 1, CORRECTED)
    assert int(number) >= 1
    team.retrieve(rest)
    before, after = team.quality(words, rest), team.quality(learned, rest)
    print(f"IoU with the words alone: {before}; with {learned}: {after}")
    assert np.mean(list(after.values())) > np.mean(list(before.values())) + 0.05
    for unknown in ("vegetation", "lane"):
        assert before[unknown] < 0.2 < 0.3 < after[unknown]
    assert team.shown(rest[0]) == {learned}
    check_before_and_after(page, team, tmp_path)
    decide(page, team)

    for annotation in team.exported():
        studio.client.annotations.delete(id=annotation["id"])
    wait_for(lambda: team.report()["annotations"]["compared"] == 0, "the last deletion")
    wait_for(lambda: team.version() == words, "the version of the words")
    assert team.shown(rest[0]) == {words}
    assert team.predictions(words)[rest[0]].id == first[rest[0]].id, "it is still there"
    task = {"id": rest[0], "project": project, "data": {"image": team.images[rest[0]]}}
    body = {"tasks": [task], "label_config": team.config, "project": f"{project}.1"}
    (again,) = requests.post(f"{backend_url}/predict", json=body, timeout=100).json()["results"]
    assert again["model_version"] == words
    assert again["result"] == first[rest[0]].result
    assert again["score"] == pytest.approx(first[rest[0]].score)


def check_before_and_after(page: Page, team: Team, tmp_path: Path) -> None:
    """Open the page of the version that is live: six pictures, drawn three times each."""
    page.goto(team.learning)
    expect(page.locator(".trio")).to_have_count(6)
    drawn = page.locator(".trio img")
    widths = drawn.evaluate_all("all => all.map(image => image.naturalWidth)")
    assert widths == [320] * 18
    words, version = (
        [float(text.split()[0]) for text in page.locator(f".trio {which} b").all_inner_texts()]
        for which in ("figure:nth-child(2)", "figure:nth-child(3)")
    )
    assert np.mean(version) > np.mean(words) + 10
    for label in CALLED.values():
        expect(page.locator(".legend")).to_contain_text(label)
    unknown = page.locator("#learned a[href*=words]")
    assert sorted(unknown.all_inner_texts()) == ["lane", "vegetation"]
    take_pictures(page, tmp_path)


def take_pictures(page: Page, tmp_path: Path) -> None:
    """Look at the page as on a desk and on a phone; nothing may lie beside the window."""
    sizes = {PICTURE.name: (1280, 1295), "phone.png": (390, 844)}
    before = page.viewport_size
    for name, (width, height) in sizes.items():
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        is_docs = os.environ.get("TAKE_PICTURE") and name == PICTURE.name
        page.screenshot(path=PICTURE if is_docs else tmp_path / name, full_page=not is_docs)
    assert before is not None
    page.set_viewport_size(before)


def decide(page: Page, team: Team) -> None:
    """Where the project wants to be asked: leave a label to its words, use that, and go back."""
    asks = team.config.replace("<BrushLabels", '<BrushLabels adapt="ask"')
    team.studio.client.projects.update(id=team.project, label_config=asks)
    first = team.learned()["versions"][0]
    page.get_by_role("button", name="Keep the words for lane").click()
    wait_for(lambda: team.learned()["waits"], "a version that waits")
    newest = team.learned()["versions"][0]
    assert newest["number"] == first["number"] + 1
    assert newest["adapted_ious"]["lane"] < first["adapted_ious"]["lane"]
    assert team.version().endswith(f" v{first['number']}")
    page.goto(team.learning)
    expect(page.get_by_role("row", name="lane")).to_contain_text("keeps its words")
    page.get_by_role("button", name=f"Use version {newest['number']}").click()
    expect(page.get_by_text(f"version {newest['number']} is live")).to_be_visible()
    assert not team.learned()["pinned"]
    wait_for(lambda: team.version().endswith(f" v{newest['number']}"), "the new version")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text(f"version {first['number']} is live")).to_be_visible()
    wait_for(lambda: team.version().endswith(f" v{first['number']}"), "the version before")


def check_the_report(team: Team) -> None:
    """Compare the report with figures from Label Studio's export of its annotations."""
    expected = figures_by_hand(team.exported(), team.studio)
    told = team.report()["all"]
    for label, figures in expected["labels"].items():
        for name, value in figures.items():
            assert told["labels"][label][name] == pytest.approx(value, abs=1e-5), (label, name)
    for name in ("accepted", "corrected", "deleted", "added"):
        assert told["total"][name] == expected[name], name
    assert told["total"]["accepted"] > 0
    assert told["total"]["corrected"] > 0
    assert told["seconds"]["with_prelabel"] == pytest.approx(expected["seconds"])
