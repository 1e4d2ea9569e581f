"""Whole projects on the real Label Studio, with a slow model, killed and stopped in the middle.

The predictions at the end are counted through Label Studio's own API.
"""

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from PIL import Image

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from backend.database.database import Database
from backend.jobs.job_store import JobStore
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.local_server import free_port
from tests.backend.fakes.waiting import wait_for
from tests.e2e.conftest import MODEL
from tests.e2e.servers import OwnLabelStudio, sdk

pytestmark = pytest.mark.thorough

LABELS = ["sky", "tree"]
SMALL = ["--model", MODEL, "--short-side-px", "64"]
SLOW = [sys.executable, "-m", "tests.e2e.slow_segmenter"]

MakeProject = Callable[[LabelStudioProcess, int], int]


@pytest.fixture(scope="module")
def studio(own_studio: OwnLabelStudio) -> LabelStudioProcess:
    return own_studio.studio


@pytest.fixture
def make_project() -> Iterator[MakeProject]:
    made: list[tuple[LabelStudioProcess, int]] = []
    name, content = demo.scene_file(10_000_200)
    scene = Image.open(io.BytesIO(content)).resize((96, 72))

    def small(number: int) -> bytes:
        file = io.BytesIO()
        scene.putpixel((0, 0), (number % 256, number // 256, 0))  # or its features would be known
        scene.save(file, "png")
        return file.getvalue()

    def make(studio: LabelStudioProcess, count: int) -> int:
        project = demo.create_project(studio, LABELS, title="Many scenes")
        files = ((f"{number}-{name}", small(number)) for number in range(count))
        demo.upload(studio, project, files)
        made.append((studio, project))
        return project

    yield make
    for where, project in made:
        sdk(where).projects.delete(id=project)


@contextmanager
def slow_backend(
    studio: LabelStudioProcess, seconds_a_picture: float, log: Path, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with demo_servers.running(
        [*SLOW, str(seconds_a_picture), "serve", "--port", str(port), *SMALL],
        variables=reach(studio) | variables,
        health=f"{url}/ready",
        log=log,
        timeout_s=120,
    ) as process:
        yield url, process


def reach(studio: LabelStudioProcess) -> dict[str, str]:
    servers = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    return servers | {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": "", "OMP_WAIT_POLICY": "PASSIVE"}


def bulk_run(
    studio: LabelStudioProcess, project: int, seconds_a_picture: float, database: Path
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SLOW, str(seconds_a_picture), "prelabel", "--project", str(project), *SMALL],
        env=os.environ | reach(studio) | {"DATABASE_URL": f"sqlite:///{database}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def press_retrieve(studio: LabelStudioProcess, project: int) -> None:
    everything = {"selectedItems": {"all": True, "excluded": []}}
    action = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    studio.post(action, json=everything)


def predictions(studio: LabelStudioProcess, project: int) -> Counter[int]:
    return Counter(p.task for p in sdk(studio).predictions.list(project=project))


def assert_each_task_has_one(studio: LabelStudioProcess, project: int, count: int) -> None:
    stored = predictions(studio, project)
    assert len(stored) == count
    assert set(stored.values()) == {1}


def test_pressing_retrieve_again_predicts_all_of_100_tasks(
    studio: LabelStudioProcess, make_project: MakeProject, tmp_path: Path
) -> None:
    """The backend has no token, so only its responses can deliver the predictions."""
    project = make_project(studio, 100)
    options = {"LABEL_STUDIO_API_KEY": "", "DATABASE_URL": f"sqlite:///{tmp_path}/one.db"}
    options["PREDICT_DEADLINE_S"] = "4"
    with slow_backend(studio, 0.08, tmp_path / "log", **options) as (url, _):
        demo.connect(studio, project, url)
        counts = []
        while len(counts) < 40 and (not counts or counts[-1] < 100):
            press_retrieve(studio, project)
            counts.append(len(predictions(studio, project)))
    assert 0 < counts[0] < 100, counts
    assert counts == sorted(set(counts)), "each press brings more"
    assert_each_task_has_one(studio, project, 100)


def test_what_is_late_is_written_by_a_job_that_outlives_kill_9(
    studio: LabelStudioProcess, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(studio, 200)
    store = JobStore(Database(f"sqlite:///{tmp_path}/one.db"))
    options = {"PREDICT_DEADLINE_S": "3", "DATABASE_URL": f"sqlite:///{tmp_path}/one.db"}
    with slow_backend(studio, 0.2, tmp_path / "log", **options) as (url, process):
        demo.connect(studio, project, url)
        press_retrieve(studio, project)
        (job,) = store.list_jobs()
        press_retrieve(studio, project)  # while the rest is made and written
        wait_for(lambda: store.get_job(job.id).done > 0, "the first step")
        os.killpg(process.pid, signal.SIGKILL)
        assert 0 < len(predictions(studio, project)) < 200
    end_leases(store.database, store.get_job(job.id).owner)
    with slow_backend(studio, 0.02, tmp_path / "log", **options) as (url, _):
        wait_for(lambda: store.get_job(job.id).over, "the rest")
        wait_for(lambda: {*predictions(studio, project).values()} == {1}, "each once")
    assert [(job.kind, job.state) for job in store.list_jobs()] == [("late", "done")]
    assert_each_task_has_one(studio, project, 200)


def kill_and_go_on(
    studio: LabelStudioProcess, project: int, tasks: int, kills: int, folder: Path
) -> list[int]:
    """Kill bulk runs at different moments, and let the last run finish, without duplicates.

    The value is how many tasks had no prediction after each kill.
    """
    database = folder / "bulk.db"
    store = JobStore(Database(f"sqlite:///{database}"))
    chance = random.Random(0)
    left = []
    for _ in range(kills):
        written = tasks - left[-1] if left else 0
        run = bulk_run(studio, project, 0.15, database)
        # The database is asked, as the run could end while Label Studio responds.
        wait_for(lambda written=written: counted(store) > written, "progress")  # type: ignore[misc]
        time.sleep(chance.uniform(0, 1.5))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        (job,) = store.list_jobs()
        end_leases(store.database, job.owner)
        left.append(tasks - len(predictions(studio, project)))
    run = bulk_run(studio, project, 0.01, database)
    output, _ = run.communicate(timeout=180)
    assert run.returncode == 0, output
    assert_each_task_has_one(studio, project, tasks)
    (job,) = store.list_jobs()  # it was one all the time
    assert (job.state, job.total, job.failed) == ("done", tasks, 0)
    assert job.done + job.skipped == tasks
    return left


def counted(store: JobStore) -> int:
    return sum(job.done + job.skipped for job in store.list_jobs())


def test_a_bulk_run_that_is_killed_three_times_ends_complete_and_without_duplicates(
    studio: LabelStudioProcess, make_project: MakeProject, tmp_path: Path
) -> None:
    left = kill_and_go_on(studio, make_project(studio, 120), 120, 3, tmp_path)
    assert left[0] > left[1] > 0


def test_a_bulk_run_outlives_a_label_studio_that_is_away_for_a_while(
    own_studio: OwnLabelStudio,
    studio: LabelStudioProcess,
    make_project: MakeProject,
    tmp_path: Path,
) -> None:
    project = make_project(studio, 80)
    run = bulk_run(studio, project, 0.2, tmp_path / "bulk.db")
    wait_for(lambda: len(predictions(studio, project)) > 0, "the first predictions")
    own_studio.stop()
    assert run.stdout is not None
    notices = (line for line in run.stdout if "next try in" in line)
    assert [next(notices, ""), next(notices, "")][-1], "it has noticed, and gone on trying"
    assert run.poll() is None
    own_studio.start()
    output = run.stdout.read()
    assert run.wait(180) == 0, output
    assert_each_task_has_one(studio, project, 80)


def test_two_backends_share_a_job_and_one_of_them_is_killed(
    studio: LabelStudioProcess, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(studio, 60)
    url = f"sqlite:///{tmp_path}/shared.db"
    store = JobStore(Database(url))
    with ExitStack() as stack:
        processes = {}
        for number in range(2):
            log = tmp_path / f"log-{number}"
            _, process = stack.enter_context(slow_backend(studio, 0.2, log, DATABASE_URL=url))
            processes[number] = process
        job = store.start_job(project)
        wait_for(lambda: store.get_job(job.id).done > 0, "the first step")
        owner = store.get_job(job.id).owner
        (dies,) = (p for p in processes.values() if owns(p, owner))
        os.killpg(dies.pid, signal.SIGKILL)
        end_leases(store.database, owner)
        wait_for(lambda: store.get_job(job.id).over, "the end of the job")
        over = store.get_job(job.id)
    assert over.owner != owner
    assert (over.state, over.done, over.failed) == ("done", 60, 0)
    assert_each_task_has_one(studio, project, 60)


def owns(process: subprocess.Popen[bytes], owner: str) -> bool:
    """Whether an owner is a process of this group."""
    return os.getpgid(int(owner.split(":")[1])) == process.pid
