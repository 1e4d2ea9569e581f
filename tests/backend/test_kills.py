"""A backend that is killed again and again with everything at work: nothing is lost or doubled.

It predicts, reads annotations, writes and takes back reviews, learns from corrections and from
pictures that nobody has corrected, and makes a data set, with a second encoder, while people go on.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
import timm
import torch
from sqlalchemy import select

from backend.database.database import METADATA, Database
from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.job_store import JobStore
from backend.learning.examples import STATES
from backend.learning.versions import VERSIONS
from backend.review import verdicts  # noqa: F401 -- its table
from backend.runs.dataset import DATASETS
from backend.runs.run_store import RunStore
from clearclip_core import render_scene
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer, free_port
from tests.backend.fakes.report import rows_of
from tests.backend.fakes.waiting import wait_for

KILLS: Final = int(os.environ.get("CLEARCLIP_KILLS", "5"))
LABELS: Final = ("sky", "grass", "tree")
SIZE_HW: Final = (64, 96)
PROJECT: Final = "/projects/7"

#: The backend, which here takes leases over sooner, and tries sooner again.
HASTY: Final = """
from backend.database import leases
leases.LEASE_S = 2.0
from backend.jobs import change_poller, worker
change_poller.DOUBLE_FOR_S = change_poller.OVERLAP_S = 1.0
change_poller.SETTLED_AFTER_S = 0.0
worker._RETRY_AFTER_S = 0.5
from backend.__main__ import main
main()
"""

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(1800)]


def picture(number: int) -> str:
    return data_url(render_scene(number, size_hw=SIZE_HW).image, "jpeg")


class Team:
    """People who annotate, review and ask, each time a little; the backend may end meanwhile."""

    def __init__(self, studio: FakeStudio, url: str) -> None:
        self.studio = studio
        self.url = url
        self.undone: set[int] = set()  # tasks whose verdict is taken back for sure
        self.judged: set[int] = set()
        self._random = random.Random(0)
        self._round = 0

    def work(self) -> None:
        """Do a little of everything."""
        self._round += 1
        with self.studio.lock:
            for _ in range(3):
                self.studio.create({"image": picture(len(self.studio.tasks) + 1)})
            self._annotate()
        self._ask("/setup", project="7.1", schema=self.studio.label_config)
        self._ask("/jobs", project=7)
        self._ask(f"{PROJECT}/datasets", formats=["coco"])
        self._ask(f"{PROJECT}/learning/{self._random.choice(['step', 'unlabelled'])}")
        self._review()

    def learn(self) -> None:
        """Ask for a step of learning from corrections."""
        assert self._ask(f"{PROJECT}/learning/step")

    def _annotate(self) -> None:
        """Correct two tasks from their predictions, and change an earlier annotation."""
        free = [task for task in self.studio.stored() if not self.studio._is_annotated(task)]
        for task in [each for each in free if each not in self.judged][:2]:
            made = next(each for each in self.studio.predictions if each["task"] == task)
            more = {"parent_prediction": made["id"]}
            self.studio.annotate(task, self._drawn(), self.studio.now, **more)
        own = [id_ for id_, each in self.studio.annotations.items() if "unique_id" not in each]
        if own:
            self.studio.update(self._random.choice(own), result=self._drawn())

    def _drawn(self) -> list[dict[str, Any]]:
        """Return a stripe of some width in some label."""
        mask = np.zeros(SIZE_HW, np.bool_)
        mask[:, : self._random.randint(10, 90)] = True
        return [brush_region(mask, self._random.choice(LABELS), to_name="image")]

    def _review(self) -> None:
        with self.studio.lock:
            made = {each["task"]: each for each in self.studio.predictions}
            free = [task for task in made if not self.studio._is_annotated(task)]
        some = [task for task in free if task not in self.judged][-3:]
        said = [
            {"task": task, "prediction": made[task]["id"], "verdict": "good", "seconds": 2.0}
            for task in some
        ]
        seat = f"seat{self._round}"
        body = {"seat": seat, "since": time.time() - 1, "verdicts": said}
        self.judged.update(some)
        if not some or not self._ask(f"{PROJECT}/review", **body) or self._round % 3:
            return
        if self._ask(f"{PROJECT}/review/undo?seat={seat}"):
            self.undone.update(some)

    def _ask(self, path: str, **body: Any) -> bool:
        """Ask for something; return whether that was answered."""
        with suppress(httpx.HTTPError):
            return httpx.post(f"{self.url}{path}", json=body, timeout=20).status_code < 400
        return False


class Killed:
    """A backend that is started again after each kill."""

    def __init__(self, database_url: str, studio_url: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self._env = os.environ | {
            "DATABASE_URL": database_url,
            "LABEL_STUDIO_URL": studio_url,
            "LABEL_STUDIO_API_KEY": TOKEN,
            "MODEL": "demo",
            "MODEL_DIR": str(folder),
            "SECOND_MODEL": second_model(folder),
            "SHORT_SIDE_PX": "64",
            "POLL_INTERVAL_S": "1",
            "AUTO_PRELABEL": "7",
            "ADAPT_EVERY": "2",
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, "-c", HASTY, "serve", "--port", str(self.port)]
        with (
            self.log.open("ab") as log,
            subprocess.Popen(command, env=self._env, stdout=log, stderr=log) as process,
        ):
            try:
                wait_for(self._is_ready, "The backend")
                yield
            finally:
                process.kill()

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        return False


def second_model(folder: Path) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(timm.create_model("test_vit").state_dict(), folder / "second.pth")
    return f"test_vit@{folder}/second.pth"


class Outcome:
    """What is in the database of a backend."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.annotations = AnnotationStore(database)

    def open(self) -> dict[str, int]:
        """Work that is left: kind -> number."""
        states = JobStore(self._database).count_states()
        left = {"annotations": self.annotations.count_open(7)}
        left |= {"jobs": states["queued"] + states["running"]}
        left |= {"runs": sum(not run.is_over for run in RunStore(self._database).runs(DATASETS, 7))}
        reviews = METADATA.tables["reviews"].c.open
        left["reviews"] = sum(row.open for row in self._database.rows(select(reviews)))
        asked = self._database.rows(select(STATES.c.asked))
        left["steps"] = sum(row.asked != 0 for row in asked)
        return {kind: number for kind, number in left.items() if number}

    def verdicts(self) -> set[int]:
        """Tasks whose prediction was called good and gets an annotation."""
        its = METADATA.tables["reviews"].c
        query = select(its.task).where(its.verdict == "good", its.checked == 0, its.trouble == "")
        return {row.task for row in self._database.rows(query)}

    def versions(self) -> int:
        return len(self._database.rows(select(VERSIONS.c.number)))


