"""Annotators correct predictions in the real Label Studio; the report counts the corrections."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.editor import PHONE, SIZE, no_complaints, open_task, resize, submit, visit
from tests.e2e.masks import brush_region, decode, iou, labelled, masks_of
from tests.e2e.servers import sdk, wait_for_json

LABELS = ["sky", "grass", "tree", "house"]


def report(backend_url: str, project: int, **kinds: int) -> dict[str, Any]:
    return wait_for_json(
        f"{backend_url}/projects/{project}/report.json",
        lambda told: not told["waiting"] and kinds.items() <= told["annotations"].items(),
    )


def erased(region: dict[str, Any]) -> dict[str, Any]:
    """Erase the left half of a region's pixels, written by Label Studio's converter."""
    mask = decode(region)
    mask[:, : int(np.median(np.flatnonzero(mask.any(axis=0))))] = False
    value = brush_region(mask, region["value"]["labels"][0])["value"]
    return region | {"value": value, "origin": "prediction-changed"}


def by_hand(studio: LabelStudioProcess, project: int) -> dict[str, dict[str, float]]:
    """Compute the figures of each label from Label Studio's data with its own decoder."""
    sums = {label: np.zeros(3) for label in LABELS}  # pixels: in both, predicted, true
    ious: dict[str, list[float]] = {label: [] for label in LABELS}
    for each in sdk(studio).tasks.list(project=project):
        for made in sdk(studio).annotations.list(id=each.id):
            if made.was_cancelled or made.parent_prediction is None:
                continue
            before = sdk(studio).predictions.get(id=made.parent_prediction).result
            predicted, true = masks_of(before), masks_of(made.result)
            for label in predicted.keys() | true.keys():
                nothing = np.zeros_like(predicted.get(label, true.get(label)))
                old, new = predicted.get(label, nothing), true.get(label, nothing)
                sums[label] += [(old & new).sum(), old.sum(), new.sum()]
                ious[label].append(iou(old, new))
    return {
        label: {
            "mean_iou": float(np.mean(ious[label])),
            "saved_paint": 1 - (predicted + true - 2 * hit) / true,
        }
        for label, (hit, predicted, true) in sums.items()
        if true
    }


