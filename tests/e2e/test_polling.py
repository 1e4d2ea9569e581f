"""Annotations and new tasks are found by asking for them: Label Studio may call no webhook here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.conftest import MODEL
from tests.e2e.servers import wait_for
from tests.e2e.test_learning import CALLED, SEEDS, Team, corrected, true_masks

pytestmark = [pytest.mark.timeout(300), pytest.mark.thorough]

SETTINGS = {"POLL_INTERVAL_S": "1", "ADAPT_EVERY": "3", "AUTO_PRELABEL": "all"}


def test_annotations_and_new_tasks_are_found(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    port = demo_servers.free_port(0)

    @contextmanager
    def served() -> Iterator[str]:
        log = tmp_path / "backend.log"
        with demo_servers.served_backend(
            studio, model=MODEL, port=port, log=log, variables=SETTINGS
        ) as url:
            yield url

    def annotate(team: Team, task: int, predicted: Any) -> int:
        made = studio.client.annotations.create(
            id=task,
            result=corrected(predicted.result, true_masks(team.images[task])),
            parent_prediction=predicted.id,
            lead_time=20.0,
        )
        return int(made.id or 0)

    project = new_project(list(CALLED.values()), seeds=SEEDS[:6])
    with served() as url:
        demo.connect(studio, project, url)
        assert studio.client.webhooks.list(project=str(project)) == []
        demo.retrieve_predictions(studio, project)
        team = Team(studio, project, url)
        predicted = team.predictions(team.version())

        def compared() -> int:
            return int(team.report()["annotations"]["compared"])

        made = [annotate(team, task, predicted[task]) for task in team.tasks[:4]]
        wait_for(lambda: compared() == 4, "the last annotation")
        learning = f"{url}/projects/{project}/learning"
        wait_for(lambda: bool(requests.get(learning, timeout=60).json()["versions"]), "a version")

        studio.client.annotations.delete(id=made[0])
        studio.post(f"/api/annotations/{made[1]}/convert-to-draft")
        wait_for(lambda: compared() == 2, "the deletion, or the draft")

        demo.upload(studio, project, [demo.scene_file(10_000_900)])
        new = max(int(task.id) for task in studio.client.tasks.list(project=project))
        wait_for(lambda: bool(studio.client.predictions.list(task=new)), "the new prediction")

    annotate(team, team.tasks[4], predicted[team.tasks[4]])
    studio.client.tasks.delete(id=str(team.tasks[2]))
    with served():
        wait_for(lambda: compared() == 2, "what happened while the backend was away")
        status = requests.get(f"{url}/status", timeout=60).json()["connection"]
        polled = {each["project"]: each["trouble"] for each in status["polled"]}
        assert polled[project] == ""