@pytest.fixture
def studio() -> FakeStudio:
    made = FakeStudio(brush_config(*LABELS), {n: {"image": picture(n)} for n in range(1, 25)})
    made.backends.append({"id": 1, "url": "http://backend", "created_at": "2001-01-01T00:00:00Z"})
    return made


def test_kills_with_everything_at_work(
    url: str, studio: FakeStudio, server: LocalServer, tmp_path: Path
) -> None:
    killed = Killed(url, server.url, tmp_path)
    team, chance = Team(studio, killed.url), random.Random(1)
    for _ in range(KILLS):
        with killed.running():
            team.work()
            time.sleep(chance.uniform(0, 4))

    database = Database(url)
    outcome = Outcome(database)
    with killed.running():
        wait_for(lambda: all_predicted(studio), "A prediction of each task")
        wait_for(lambda: not outcome.open(), f"The end of {outcome.open()}")
        wait_for(lambda: max(versions_of(studio).values()) == 1, "One prediction of each version")
        wait_for(lambda: len(rows_of(outcome.annotations)) == len(studio.annotations), "All")
        team.learn()  # a step that was killed three times is given up until somebody asks again
        wait_for(outcome.versions, "A version")

    reviewed = Counter(each["task"] for each in studio.annotations.values() if "unique_id" in each)
    assert set(reviewed) == outcome.verdicts()
    assert set(reviewed.values()) <= {1}
    assert not team.undone & set(reviewed)
    said = killed.log.read_text()
    assert " ERROR " not in said
    assert "Traceback" not in said
    database.close()


def versions_of(studio: FakeStudio) -> Counter[tuple[int, str]]:
    """Task and version -> number of predictions."""
    with studio.lock:
        return Counter((each["task"], each["model_version"]) for each in studio.predictions)


def all_predicted(studio: FakeStudio) -> bool:
    with studio.lock:
        free = {task for task in studio.tasks if not studio._is_annotated(task)}
        return free <= set(studio.stored())
