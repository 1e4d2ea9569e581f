"""Databases as earlier versions of the backend have left them, with rows in every table.

``databases/0000_head.*.sql`` is a dump of what the backend made before it had revisions. Where a
revision makes a table, ``databases/<revision>.<engine>.sql`` holds rows to put into it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url

from backend.agreement.agreement_report import (
    AgreementReport,
    AnnotatorFigures,
    Confusion,
    Dispute,
    DisputedLabel,
    LabelFigures,
)
from backend.agreement.agreement_store import AgreementStore
from backend.database.database import Database
from backend.database.migrations.revisions import revisions, upgrade
from backend.database.project_reports import StoredReport
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.versions import LearningState, TrainingExample, Version
from backend.feedback.read_annotation import ReadAnnotation
from backend.jobs.job import Job
from backend.jobs.job_store import JobStore
from backend.label_errors.review_report import ReviewReport, Suspicion
from backend.label_errors.review_store import ReviewStore
from backend.prediction.failures import Failure, FailureStore
from backend.prediction.outbox import PredictionOutbox
from backend.task_order.next_tasks import NextTask, NextTasks
from backend.task_order.next_tasks_store import NextTasksStore

#: The tables of the release that had jobs only, and no revisions.
EARLIEST = {"jobs", "failures", "results"}

#: All states that a database can be upgraded from.
STATES = ("partial", "0000_head", *revisions())

_FOLDER = Path(__file__).parents[1] / "database" / "dumps"


def make_old(url: str, state: str) -> None:
    """Make a database of one of `STATES`."""
    _run(url, "0000_head")
    if state == "partial":
        for table in tables(url) - EARLIEST:
            execute(url, f"DROP TABLE {table}")
    for revision in revisions():
        if revision <= state < "a":
            upgrade_to(url, revision)
            _run(url, revision)


def upgrade_to(url: str, revision: str) -> None:
    """Run the revisions up to one."""
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection, revision)
    engine.dispose()


def tables(url: str) -> set[str]:
    """Return the names of all tables but Alembic's own."""
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement, and return its rows."""
    engine = create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def rows(url: str, names: set[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of tables, in a fixed order."""
    return {name: sorted(execute(url, f"SELECT * FROM {name}"), key=repr) for name in names}


def _run(url: str, name: str) -> None:
    """Run a file of statements, where there is one."""
    engine = make_url(url)
    file = _FOLDER / f"{name}.{engine.get_backend_name()}.sql"
    if not file.exists():
        return
    script = file.read_text(encoding="utf-8")
    if engine.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(engine.database))) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(script)
    else:
        with psycopg.connect(engine.set(drivername="postgresql").render_as_string()) as connected:
            connected.execute(script.encode())


def check_jobs(url: str) -> None:
    """Check that the store reads the jobs, failures and results of `make_old`."""
    store = JobStore(Database(url, lambda: 2000.0))
    assert store.list_jobs() == [QUEUED, FAILED]
    assert FailureStore(store.database).newest() == [
        Failure(0, 1 << 40, "Not an image.", 1010.5),
        Failure(1, 9, "No image: “é”.", 1000.0),
    ]
    results = PredictionOutbox(store.database, "host:1:aa")
    ready, work = (
        "9a921aeca26bd960310b3e7379774726e6c224d0",
        "3b20c928fef8304601ae7de7dfa7ce47baa27b9d",
    )
    assert results.count_waiting() == {7: 2}
    assert results.orphans() == {7: {work: 2}}
    entry = {"model_version": "v1", "score": 0.5, "result": [1]}
    assert results.take([ready, work], 2000.0) == {ready: entry}
    assert store.start_job(9).id == 3
    FailureStore(store.database).add([(4, "It is new.")])
    store.database.close()


def check_review(url: str) -> None:
    """Check that the store reads the review and the confirmed annotation of `make_old`."""
    store = ReviewStore(Database(url))
    suspicion = Suspicion(
        *(3, 12, 1700000000.25, None, "label", "car", "tree", 2.5, True),
        preview="data:image/jpeg;base64,/9j/",
        suggestion="data:image/jpeg;base64,/9k/",
    )
    report = ReviewReport(4, 3, 1.5, (suspicion,), {9: "Gone."}, 1)
    assert store.last(7) == StoredReport(1700000010.5, report)
    assert store.confirmed(7) == {12: 1700000000.25}


