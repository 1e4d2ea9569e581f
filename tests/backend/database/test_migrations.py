"""The tables of a new database, and databases of other versions, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event

import backend.web.app
from backend.cli.serve import wait_for_database
from backend.database import migrations
from backend.database.database import METADATA, Database
from backend.database.migrations.revisions import revisions
from backend.errors import DatabaseRefused
from backend.jobs.job_store import JobStore
from tests.backend.database.test_backup import process
from tests.backend.fakes.databases import check_filled, execute, fill, rows, tables

assert backend.web.app, "all that it imports has registered its tables"


def test_a_new_database_has_the_tables_that_the_code_expects(url: str) -> None:
    Database(url).check()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
    assert tables(url) == set(METADATA.tables)


def test_revisions_are_numbered_in_the_order_in_which_they_follow_each_other() -> None:
    (folder,) = migrations.__path__
    scripts = ScriptDirectory(folder)
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == revisions()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", r"newer version .* 9999, .* install"),
        ("UPDATE alembic_version SET version_num = '0017'", r"unreleased version .* before 0\.2"),
        ("DROP TABLE alembic_version", r"unreleased version .* before 0\.2"),
    ],
)
def test_a_database_of_another_version_is_refused_in_a_sentence(
    url: str, change: str, sentence: str
) -> None:
    fill(url)
    execute(url, change)
    before = rows(url)
    for use in (
        Database(url).check,
        Database(url).revision,
        JobStore(Database(url)).list_jobs,
        lambda: JobStore(Database(url)).start_job(7),
        lambda: wait_for_database(Database(url)),
    ):
        with pytest.raises(DatabaseRefused, match=sentence) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert rows(url) == before


def test_backends_that_start_together_make_all_tables_once(url: str) -> None:
    """Those of parts, too, that the process does not import."""
    code = (
        "import sys; import alembic.command\n"
        "from backend.database.database import Database\n"
        "from backend.jobs.job_store import JobStore\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "store = JobStore(Database(sys.argv[1])); store.start_job(7); store.database.close()"
    )
    with ExitStack() as stack:
        for each in [stack.enter_context(process(code, url)) for _ in range(3)]:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
    assert tables(url) == set(METADATA.tables)
    assert execute(url, "SELECT version_num FROM alembic_version") == [(revisions()[-1],)]
    assert execute(url, "SELECT count(*) FROM jobs") == [(1,)]


def test_threads_make_databases_of_their_own(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(6)]
    start = threading.Barrier(len(urls))

    def make(url: str) -> None:
        start.wait()
        Database(url).check()

    with ThreadPoolExecutor(len(urls)) as pool:
        list(pool.map(make, urls))
    assert all(tables(url) == set(METADATA.tables) for url in urls)


def test_tables_are_made_all_or_none(url: str) -> None:
    def fail(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "CREATE TABLE jobs" in statement:
            raise OSError("The disk is full")

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(ValueError, match="The disk is full"):
            Database(url).check()
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert tables(url) == set()
    assert Database(url).revision() is None
    fill(url)
    check_filled(url)
