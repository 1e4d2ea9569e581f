"""Whole projects, against a stand-in for Label Studio's API; tests/e2e has the real one."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.database.leases import LeaseLost
from backend.errors import ImageNotFound, ImageRefused, ModelUnavailable
from backend.inference.engine import Engine
from backend.jobs.job_store import Job, JobStore
from backend.jobs.job_tasks import CHUNK
from backend.jobs.prelabeler import Prelabeler
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.batches import TaskRunner
from backend.prediction.predictor import Predictor
from backend.projects.failures import FailureStore
from backend.projects.task_scope import TaskScope
from backend.settings import Settings
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, flag, teach
from tests.backend.fakes.databases import FlakyDatabase, end_leases
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.learning_stores import LearningStores, version_with
from tests.backend.fakes.local_server import LocalServer

pytestmark = pytest.mark.usefixtures("short_pauses")

COUNT = 130  # several chunks, the last of them not full


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {i: {"image": f"{i}"} for i in range(1, COUNT + 1)})


def read_image(source: str, task: Task) -> RGBArray:
    if source == "gone":
        raise ImageNotFound("There is no such image.")
    return flag("red", "blue", size_hw=(4, 8))


@dataclass
class Bench:
    store: JobStore
    prelabeler: Prelabeler
    predictor: Predictor
    owner: str
    stopping: threading.Event

    def run(self, watch: Callable[[Job], None] = lambda _: None, **asked: Any) -> Job:
        self.store.start_job(7, **asked)
        job = self.store.lease_job(self.owner)
        return self.prelabeler.run(job, self.stopping, watch)

    def version(self, config: str) -> str:
        return self.predictor.versions.current(parse_label_config(config, None))


Make = Callable[..., Bench]


@pytest.fixture
def make_bench(server: LocalServer, tmp_path: Path) -> Make:
    def make(
        owner: str = "me",
        engine: Engine | None = None,
        read: Callable[[str, Task], RGBArray] = read_image,
        retry_for_s: float = 20.0,
        make_database: Callable[[str], Database] = Database,
    ) -> Bench:
        store = JobStore(make_database(f"sqlite:///{tmp_path}/jobs.db"))
        runner = TaskRunner(FailureStore(store.database), store, 80)
        predictor = Predictor(engine or colour_engine(), read, Settings(), task_runner=runner)
        stopping = threading.Event()
        client = LabelStudioClient(
            server.url, TOKEN, retry_for_s=retry_for_s, first_pause_s=0.01, stopping=stopping
        )
        prelabeler = Prelabeler(
            store=store,
            task_runner=runner,
            predictor=predictor,
            client=client,
            owner=owner,
            scope=TaskScope.of(store.database),
        )
        return Bench(store, prelabeler, predictor, owner, stopping)

    return make


@pytest.fixture
def bench(make_bench: Make) -> Bench:
    return make_bench()


def each_once(count: int = COUNT) -> dict[int, int]:
    return dict.fromkeys(range(1, count + 1), 1)


def test_every_task_gets_one_prediction_also_new_ones(bench: Bench, studio: FakeStudio) -> None:
    steps = []

    def add(step: Job) -> None:
        steps.append(step.done)
        studio.tasks[COUNT + 1] = {"image": "new"}

    job = bench.run(add)
    assert (job.state, job.total, job.done, job.failed) == ("done", COUNT + 1, COUNT + 1, 0)
    assert job.version == bench.version(studio.label_config)
    assert studio.stored(job.version) == each_once(COUNT + 1)
    assert max(studio.imports) <= CHUNK
    assert steps == sorted(steps)


def test_what_is_predicted_or_annotated_is_left_alone(bench: Bench, studio: FakeStudio) -> None:
    version = bench.version(studio.label_config)
    for task in (1, 2, 3):
        studio.add(task, version)
    studio.add(4, "an older version")
    studio.annotated = {5, 6}
    job = bench.run()
    assert (job.total, job.done, job.skipped) == (COUNT - 2, COUNT - 5, 3)
    assert studio.stored(version) == {t: 1 for t in range(1, COUNT + 1) if t not in (5, 6)}
    again = bench.run(only="all")
    assert (again.total, again.done, again.skipped) == (COUNT, 2, COUNT - 2)
    assert studio.stored(version) == each_once()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"limit": 3}, [1, 2, 3]),
        ({"view": 1}, [7, 8, 90]),
        ({"view": 1, "limit": 2}, [7, 8]),
        ({"kind": "new", "tasks": [5, 4, 999]}, [4, 5]),
    ],
)
def test_part_of_project(bench: Bench, studio: FakeStudio, asked: Any, expected: list[int]) -> None:
    studio.views[1] = [90, 8, 7]
    job = bench.run(**asked)
    assert (job.state, job.done) == ("done", len(expected))
    assert sorted(studio.stored()) == expected


def test_a_paused_job_rests_and_a_cancelled_one_ends(bench: Bench, studio: FakeStudio) -> None:
    there = 4 * COUNT  # far more than the chunks that are under way when it is told to stop
    studio.tasks = {i: {"image": f"{i}"} for i in range(1, there + 1)}

    def pause(job: Job) -> None:
        if job.done and job.state == "running":
            bench.store.pause(job.id)

    job = bench.run(pause)
    assert job.state == "paused"
    assert 0 < len(studio.stored()) < there / 2
    bench.store.release(job.id, "me")
    bench.store.resume(job.id)

    def cancel(job: Job) -> None:
        if job.state == "running":
            bench.store.cancel(job.id)

    job = bench.run(cancel)
    assert job.state == "cancelled"
    assert len(studio.stored()) < there


def test_failures_cost_nobody_else_and_are_retried(make_bench: Make, studio: FakeStudio) -> None:
    asked: Counter[str] = Counter()

    def read(source: str, task: Task) -> RGBArray:
        asked[source] += 1
        if source == "5" or asked[source] == 1:
            raise ImageRefused("The host cannot be reached.")
        return read_image(source, task)

    studio.tasks[2] = {"image": "gone"}
    studio.tasks[3] = {"other": "key"}
    studio.refused = {4}
    bench = make_bench(read=read)
    job = bench.run()
    assert (job.state, job.done, job.failed) == ("done", COUNT - 4, 4)
    failures = FailureStore(bench.store.database).of_job(job.id)
    reasons = {failure.task: failure.reason for failure in failures}
    assert reasons.keys() == {2, 3, 4, 5}
    assert reasons[2] == "There is no such image."
    assert "$image" in reasons[3]
    assert "no label" in reasons[4]
    assert (asked["5"], asked["7"], asked["gone"]) == (3, 2, 2)


def test_after_an_outage_of_the_database_it_goes_on(make_bench: Make, studio: FakeStudio) -> None:
    bench = make_bench(make_database=FlakyDatabase)
    database = bench.store.database

    def leave(job: Job) -> None:
        if job.done:
            database.away = float("inf")

    with pytest.raises(OperationalError):
        bench.run(leave)
    assert 0 < len(studio.stored()) < COUNT
    database.away = 0
    bench.store.release(1, "me")
    job = bench.run()
    assert (job.state, job.done) == ("done", COUNT), "what it had written is counted, too"
    assert studio.stored() == each_once()


def test_a_label_config_that_changes_meanwhile_counts(bench: Bench, studio: FakeStudio) -> None:

    def change(job: Job) -> None:
        if job.done:
            studio.label_config = brush_config("blue")

    job = bench.run(change)
    assert job.state == "done"
    assert job.version == bench.version(brush_config("blue"))
    assert studio.stored(job.version) == each_once()


def test_learning_meanwhile_leaves_a_job_its_version(bench: Bench, studio: FakeStudio) -> None:
    """Else one that takes hours would begin anew with every few annotations, and never end."""
    start = bench.version(studio.label_config)
    learning = LearningStores.of(bench.store.database, "who learns")
    bench.predictor.versions._learned = learning.versions

    def learn(job: Job) -> None:
        if job.done:
            learning.replace_all(job.done)
            lease = learning.lease()
            scores = replace(teach(red="blue"), pictures=job.done)
            learning.versions.commit(lease, version_with(scores), scores)
            learning.use_first()

    job = bench.run(learn)
    assert (job.state, job.version, job.done) == ("done", start, COUNT)
    assert studio.stored() == each_once()
    newest = bench.predictor.versions.current(parse_label_config(studio.label_config, None), 7)
    assert newest != start
    job = bench.run(only="all")
    assert (job.state, job.version, job.done) == ("done", newest, COUNT)


@pytest.mark.parametrize(("config", "sentence"), [("<View/>", "Image"), (None, "no such project")])
def test_what_can_never_work_fails_with_a_sentence(
    bench: Bench, studio: FakeStudio, config: str | None, sentence: str
) -> None:
    studio.label_config = config or studio.label_config
    studio.project = 7 if config else 8
    job = bench.run()
    assert job.state == "failed"
    assert sentence in job.reason


def test_who_has_lost_the_lease_stops(bench: Bench, studio: FakeStudio) -> None:

    def steal(job: Job) -> None:
        if job.done and job.owner == "me":
            bench.store.release(job.id, "me")
            bench.store.lease_job("thief")

    with pytest.raises(LeaseLost):
        bench.run(steal)
    assert len(studio.stored()) < COUNT


def test_a_task_at_which_every_process_dies_fails(make_bench: Make, studio: FakeStudio) -> None:
    read_at = list[int]()

    def read(source: str, task: Task) -> RGBArray:
        if source == "deadly":
            read_at.append(len(studio.stored()))
            raise ModelUnavailable("as if the process had died")
        return read_image(source, task)

    studio.tasks[3] = {"image": "deadly"}
    for number in range(3):
        bench = make_bench(f"dies-{number}", read=read)
        with pytest.raises(ModelUnavailable):
            bench.run()
        end_leases(bench.store.database, bench.owner)
    bench = make_bench("lives", read=read)
    job = bench.run()
    assert (job.state, job.done, job.failed) == ("done", COUNT - 1, 1)
    assert studio.stored() == {task: 1 for task in each_once() if task != 3}
    (failure,) = FailureStore(bench.store.database).of_job(job.id)
    assert failure.task == 3
    assert "ended 3 times" in failure.reason
    assert read_at[-1] >= COUNT - CHUNK, "what it was not at was done before"


def test_a_death_counts_for_what_its_owner_was_at(bench: Bench) -> None:
    job = bench.store.start_job(7)
    for owner, deaths in (("a", {}), ("a", {}), ("b", {1: 1, 2: 1}), ("b", {1: 1, 2: 1})):
        assert bench.store.lease_job(owner) is not None
        assert bench.store.tasks(job).deaths == deaths
        bench.store.advance(job.id, owner, at_work=[1, 2])
        end_leases(bench.store.database, owner)
    bench.store.release(job.id, "b")
    bench.store.lease_job("c")
    assert bench.store.tasks(job).deaths == {1: 1, 2: 1}, "it was given back"
