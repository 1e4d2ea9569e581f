"""What people look at every few seconds, with a million tasks and 100,000 annotations."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert

from backend import create_app
from backend.database.database import Database
from backend.feedback import sums
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ANNOTATIONS
from backend.feedback.comparison import LabelDiff
from backend.feedback.sums import GroupSums
from backend.jobs.job_store import JobStore
from backend.learning.examples import EXAMPLES, MOST_ANNOTATIONS
from backend.prediction.failures import FailureStore
from backend.services import Services
from backend.settings import Settings
from tests.backend.conftest import postgres, postgres_url  # noqa: F401 -- fixtures
from tests.backend.fakes.colour_segmenter import colour_engine
from tests.backend.fakes.report import rows_of
from tests.bench.conftest import Report
from tests.bench.timing import seconds

TASKS = 1_000_000
ANNOTATIONS_READ = 100_000
LABELS = 20
DAYS = 120
VERSIONS = 20
FAILED = 1000
ROUNDS = 11
FIRST_DAY = 1_790_000_000


def change(annotation: int, label: int) -> LabelDiff:
    shared = 1000 + annotation % 97 + 10 * label
    return LabelDiff(
        f"label {label}",
        accepted=annotation % 2,
        corrected=1,
        predicted_px=shared + annotation % 31,
        true_px=shared + annotation % 17,
        shared_px=shared,
    )


def changes(annotation: int) -> list[LabelDiff]:
    return [change(annotation, (annotation + each) % LABELS) for each in range(5)]


def annotation_row(number: int) -> dict[str, Any]:
    return {
        "annotation": number,
        "project": 7,
        "task": number,
        "kind": "compared",
        "version": f"ViT-B-16/openai clearclip {number * VERSIONS // ANNOTATIONS_READ:08x}",
        "seconds": 5 + number % 3000 / 17,
        "created": FIRST_DAY + number * DAYS * 86400 / ANNOTATIONS_READ,
        "changes": msgspec.json.encode(changes(number)).decode(),
        "marked": 1,
        "seen": 1,
        "open": 0,
        "untaught": 0,
    }


def fill(database: Database) -> None:
    for start in range(0, ANNOTATIONS_READ, 10_000):
        rows = [annotation_row(number) for number in range(start, start + 10_000)]
        with database.write() as connection:
            connection.execute(insert(ANNOTATIONS), rows)
    groups: dict[Any, GroupSums] = {}
    for read in rows_of(AnnotationStore(database, "bench")):
        for group in sums.groups_of(read):
            groups.setdefault((read.project, *group), GroupSums()).add(read)
    with database.write() as connection:
        connection.execute(insert(sums._SUMS), [sums.sums_row(*each) for each in groups.items()])


def teach(database: Database, model: str) -> None:
    """Keep a training example of each annotation that may have one."""
    same = {"model": model, "picture": 0, "project": 7, "example": bytes(1000)}
    numbers = range(ANNOTATIONS_READ - MOST_ANNOTATIONS, ANNOTATIONS_READ)
    rows = [same | {"annotation": number, "digest": f"{number:064x}"} for number in numbers]
    with database.write() as connection:
        connection.execute(insert(EXAMPLES), rows)


def once(call: Callable[[], Any]) -> str:
    cpu_s = time.process_time()
    wall_s = seconds(call)
    return f"{wall_s:.2f} s ({time.process_time() - cpu_s:.2f} CPU)"


def spread(call: Callable[[], Any]) -> str:
    call()
    times, cpu_times = [], []
    for _ in range(ROUNDS):
        cpu_s = time.process_time()
        times.append(seconds(call))
        cpu_times.append(time.process_time() - cpu_s)
    return (
        f"{1000 * statistics.median(times):.1f} ms ({1000 * statistics.median(cpu_times):.1f} CPU)"
    )


@pytest.mark.parametrize("engine", ["SQLite", "PostgreSQL"])
def test_pages_are_flat(
    report: Report,
    engine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    url = f"sqlite:///{tmp_path}/flat.db"
    if engine == "PostgreSQL":
        url = request.getfixturevalue("postgres_url")("flat")
    monkeypatch.setenv("DATABASE_URL", url)
    database = Database(url)
    fill(database)
    store = JobStore(database)
    ids = range(1, TASKS + 1)
    start = once(lambda: store.start_job(7, kind="new", tasks=ids))
    for project in range(8, 27):
        store.start_job(project, kind="new", tasks=range(1, 100_001))
    job = store.lease_job("bench", 1)
    assert job is not None
    scope = once(lambda: store.advance(1, "bench", version="v", total=TASKS, scope=ids))
    report.add(
        f"a job of {TASKS:,} listed tasks starts, {engine}",
        "1 s",
        f"{start}, its scope {scope}",
        "one row written in one transaction",
    )
    settings, engine_of_colours = Settings(model="demo"), colour_engine()
    teach(database, Services(settings, engine_of_colours).learner.versions._model_key())
    FailureStore(database).add([(task, "It is no image.") for task in range(FAILED)])
    client: FlaskClient = create_app(settings, engine_of_colours).test_client()
    for path in ("/status", "/jobs", "/projects/7/report.json", "/projects/7/report?step=day"):
        people = {"Accept": "text/html"} if "?" in path else {}
        name = "the report's page, 120 days" if people else path
        report.add(
            f"{name}, {engine}",
            "30 ms",
            spread(lambda path=path, people=people: client.get(path, headers=people)),
            f"20 jobs of 100,000 to {TASKS:,} tasks, {ANNOTATIONS_READ:,} annotations of "
            f"{LABELS} labels, {MOST_ANNOTATIONS:,} learned from, {VERSIONS} model versions, "
            f"{FAILED:,} failed tasks; median of {ROUNDS}",
        )
    database.close()
