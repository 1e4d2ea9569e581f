"""Upgrades of databases of earlier versions, as SQLite and as a real PostgreSQL."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect

import backend.web.app
from backend.database import migrations
from backend.database.database import METADATA, Database
from backend.database.migrations.revisions import revisions
from backend.errors import DatabaseTooNew
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.feedback.sums.project_sums import ProjectSums, Step
from backend.jobs.job_store import JobStore
from tests.backend.fakes.old_databases import (
    EARLIEST,
    STATES,
    check_agreement,
    check_feedback,
    check_jobs,
    check_next_tasks,
    check_review,
    execute,
    make_old,
    rows,
    tables,
    upgrade_to,
)

CHANGES = (
    LabelDiff(
        "car", accepted=1, predicted_px=9, true_px=7, shared_px=5, band_shared_px=1, band_px=3
    ),
    LabelDiff("car", relabelled={"dog": 2}, predicted_px=3, image=1),
    LabelDiff("dog", deleted=1, received=2),
)

ROOT = Path(__file__).parents[3]

assert backend.web.app, "all that it imports has registered its tables"


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def other_url(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another empty database of the same engine."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/other.db"
    make: Callable[[str], str] = request.getfixturevalue("postgres_url")
    return make(f"other-{tmp_path.name}"[:60])


def schema(url: str) -> Any:
    """Return all that tells tables apart: on SQLite, their SQL."""
    if url.startswith("sqlite"):
        found = execute(url, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        made = {name: re.sub(r"\s+", " ", sql) for name, sql in found}
        return {name: sql for name, sql in made.items() if name != "alembic_version"}
    engine = create_engine(url)
    inspector = inspect(engine)
    made = {}
    for table in tables(url):
        columns = [{**each, "type": str(each["type"])} for each in inspector.get_columns(table)]
        indexes = sorted(inspector.get_indexes(table), key=repr)
        made[table] = columns, inspector.get_pk_constraint(table), indexes
    engine.dispose()
    return made


def test_a_new_database_has_the_tables_that_the_code_expects(
    url: str, connection: Connection
) -> None:
    Database(url).check()
    context = MigrationContext.configure(connection)
    assert compare_metadata(context, METADATA) == []
    assert tables(url) == set(METADATA.tables)


def test_all_tables_are_made_whichever_of_them_the_process_knows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    code = (
        "import sys; from backend.database.database import Database; Database(sys.argv[1]).check()"
    )
    subprocess.run([sys.executable, "-c", code, url], check=True, cwd=ROOT)
    assert tables(url) == set(METADATA.tables)


def test_the_first_revision_makes_the_tables_of_the_versions_before_it(
    url: str, other_url: str
) -> None:
    make_old(url, "0000_head")
    upgrade_to(other_url, "0001")
    assert schema(other_url) == schema(url)


@pytest.mark.parametrize("state", STATES)
def test_an_upgraded_database_has_the_tables_of_a_new_one(
    url: str, other_url: str, state: str
) -> None:
    make_old(url, state)
    Database(url).check()
    Database(other_url).check()
    assert schema(url) == schema(other_url)
    assert Database(url).revision() == revisions()[-1]


@pytest.mark.parametrize("state", STATES)
def test_every_earlier_database_is_read_after_its_upgrade(url: str, state: str) -> None:
    make_old(url, state)
    before = tables(url)
    assert [name for name, found in rows(url, before).items() if not found] == [], (
        f"Put rows of the tables that {state} makes into tests/backend/databases"
    )
    Database(url).check()
    check_jobs(url)
    if state != "partial":
        check_feedback(url)
    if "label_reviews" in before:
        check_review(url)
    if "agreements" in before:
        check_agreement(url)
    if "next_tasks" in before:
        check_next_tasks(url)


@pytest.mark.parametrize("state", ["partial", "0000_head"])
def test_a_database_without_revisions_is_adopted_with_its_rows_untouched(
    url: str, state: str
) -> None:
    make_old(url, state)
    before = rows(url, tables(url))
    upgrade_to(url, "0001")
    assert rows(url, set(before)) == before
    upgrade_to(url, "0007")
    for table, found in rows(url, set(before)).items():  # these revisions add columns behind
        kept = [row[: len(old)] for row, old in zip(found, before[table], strict=True)]
        assert kept == before[table]
    lists = execute(url, "SELECT id, tasks, scope FROM jobs WHERE tasks IS NOT NULL ORDER BY id")
    Database(url).check()
    assert execute(url, "SELECT * FROM job_tasks ORDER BY job") == lists
    assert execute(url, "SELECT version_num FROM alembic_version") == [(revisions()[-1],)]


def test_annotations_that_were_read_before_there_were_sums_are_summed_up(url: str) -> None:
    make_old(url, "0007")
    columns = (
        "annotation, project, kind, version, seconds, created, changes, reason, marked, seen, open,"
        " untaught, due, tries, owner, leased_until, task, updated"
    )
    changes = json.dumps([change.to_json() for change in CHANGES])
    legacy = '[{"label": "car", "true_px": 3}, {"label": "car", "true_px": 4}]'  # no image numbers
    for number, (kind, version, seconds, created, text) in enumerate(
        [
            ("compared", "v1", "83.456", "1795651200", changes),
            ("compared", "v1", "83.499", "1795651201", changes),
            ("compared", "v2", "NULL", "1799999999.5", legacy),
            ("scratch", "", "0.04", "1795651200", "[]"),
            ("skipped", "", "9", "1", "[]"),
            ("broken", "", "NULL", "0", "[]"),
        ],
        start=20,
    ):
        execute(
            url,
            f"INSERT INTO annotations ({columns}) VALUES ({number}, 8, '{kind}', '{version}', "
            f"{seconds}, {created}, '{text}', '', 1, 1, 0, 0, 0, 0, '', 0, 9, 0)".replace(
                ":", r"\:"
            ),
        )
    annotations = AnnotationStore(Database(url), "me")
    for project in (7, 8):
        for step in get_args(Step):
            counted = ProjectSums.of(annotations.stream(project), step)
            assert annotations.sums(project, step) == counted
    assert annotations.sums(8).all.kinds == {"compared": 3, "scratch": 1, "skipped": 1, "broken": 1}


def test_a_partial_database_holds_the_earliest_tables_only(url: str) -> None:
    make_old(url, "partial")
    assert tables(url) == EARLIEST


def test_revisions_are_numbered_in_the_order_in_which_they_follow_each_other() -> None:
    (folder,) = migrations.__path__
    scripts = ScriptDirectory(folder)
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == revisions()
    assert scripts.get_heads() == [revisions()[-1]]


def test_a_database_of_a_newer_version_is_refused_in_a_sentence(url: str) -> None:
    make_old(url, revisions()[-1])
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    before = rows(url, tables(url))
    for use in (
        Database(url).check,
        Database(url).revision,
        JobStore(Database(url)).list_jobs,
        lambda: JobStore(Database(url)).start_job(7),
    ):
        with pytest.raises(DatabaseTooNew, match=r"newer version .* 9999, .* install") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert rows(url, tables(url)) == before
    assert execute(url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_backends_that_start_together_upgrade_once(url: str) -> None:
    make_old(url, "0000_head")
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO); import alembic.command\n"
        "from backend.database.database import Database\n"
        "from backend.jobs.job_store import JobStore\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "store = JobStore(Database(sys.argv[1])); assert len(store.list_jobs()) == 2\n"
        "store.database.close()"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    said = [each.communicate(timeout=120)[1] for each in started]
    assert [each.returncode for each in started] == [0, 0, 0], said
    assert sum(text.count("The database is upgraded") for text in said) == 1
    assert execute(url, "SELECT version_num FROM alembic_version") == [(revisions()[-1],)]
    check_jobs(url)


def test_threads_that_open_one_database_upgrade_it_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "backend")
    make_old(url, "0000_head")
    _together([Database(url).check] * 4)
    assert caplog.text.count("The database is upgraded") == 1
    check_jobs(url)


def test_a_new_database_is_no_upgrade_to_tell_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "backend")
    Database(url).check()
    assert caplog.text == ""


def test_threads_upgrade_databases_of_their_own(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(6)]
    for url in urls:
        make_old(url, "partial")
    _together([Database(url).check for url in urls])
    for url in urls:
        assert tables(url) == set(METADATA.tables)
        check_jobs(url)


def test_an_upgrade_that_fails_changes_nothing(url: str) -> None:
    make_old(url, "partial")
    before = schema(url), rows(url, tables(url))

    def fail(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "CREATE TABLE learners" in statement:
            raise OSError("The disk is full")

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(ValueError, match="The disk is full"):
            Database(url).check()
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert (schema(url), rows(url, tables(url))) == before
    assert Database(url).revision() is None
    Database(url).check()
    check_jobs(url)


def test_alembic_is_not_even_imported_where_a_database_is_up_to_date(url: str) -> None:
    Database(url).check()
    code = (
        "import sys; from backend.database.database import Database\n"
        "from backend.jobs.job_store import JobStore\n"
        "JobStore(Database(sys.argv[1])).list_jobs()\n"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, url], check=True, cwd=ROOT)


def _together(calls: list[Callable[[], None]]) -> None:
    """Run all at once, each in its thread, and raise what one of them raises."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        start.wait()
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for running in [pool.submit(run, call) for call in calls]:
            running.result()