def check_agreement(url: str) -> None:
    """Check that the store reads the report on agreement of `make_old`."""
    dispute = Dispute(
        *(3, None, 2, 0.25, (DisputedLabel("car", 0.5, 0.75, 0.25),)),
        picture="data:image/jpeg;base64,/9j/",
    )
    report = AgreementReport(
        *(1, 1, 2, 1.5, 0.25),
        labels=(LabelFigures("car", 1, 0.5, 0.75, None, 0.25),),
        confusions=(Confusion("car", "", 0.25),),
        annotators=(AnnotatorFigures(5, "Ann", 1, 0.5, None),),
        disputes=(dispute,),
        dispute_count=1,
        left_out={9: "Gone."},
        left_out_count=1,
    )
    assert AgreementStore(Database(url)).last(7) == StoredReport(1700000010.5, report)


def check_next_tasks(url: str) -> None:
    """Check that the store reads the next tasks of `make_old`."""
    tasks = (NextTask(4, "data:image/jpeg;base64,/9j/"),)
    report = NextTasks(2, tasks, 9, 3, 2, 1, 1.5, {9: "Gone."}, 1)
    assert NextTasksStore(Database(url)).last(7) == StoredReport(1700000010.5, report)


def check_feedback(url: str) -> None:
    """Check that the stores read the annotations, training examples and versions of `make_old`."""
    store = JobStore(Database(url, lambda: 2000.0))
    annotations = AnnotationStore(store.database, "me")
    change = LabelDiff("car", accepted=1, relabelled={"dog": 2}, true_px=9)
    assert annotations.read(7) == [
        ReadAnnotation(4, 7, 104, "compared", "v1", 4, 1.5, 10.0, 11.0, (change,))
    ]
    assert [each.annotation for each in annotations.lease(10)] == [3]
    examples = ExampleStore(store.database, lambda: "model")
    registry = VersionRegistry(store.database, lambda: "model")
    assert examples.examples(7) == [TrainingExample("a", b"\x00\x01example", "{}", 1010.5, 3)]
    assert registry.state(7) == LearningState(7, 1, False, 0, False, 1, 1, "")
    version, adaptation = registry.version(7, 1)
    assert version == VERSION
    assert adaptation is not None
    assert adaptation.names == ("car",)
    assert adaptation.directions.tolist() == [[0.5, 0.5]]
    assert examples.replace(5, 7, [TrainingExample("b", b"new", "{}")])
    store.database.close()


FAILED = Job(
    id=1,
    project=7,
    kind="project",
    only="all",
    view=3,
    limit=10,
    task_count=2,
    lists_tasks=True,
    state="failed",
    version="v1",
    total=4,
    done=2,
    skipped=1,
    failed=1,
    cursor=5,
    worked_s=0.0,
    reason="It cannot go on.",
    created=1000.0,
    updated=1010.5,
    started=1000.0,
    finished=1010.5,
    owner="host:1:aa",
    leased_until=0.0,
)
QUEUED = Job(
    id=2,
    project=8,
    kind="new",
    only="unlabeled",
    view=None,
    limit=None,
    task_count=1,
    lists_tasks=True,
    state="queued",
    version="",
    total=None,
    done=0,
    skipped=0,
    failed=0,
    cursor=0,
    worked_s=0.0,
    reason="",
    created=1010.5,
    updated=1010.5,
    started=None,
    finished=None,
    owner="",
    leased_until=0.0,
)
VERSION = Version(
    annotations=1,
    pictures=1,
    digest="digest",
    better=True,
    text_iou=0.4,
    adapted_iou=0.5,
    text_ious={"car": 0.4},
    adapted_ious={"car": 0.5},
    thresholds={"car": 0.3},
    adapted_thresholds={},
    origin="step",
    created=1010.5,
    number=1,
)
