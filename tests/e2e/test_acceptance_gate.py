"""The acceptance gate on the real Label Studio: its views, its annotations, and its page."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server

from backend import create_app
from backend.cli.demo_servers import LabelStudioProcess
from backend.cli.main import main
from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.feedback.gate.gate_keeper import NOTE, VIEW_TITLES
from backend.feedback.read_annotation import ReadAnnotation
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import colour_engine
from tests.e2e.conftest import MODEL
from tests.e2e.editor import open_tab, settled

LABELS = ["sky", "grass", "tree", "house"]
SEEDS = list(range(10_000_800, 10_000_808))
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "gate.png"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1100, "height": 900}


def correct(url: str, project: int, version: str) -> None:
    """Let 800 tasks be corrected: the sky is always right, other labels from some score on."""
    rng = np.random.default_rng(4)
    database = Database(url)
    annotations = AnnotationStore(database, "me")
    safe_from = dict(zip(LABELS, (0.0, 0.2, 0.35, 0.6), strict=True))
    for task in range(1, 801):
        changes = []
        for label in rng.choice(LABELS, 2, replace=False).tolist():
            score = float(rng.random())
            px = {"predicted_px": 9, "score": score}
            if score > safe_from[label] or rng.random() < 0.4:
                changes.append(LabelDiff(label, accepted=1, true_px=9, shared_px=9, **px))
            else:
                changes.append(LabelDiff(label, deleted=1, **px))
        annotation = 1_000_000 + task
        annotations.mark(project, [annotation])
        (pending,) = annotations.lease(1)
        read = ReadAnnotation(
            annotation, project, annotation, "compared", version, changes=tuple(changes)
        )
        assert annotations.complete(pending, read)
    database.close()


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Serve the pages of a backend."""
    app = create_app(settings, colour_engine())
    worker = app.extensions["worker"]
    worker.start()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        worker.stop()


def read_annotations(runner: CliRunner, project: int, file: Path) -> dict[str, int]:
    """Read all annotations and count them by kind, those too that the backend is just reading."""
    command = ["report", "--project", str(project), "--backfill", f"--json={file}"]
    end = time.monotonic() + 60
    while True:
        read = runner.invoke(main, command)
        assert read.exit_code == 0, read.output
        told = json.loads(file.read_text())
        if not told["waiting"]:
            return dict(told["annotations"])
        assert time.monotonic() < end, told


def test_tasks_pass_are_shown_accepted_and_withdrawn(
    page: Page, studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    """Find and show by the command, accept and withdraw on the page; look at the picture."""
    project = new_project(LABELS, seeds=SEEDS)
    url = f"sqlite:///{tmp_path}/gate.db"
    env = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    runner = CliRunner(env=env | {"DATABASE_URL": url})
    model = ["--model", MODEL, "--short-side-px", "64"]
    made = runner.invoke(main, ["prelabel", "--project", str(project), *model])
    assert made.exit_code == 0, made.output
    predictions = list(studio.client.predictions.list(project=project))
    correct(url, project, str(predictions[0].model_version))

    out = tmp_path / "gate.json"
    asked = ["gate", "--project", str(project), "--gate-audit-share", "0.2", f"--json={out}"]
    found = runner.invoke(main, [*asked, "--find", "--show"])
    assert found.exit_code == 0, found.output
    told = json.loads(out.read_text())
    assert told["state"] == "open"
    listed = set(told["task_ids"]["listed"])
    assert listed
    asks = {each["label"]: each["asked"] for each in told["gate"]["labels"]}
    safe = {
        each.task
        for each in predictions
        if each.result
        and all(
            asks[region["value"]["brushlabels"][0]] is not None
            and region["score"] >= asks[region["value"]["brushlabels"][0]]
            for region in each.result
        )
    }
    assert listed | set(told["task_ids"]["audit"]) == safe
    views = {view.data["title"]: view.id for view in studio.client.views.list(project=project)}
    shown = studio.client.tasks.list(project=project, view=views[VIEW_TITLES["listed"]])
    assert {task.id for task in shown} == listed, "the data manager filters the same tasks"
    open_tab(page, studio.url, project, views[VIEW_TITLES["listed"]])

    settings = Settings(
        label_studio_url=studio.url,
        label_studio_api_key=studio.token,
        database_url=url,
        gate_audit_share=0.2,
        poll_interval_s=0,
    )
    with served(settings) as backend:
        page.goto(f"{backend}/projects/{project}/gate")
        expect(page.locator("#state")).to_contain_text("at least 95 % need no change at all")
        page.set_viewport_size(DESK)  # type: ignore[arg-type]
        path = PICTURE if os.environ.get("TAKE_PICTURE") else tmp_path / PICTURE.name
        path.write_bytes(settled(page))
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.set_viewport_size({"width": 1440, "height": 900})
        page.once("dialog", lambda question: question.dismiss())
        page.locator("#accept").click()
        assert not list(studio.client.annotations.list(id=min(listed))), "nobody said yes"
        page.once("dialog", lambda question: question.accept())
        page.locator("#accept").click()
        expect(page.locator("#run")).to_contain_text(f"{len(listed)} tasks annotated by the gate")
        for task in listed:
            (annotation,) = studio.client.annotations.list(id=task)
            assert annotation.lead_time is None
            assert {region["meta"]["text"][0] for region in annotation.result} == {NOTE}
        kinds = read_annotations(runner, project, tmp_path / "report.json")
        assert kinds["converted"] == len(listed)
        assert kinds["scratch"] == kinds["lost"] == 0
        page.reload()
        page.once("dialog", lambda question: question.accept())
        page.locator("#withdraw").click()
        expect(page.locator("#run")).to_contain_text("without the gate's annotation again")
        assert not [each for task in listed for each in studio.client.annotations.list(id=task)]
