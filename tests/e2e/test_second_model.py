"""A second encoder is switched on, learned with and switched off, each time by a restart alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from tests.core.clip.test_second_encoder import file_of
from tests.e2e.conftest import MODEL
from tests.e2e.servers import wait_for
from tests.e2e.test_learning import CALLED, SEEDS, Team, corrected, true_masks

pytestmark = [pytest.mark.timeout(600), pytest.mark.thorough]


def test_a_second_encoder_is_switched_on_learned_with_and_switched_off(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    port, second = demo_servers.free_port(0), file_of("test_efficientnet", tmp_path)

    @contextmanager
    def served(**variables: str) -> Iterator[Team]:
        variables = {"POLL_INTERVAL_S": "1", "ADAPT_EVERY": "6", **variables}
        log = tmp_path / "backend.log"
        with demo_servers.served_backend(
            studio, model=MODEL, port=port, log=log, variables=variables
        ) as url:
            yield Team(studio, project, url)

    def learned(team: Team) -> str:
        """Press Use once all six annotations have made a version, and return the predictions'."""
        wait_for(lambda: team.learned()["waits"] or " +6 v" in team.version(), "a version")
        wait_for(lambda: team.learned()["unread"] == 0, "annotations that are read again")
        if number := team.learned()["waits"]:
            requests.post(f"{team.learning}/use", json={"number": number}, timeout=60)
        assert " +6 v" in team.version()
        return team.version()

    def predicted(team: Team) -> object:
        (task,) = [{"id": team.tasks[6], "data": {"image": team.images[team.tasks[6]]}}]
        body = {"tasks": [task], "label_config": team.config, "project": f"{project}.1"}
        url = team.learning.partition("/projects")[0]
        answer = requests.post(f"{url}/predict", json=body, timeout=100).json()["results"]
        return [each["result"] for each in answer]

    project = new_project(list(CALLED.values()), seeds=SEEDS[:7])
    with served() as team:
        demo.connect(studio, project, team.learning.partition("/projects")[0])
        demo.retrieve_predictions(studio, project)
        first = team.predictions(team.version())
        for task in team.tasks[:6]:
            result = corrected(first[task].result, true_masks(team.images[task]))
            studio.client.annotations.create(
                id=task, result=result, parent_prediction=first[task].id, lead_time=20.0
            )
        alone, by_alone = learned(team), predicted(team)
    with served(SECOND_MODEL=second) as team:
        both = learned(team)
        status = requests.get(f"{team.learning.partition('/projects')[0]}/status", timeout=60)
        assert status.json()["model"]["name"] == f"{MODEL} + {second}"
    with served() as team:
        assert learned(team).rpartition(" v")[0] == alone.rpartition(" v")[0] != both
        assert predicted(team) == by_alone
