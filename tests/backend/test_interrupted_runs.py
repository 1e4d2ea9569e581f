"""Background runs that end in their middle: nothing is stored half or twice, and what is said.

A run is killed with its process, loses its PostgreSQL, or gets a login page in place of an answer.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.label_studio.client import LabelStudioClient
from backend.learning import unlabelled
from backend.runs.agreement import AGREEMENT
from backend.runs.run_store import Run
from backend.services import Services
from clearclip_core import Fit, UnlabelledFit
from tests.backend.conftest import Clock, Postgres
from tests.backend.fakes.colour_segmenter import teach
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.fakes.one_run import do_run, make_services
from tests.backend.learning.school import School
from tests.backend.runs.shared_project import brushed, shared_studio

ROOT = Path(__file__).parents[2]

#: A login page, as a proxy shows it where a session has ended.
PAGE = Answer(200, b"<h1>Log in</h1>", {"Content-Type": "text/html"})


@dataclass
class Bench:
    """A project, the server that stands for Label Studio, and the database of a backend.

    In the middle of the run, after what is asked for is stored, `at_middle` happens.
    """

    studio: FakeStudio
    url: str
    database_url: str
    at_middle: Callable[[], Answer | None] = lambda: None
    asked: int = 0

    def fault(self, asked: Asked) -> Answer | None:
        """Answer as always, but once."""
        self.asked += asked.path.partition("?")[0].rstrip("/").endswith("/annotations")
        if self.asked < 2:  # for the annotations of the second task
            return None
        with self.studio.lock:
            self.studio.fault = lambda _: None
            answer = self.studio.answer(asked)
        return self.at_middle() or answer

    @cached_property
    def services(self) -> Services:
        return make_services(self.database_url, self.url)

    def do(self) -> Run:
        """Do the run in this process; the value is what became of it."""
        services = make_services(self.database_url, self.url)
        try:
            return do_run(services, AGREEMENT)
        finally:
            services.database.close()

    def last(self) -> Any | None:
        made = self.services.runs.last(AGREEMENT, 7)
        return None if made is None else made[1]

    def is_done(self) -> bool:
        """Whether all is as after a run that nothing has interrupted."""
        report = self.last()
        return report is not None and report.tasks == 4


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A project that is ready for a run: all kinds go one way."""
    studio = shared_studio(*[[(1, [brushed((0, 0, 9, 9))]), (2, [brushed((0, 0, 8, 8))])]] * 4)
    with studio.served() as server:
        bench = Bench(studio, server.url, f"sqlite:///{tmp_path}/runs.db")
        studio.fault = bench.fault
        yield bench
        bench.services.database.close()


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command, env = [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, **options)


def wait_long_for_no_answer(monkeypatch: pytest.MonkeyPatch, studio_url: str) -> None:
    client = LabelStudioClient(studio_url, TOKEN, retry_for_s=0.1, first_pause_s=0.01)
    monkeypatch.setattr(Services, "client", client)


@pytest.mark.thorough
def test_a_run_whose_process_is_killed(bench: Bench) -> None:
    killed = start("-m", "tests.backend.fakes.one_run", bench.database_url, bench.url)

    def kill() -> Answer:
        killed.kill()
        killed.wait(60)
        return Answer(504)

    bench.at_middle = kill
    assert killed.wait(120) == -signal.SIGKILL
    assert bench.last() is None
    run = bench.do()
    assert (run.state, run.reason) == ("done", "")
    assert bench.is_done()


def test_a_login_page_that_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:

    def page_from_now_on() -> Answer:
        bench.studio.fault = lambda _: PAGE
        return PAGE

    bench.at_middle = page_from_now_on
    wait_long_for_no_answer(monkeypatch, bench.url)
    run = bench.do()
    assert run.state == "failed"
    assert "it may be a login or maintenance page" in run.reason
    assert bench.last() is None
    bench.studio.fault = lambda _: None
    assert bench.do().state == "done"
    assert bench.is_done()


@pytest.mark.parametrize("answer", [PAGE, Answer(500), Answer(403)])
def test_one_task_that_is_never_served(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    bench.studio.fault = lambda asked: answer if "/tasks/2/" in asked.path else None
    wait_long_for_no_answer(monkeypatch, bench.url)
    run = bench.do()
    assert (run.state, run.reason) == ("done", "")
    report = bench.last()
    assert (report.tasks, [*report.left_out]) == (3, [2])


#: A backend that begins a step on the database of its argument, and never ends it.
ENDLESS_STEP = """
import sys, time
from backend.database.database import Database
from backend.learning import unlabelled
from tests.backend.learning.school import School
school = School(Database(sys.argv[1]), "killed")
def fit(*_, **__):
    print("at work", flush=True)
    time.sleep(600)
school.learner.fit_examples = unlabelled.adapt_unlabelled = fit
school.step()
"""


@pytest.mark.thorough
@pytest.mark.parametrize("corrected", [True, False])
def test_a_step_of_learning_whose_process_is_killed(
    tmp_path: Path, corrected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, clock = f"sqlite:///{tmp_path}/killed.db", Clock(time.time())
    database = Database(url, clock)
    school = School(database, "other")
    if corrected:
        school.learn(1, 2)
    else:
        made = UnlabelledFit(teach(wine="red"), 30)
        monkeypatch.setattr(unlabelled, "adapt_unlabelled", lambda *_: made)
        school.stores.versions.request_step(7, unlabelled=True)
    with start("-c", ENDLESS_STEP, url, stdout=subprocess.PIPE) as killed:
        assert killed.stdout.readline() == "at work\n"
        killed.kill()
    assert_made_once(school, clock)
    database.close()


def test_a_step_of_learning_that_loses_its_database(postgres: Postgres, tmp_path: Path) -> None:
    clock = Clock(time.time())
    database = Database(postgres.make_url(f"step-{tmp_path.name}"[:60]), clock)
    school, fit = School(database), School(database).fits

    def stop(*arguments: Any, **named: Any) -> Fit:
        postgres.stop()
        return fit(*arguments, **named)

    school.learn(1, 2)
    school.learner.fit_examples = stop
    try:
        with pytest.raises(OperationalError):
            school.step()
    finally:
        postgres.start()
    assert_made_once(School(database, "other"), clock)
    database.close()


def assert_made_once(school: School, clock: Clock) -> None:
    """Nothing is kept of a step that ended in its middle, and another makes it after its lease."""
    assert school.stores.versions.versions(7) == []
    assert school.labels() == ["blue"]
    clock.now = time.time()
    assert not school.step(), "it may be at work still"
    clock.now = time.time() + LEASE_S + 1
    assert school.step()
    assert not school.step()
    assert len(school.stores.versions.versions(7)) == 1
    assert school.labels() == ["wine", "blue"]
