"""Set projects up: several people at once, labels that a project does not get, a changed config."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend.database.database import Database
from backend.errors import Busy, LabelConfigChanged, StudioRefused
from backend.feedback.experiment import ENOUGH, ONE_IN, ExperimentStore
from backend.jobs import set_up as room
from backend.jobs.job_store import JobStore
from backend.jobs.set_up import SetUpDone, SetUpRequest, SetUps
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.runs.run_store import RunStore
from backend.runs.words import WORDS
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked

URL = "http://backend:9090"

#: Owner -> what sets projects up in a process of that name; all share a database.
Processes = Callable[[str], SetUps]


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("<View></View>", {11: {"image": "/data/upload/7/a.png"}})


@pytest.fixture
def client(studio: FakeStudio) -> Iterator[LabelStudioClient]:
    with studio.served() as server:
        yield LabelStudioClient(server.url, TOKEN, retry_for_s=0)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/backend.db")


@pytest.fixture
def processes(database: Database) -> Processes:
    def process(owner: str) -> SetUps:
        return SetUps(Settings(), database, owner, RunStore(database, owner), JobStore(database))

    return process


def asked(**more: Any) -> SetUpRequest:
    return SetUpRequest(**{"project": 7, "url": URL, "labels": "sky, tree"} | more)


def done(result: Any) -> SetUpDone:
    assert isinstance(result, SetUpDone)
    return result


def slowly(asked: Asked) -> Answer | None:
    """Let a connection take its time, as the backend is called meanwhile."""
    if asked.method == "POST" and asked.path.startswith("/api/ml"):
        time.sleep(0.2)
    return None


def press_at_once(
    processes: Processes, client: LabelStudioClient, *requests: SetUpRequest
) -> list[SetUpDone]:
    """Set up by a process for each request, all at the same moment."""
    ready = threading.Barrier(len(requests))

    def press(number: int, request: SetUpRequest) -> SetUpDone:
        process = processes(f"process {number % 2}")
        ready.wait()
        return done(process.set_up(client, request, checks=True))

    with ThreadPoolExecutor(len(requests)) as pool:
        return [*pool.map(press, range(len(requests)), requests)]


def test_four_presses_at_once_make_one_connection(
    studio: FakeStudio, client: LabelStudioClient, processes: Processes, database: Database
) -> None:
    studio.fault = slowly
    pressed = press_at_once(processes, client, *[asked()] * 4)
    assert [each["url"] for each in studio.backends] == [URL]
    assert len({each.job.id for each in pressed}) == 1
    assert len(RunStore(database).runs(WORDS, 7)) == 1


def test_of_two_leads_at_once_the_second_reads_which_labels_were_not_added(
    studio: FakeStudio, client: LabelStudioClient, processes: Processes
) -> None:
    studio.fault = slowly
    pressed = press_at_once(processes, client, asked(labels="sky"), asked(labels="pine; oak"))
    (said,) = (each.notices for each in pressed if "labels already" in each.notices)
    names = [each.name for each in parse_label_config(studio.label_config, None).labels]
    left = {"sky": "“pine”, “oak” were not added", "pine": "“sky” was not added"}
    assert left[names[0]] in said


def test_labels_that_the_project_has_are_not_told_of(
    studio: FakeStudio, client: LabelStudioClient, processes: Processes
) -> None:
    studio.label_config = brush_config("sky", "tree", "sea")
    pressed = processes("one").set_up(client, asked(labels="tree; sky"), checks=True)
    assert "labels already" not in done(pressed).notices


def test_who_waits_too_long_is_told_so(
    client: LabelStudioClient, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_WAIT_S", 0.0)
    with processes("one")._alone(7), pytest.raises(Busy, match="Somebody sets project 7 up"):
        processes("another").set_up(client, asked(), checks=True)
    assert done(processes("another").set_up(client, asked(), checks=True)).job.project == 7


def test_others_are_set_up_meanwhile(client: LabelStudioClient, processes: Processes) -> None:
    with processes("one")._alone(8):
        assert done(processes("another").set_up(client, asked(), checks=True)).job.project == 7


def test_a_set_up_that_fails_lets_the_next_one_in(
    studio: FakeStudio, client: LabelStudioClient, processes: Processes
) -> None:
    studio.fault = lambda asked: Answer(403, b"{}") if "/api/ml" in asked.path else None
    with pytest.raises(StudioRefused):
        processes("one").set_up(client, asked(), checks=True)
    studio.fault = lambda asked: None
    assert done(processes("another").set_up(client, asked(), checks=True)).job.project == 7


def test_a_config_that_somebody_changes_meanwhile_is_no_matter_of_words(
    studio: FakeStudio,
    client: LabelStudioClient,
    processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studio.label_config = brush_config("sky")
    offered = room.offered_config

    def offered_before_a_change(client: LabelStudioClient, project: int) -> Any:
        offer = offered(client, project)
        studio.label_config = brush_config("sky", "sea")
        return offer

    monkeypatch.setattr(room, "offered_config", offered_before_a_change)
    with pytest.raises(LabelConfigChanged) as refusal:
        processes("one").set_up(client, asked(tools="change"), checks=True)
    assert "set it up again" in str(refusal.value)
    assert "measured" not in str(refusal.value)


def test_what_a_prediction_saves_is_measured_from_the_first_job_on(
    studio: FakeStudio, client: LabelStudioClient, processes: Processes, database: Database
) -> None:
    studio.tasks = {task: {"image": "/data/a.png"} for task in range(1, ONE_IN * ENOUGH + 1)}
    pressed = done(processes("one").set_up(client, asked(measure=True), checks=True))
    assert "not measured" not in pressed.notices
    assert ExperimentStore(database).is_running(7)


def test_few_tasks_are_not_measured_and_the_set_up_says_so(
    client: LabelStudioClient, processes: Processes, database: Database
) -> None:
    pressed = done(processes("one").set_up(client, asked(measure=True), checks=True))
    assert "that takes 300 tasks" in pressed.notices
    assert not ExperimentStore(database).is_running(7)


def test_a_job_that_predicts_already_is_not_measured(
    studio: FakeStudio, client: LabelStudioClient, processes: Processes, database: Database
) -> None:
    studio.tasks = {task: {"image": "/data/a.png"} for task in range(1, ONE_IN * ENOUGH + 1)}
    first = done(processes("one").set_up(client, asked(), checks=True)).job.id
    pressed = done(processes("one").set_up(client, asked(measure=True), checks=True))
    assert f"job {first} predicts the tasks now" in pressed.notices
    assert not ExperimentStore(database).is_running(7)
