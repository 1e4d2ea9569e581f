"""Jobs, tasks and failures as JSON: linked, and without secrets."""

from __future__ import annotations

import json

import pytest

from backend.errors import ImageNotFound
from backend.label_studio.download import LabelStudioFiles
from backend.prediction.failures import FailureStore
from backend.telemetry.logs import stage
from tests.backend.web.pages.status_scene import KEY, Scene


def test_what_runs_and_what_failed_is_linked_to_label_studio() -> None:
    scene = Scene()
    with scene.tracker.task(5, 7, "batch") as work:
        work.failed(ImageNotFound("There is no file at /data/upload/7/a.png."))
    with scene.tracker.task(6, 7, "opened"), stage("model"):
        now = scene.read()
    (running,) = now["running"]
    assert (running["task"], running["stage"]) == (6, "model")
    assert running["url"] == "http://label-studio:8080/projects/7/data?task=6"
    (error,) = now["errors"]
    assert error["url"] == "http://label-studio:8080/projects/7/data?task=5"
    assert error["sentence"] == "There is no file at /data/upload/7/a.png."
    assert now["projects"] == [{"project": 7, "done": 0, "failed": 1}]


@pytest.mark.parametrize("hostname", ["javascript:alert(1)", "data:text/html,x", "//x", "x"])
def test_nothing_but_web_addresses_is_linked_to(hostname: str) -> None:
    scene = Scene()
    scene.files.use_setup(hostname, "")
    assert scene.read()["label_studio"] == "http://label-studio:8080"
    files = LabelStudioFiles()
    files.use_setup(hostname, "")
    assert files.browser_url is None


def test_a_task_that_failed_in_a_job_is_named_once() -> None:
    scene = Scene()
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", failures=[(5, "Gone."), (6, "Gone.")])
    with scene.tracker.task(5, 7, "batch") as work:
        work.failed(ImageNotFound("Gone."))
    for _ in range(3):  # it is tried again
        with scene.tracker.task(5, 7, "batch") as work:
            work.failed(ImageNotFound("Gone."))
    FailureStore(scene.store.database).add([(6, "Gone.")])
    errors = {error["task"]: error for error in scene.read()["errors"]}
    assert sorted(errors) == [5, 6]
    assert len(scene.read()["errors"]) == 2
    assert (errors[5]["project"], errors[5]["job"]) == (7, job.id)
    assert errors[6]["url"] == "http://label-studio:8080/projects/7/data?task=6"


def test_tasks_without_a_prediction_are_counted_and_not_their_tries() -> None:
    scene = Scene()
    failures = FailureStore(scene.store.database)
    failures.add([(number, "Gone.") for number in range(15)], project=7)
    for sentence in ("Gone.", "There is no file."):
        with scene.tracker.task(5, 7, "batch") as work:
            work.failed(ImageNotFound(sentence))
    now = scene.read()
    assert now["failed"] == 2, "tries since the start"
    assert now["failing"]["tasks"] == len(now["errors"]) == 15
    first, *_ = now["errors"]
    assert (first["task"], first["sentence"]) == (5, "There is no file.")
    assert now["failing"]["since"] == first["since"] < first["at"]
    failures.add([(number, "Gone.") for number in range(15, 30)], project=7)
    now = scene.read()
    assert (now["failing"]["tasks"], len(now["errors"])) == (30, 20)


def test_what_another_backend_has_predicted_since_fails_no_more() -> None:
    scene = Scene()
    failures = FailureStore(scene.store.database)
    for task in (5, 6):
        with scene.tracker.task(task, 7, "batch") as work:
            work.failed(ImageNotFound("Gone."))
        failures.add([(task, "Gone.")], project=7)
    failures.solve([5])
    now = scene.read()
    assert [error["task"] for error in now["errors"]] == [6]
    assert now["failing"]["tasks"] == 1


def test_no_secret_is_seen() -> None:
    scene = Scene()
    with scene.tracker.task(f"\n{KEY}", 7, "batch") as work:
        work.failed(RuntimeError(f"refused {KEY} at http://a:hunter2@host/"))
    text = json.dumps(scene.status.read())
    assert KEY not in text
    assert "hunter2" not in text
