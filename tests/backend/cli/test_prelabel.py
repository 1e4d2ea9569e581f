"""`clearclip-backend prelabel`: predict a project, be stopped, killed and run again."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backend.cli.prelabel import prelabel as prelabel_command
from backend.database.database import Database
from backend.database.leases import new_owner
from backend.jobs import prelabeler
from backend.jobs.job_store import JobStore
from tests.backend.fakes.colour_segmenter import brush_config, data_url, flag
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.waiting import wait_for

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prelabeler, "_CLOSING_PAUSE_S", 0.05)
    monkeypatch.setattr(prelabeler, "_POLL_S", 0.05)


@contextmanager
def drawn_studio(count: int) -> Iterator[tuple[FakeStudio, str]]:
    picture = data_url(flag("red", "green", size_hw=(64, 96)))
    tasks = {i: {"image": picture} for i in range(1, count + 1)}
    studio = FakeStudio(brush_config("grass"), tasks)
    with studio.served() as server:
        yield studio, server.url


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def each_once(count: int) -> dict[int, int]:
    """Task -> how many predictions it has got."""
    return dict.fromkeys(range(1, count + 1), 1)


def prelabelled(url: str, database: Path) -> str:
    """What the command says whose tasks all get a prediction."""
    result = CliRunner().invoke(prelabel_command, arguments(url, database))
    assert result.exit_code == 0, result.output
    return result.output


def arguments(url: str, database: Path, *more: str) -> list[str]:
    reach = ["--label-studio-url", url, "--label-studio-api-key", TOKEN]
    small = ["--model", "demo", "--short-side-px", "64"]
    return ["--project", "7", *reach, *small, "--database-url", f"sqlite:///{database}", *more]


def test_the_command_predicts_reports_and_skips_the_next_time(database: Path) -> None:
    with drawn_studio(5) as (studio, url):
        studio.tasks[2] = {"image": "data:image/png;base64,AAAA"}
        failed = CliRunner().invoke(prelabel_command, arguments(url, database))
        assert failed.exit_code == 1, failed.output
        assert "4 done, 0 skipped, 1 failed of 5" in failed.output
        assert "1 x The file is not an image that" in failed.output
        studio.tasks[2] = studio.tasks[1]
        assert "1 done, 4 skipped, 0 failed of 5" in prelabelled(url, database)
        assert studio.stored() == each_once(5)


def test_ctrl_c_writes_what_is_predicted_and_the_same_command_goes_on(database: Path) -> None:
    with drawn_studio(150) as (studio, url):
        command = [sys.executable, "-m", "backend", "prelabel", *arguments(url, database)]
        run = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_for(studio.stored)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 130, output
        assert "The same command goes on from here." in output
        assert 0 < len(studio.stored()) < 150
        prelabelled(url, database)
        assert studio.stored() == each_once(150)
        assert sum(studio.imports) == 150
    assert len(JobStore(Database(f"sqlite:///{database}")).list_jobs()) == 1


def test_a_killed_run_is_taken_over_at_once_on_the_same_machine(database: Path) -> None:
    store = JobStore(Database(f"sqlite:///{database}"))
    job = store.start_job(7)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = re.sub(r":\d+:[^:]+$", "", new_owner())
    store.lease_job(f"{host}:{dead.pid}:abcd")
    with drawn_studio(2) as (studio, url):
        prelabelled(url, database)
        assert studio.stored() == each_once(2)
    assert store.get_job(job.id).state == "done"


def test_a_job_of_another_is_watched(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(Database(f"sqlite:///{database}"))
    job, other, tries = store.start_job(7), "another:1:abcd", list[Any]()
    store.lease_job(other)

    def lease_job(*asked: Any) -> None:
        tries.append(asked)
        if len(tries) == 2:
            store.advance(job.id, other, total=2, done=2)
            store.finish(job.id, other)

    monkeypatch.setattr(JobStore, "lease_job", lease_job)
    with drawn_studio(2) as (studio, url):
        assert "2 done, 0 skipped, 0 failed of 2" in prelabelled(url, database)
        assert studio.stored() == {}