def test_what_annotators_do_is_what_the_report_says(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    """Accepted in the editor; corrected, relabelled, drawn by hand, skipped and deleted by API."""
    project = new_project(LABELS, seeds=[10_000_300 + n for n in range(6)])
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    tasks = sorted(task.id for task in sdk(studio).tasks.list(project=project))
    predicted = {each.task: each for each in sdk(studio).predictions.list(project=project)}
    assert sorted(predicted) == tasks

    def annotate(task: int, result: list[Any], **more: Any) -> int:
        made = sdk(studio).annotations.create(id=task, result=result, **more)
        assert made.id is not None
        return made.id

    open_task(page, studio, project, tasks[0])
    page.wait_for_timeout(6_000)  # submitted sooner, nobody would have looked at it
    submit(page, tasks[0])
    first = report(backend_url, project, compared=1)
    assert first["all"]["total"]["accepted_share"] == 1
    assert first["all"]["total"]["saved_paint"] == 1
    assert first["hours_left"]["annotations"] == 1

    regions = {task: [each for _, each in labelled(predicted[task].result)] for task in tasks}
    largest, *others = sorted(regions[tasks[1]], key=lambda r: -decode(r).sum())
    known = {"parent_prediction": predicted[tasks[1]].id, "lead_time": 20.0}
    changed = annotate(tasks[1], [erased(largest), *others], **known)
    (last, *rest) = regions[tasks[2]]
    other = next(name for name in LABELS if name not in last["value"]["labels"])
    relabelled = last | {"value": last["value"] | {"labels": [other]}}
    annotate(tasks[2], [relabelled, *rest], parent_prediction=predicted[tasks[2]].id)
    annotate(tasks[3], [largest | {"id": "by-hand"}], lead_time=90.0)
    annotate(tasks[4], [], was_cancelled=True)
    gone = annotate(tasks[5], [], parent_prediction=predicted[tasks[5]].id)
    told = report(backend_url, project, compared=4, scratch=1, skipped=1)
    assert told["all"]["total"]["false"] == 1 + len(regions[tasks[5]])
    assert sum(told["all"]["total"]["relabelled"].values()) == 1

    sdk(studio).annotations.delete(id=gone)
    told = report(backend_url, project, compared=3, scratch=1, skipped=1)
    total = told["all"]["total"]
    assert (total["corrected"], total["false"], total["missed"]) == (1, 1, 1)
    for label, figures in by_hand(studio, project).items():
        for name, value in figures.items():
            assert told["all"]["labels"][label][name] == pytest.approx(value, abs=1e-5)

    sdk(studio).annotations.update(id=changed, result=regions[tasks[1]])
    before = wait_for_json(
        f"{backend_url}/projects/{project}/report.json",
        lambda told: not told["waiting"] and not told["all"]["total"]["corrected"],
    )["all"]

    def act(name: str) -> None:
        everything = {"selectedItems": {"all": True, "excluded": []}}
        studio.post(f"/api/dm/actions?id={name}&project={project}", json=everything)

    act("predictions_to_annotations")  # of the three tasks where no annotation began with one
    assert report(backend_url, project, compared=3, converted=3)["all"] == before
    act("delete_tasks_predictions")
    assert sdk(studio).annotations.get(id=changed).parent_prediction is None
    sdk(studio).annotations.update(id=changed, lead_time=20.0)
    assert report(backend_url, project, compared=3, converted=3)["all"] == before

    with no_complaints(page, backend_url):
        check_the_page(page, backend_url, project)


def test_tasks_that_are_to_be_drawn_from_nothing_get_no_prediction(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    project = new_project(LABELS, seeds=[10_000_320 + n for n in range(24)])
    url = f"{backend_url}/projects/{project}"
    asked = {"project": project, "url": backend_url, "measure": True}
    requests.post(f"{backend_url}/set-up", json=asked, timeout=60).raise_for_status()

    def prelabelled() -> set[int]:
        asked = {"project": project}
        job = requests.post(f"{backend_url}/jobs", json=asked, timeout=60).json()["id"]
        wait_for_json(f"{backend_url}/jobs/{job}", lambda told: told["state"] == "done")
        demo.retrieve_predictions(studio, project)
        return {each.task for each in sdk(studio).predictions.list(project=project)}

    tasks = {task.id for task in sdk(studio).tasks.list(project=project)}
    left_out = tasks - prelabelled()
    told = wait_for_json(url, lambda told: not told["trouble"])
    assert (told["counts"]["withheld"], told["next"]) == (len(left_out), "correct")
    assert len(left_out) < 12
    requests.post(f"{url}/report/stop", timeout=60).raise_for_status()
    assert prelabelled() == tasks

    # ---- ten predictions are drawn anew, as they are ---------------------------------------------
    predicted = {each.task: each for each in sdk(studio).predictions.list(project=project)}
    for task in sorted(tasks)[:10]:
        anew = [{**each, "id": f"anew-{each['id']}"} for each in predicted[task].result]
        known = {"parent_prediction": predicted[task].id, "lead_time": 20.0}
        sdk(studio).annotations.create(id=task, result=anew, **known)
    told = report(backend_url, project, compared=10)
    total = told["all"]["total"]
    assert (total["mean_iou"], total["saved_paint"]) == (1.0, 0.0)
    of_people = requests.get(f"{url}/report", headers={"Accept": "text/html"}, timeout=60).text
    assert "leave the label out" not in of_people

    # ---- the next one ends by itself -------------------------------------------------------------
    demo.upload(studio, project, map(demo.scene_file, range(10_000_344, 10_000_346)))
    requests.post(f"{url}/report/measure", timeout=60).raise_for_status()
    for each in sdk(studio).tasks.list(project=project):
        if not each.total_annotations:
            sdk(studio).annotations.create(id=each.id, result=[], lead_time=20.0)
    wait_for_json(f"{url}/report.json", lambda told: told["experiment"]["ended"] is not None)


def check_the_page(page: Page, backend_url: str, project: int) -> None:
    visit(page, backend_url)
    named = re.compile(rf"\({project}\)$")
    page.locator("#projects").get_by_role("link", name=named).click()
    page.get_by_role("link", name="Report").click()
    expect(page.get_by_role("heading", name="What the prelabels save")).to_be_visible()
    expect(page.locator("#hours-left")).to_be_visible()
    resize(page, PHONE)
    resize(page, SIZE)
    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    assert "saved_paint" in saved.value.path().read_text()
