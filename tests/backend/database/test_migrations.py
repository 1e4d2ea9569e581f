"""The tables of a new database, and databases of other versions, on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
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
from backend.database.database import METADATA, Database, revisions
from backend.errors import DatabaseRefused
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.jobs.job_store import JobStore
from backend.learning.versions import model_key
from backend.settings import Settings
from clearclip_core import Adaptation, Example
from tests.backend.database.test_backup import process
from tests.backend.fakes.colour_segmenter import colour_engine
from tests.backend.fakes.databases import check_filled, execute, fill, rows, tables
from tests.backend.web.browser import Dashboard

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
        ("UPDATE alembic_version SET version_num = '0017'", r"before 0\.2, and is not upgraded"),
        ("DROP TABLE alembic_version", r"before 0\.2, and is not upgraded"),
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


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    """The URL of a database that version 0.2.0 has made, for the model of today's tests."""
    with sqlite3.connect(tmp_path / "earlier.db") as connection:
        connection.executescript(Path(__file__).with_name("version_0_2.sql").read_text("utf-8"))
    url = f"sqlite:///{tmp_path}/earlier.db"
    key = model_key(Settings(), colour_engine().model_id)
    for table in ("learned_versions", "learning_states", "training_examples"):
        execute(url, f"UPDATE {table} SET model = '{key}'")
    return url


def opened(url: str) -> dict[str, str]:
    """Address -> text of the dashboard, of each page of project 7, and of each of its runs."""
    dashboard = Dashboard(database_url=url)
    one = "/projects/<int(min=1, max=2147483647):project>"
    rules = [str(rule) for rule in dashboard.app.url_map.iter_rules() if "GET" in rule.methods]
    pages = [rule.replace(one, "/projects/7") for rule in rules if rule.startswith(one)]
    pages = ["/", *(page for page in pages if "<" not in page)]
    runs = [f"/projects/7/{kind}/{id_}" for kind, id_ in execute(url, "SELECT kind, id FROM runs")]
    pages += [run for run in runs if run.rpartition("/")[0] in pages]
    return {path: dashboard.page(path).text for path in pages}


def test_a_database_of_0_2_0_is_upgraded_and_its_pages_show_what_is_in_it(earlier: str) -> None:
    pages = opened(earlier)
    assert execute(earlier, "SELECT version_num FROM alembic_version") == [(revisions()[-1],)]
    assert [path for path, text in pages.items() if "earlier version" in text] == []
    assert "Painted “roof”" in pages["/projects/7/label-errors/1"]
    assert "fir" in pages["/projects/7/words/4"]
    assert all(text in pages["/projects/7/report"] for text in ("roof", "2025-11-29"))
    assert "version 1 in use" in pages["/projects/7/learning"]
    ((example,),) = execute(earlier, "SELECT example FROM training_examples")
    assert Example.from_bytes(example).known == ("roof", "tree")
    ((adaptation,),) = execute(earlier, "SELECT adaptation FROM learned_versions")
    assert Adaptation.from_bytes(adaptation).names == ("roof",)


def test_a_report_of_another_shape_is_to_be_made_again(earlier: str) -> None:
    execute(earlier, "UPDATE runs SET report = '{}', asked = '{}' WHERE state = 'done'")
    execute(earlier, "DELETE FROM runs WHERE state = 'queued'")
    pages = opened(earlier)
    kinds = {path.split("/")[3] for path in pages if path.count("/") == 4}
    reports = [path for path in pages if path.count("/") > 2 and path.split("/")[3] in kinds]
    told = [path for path, text in pages.items() if "An earlier version" in text]
    assert sorted(told) == sorted(reports)
    assert all("make it again" in pages[path] for path in told)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE annotation_sums SET sums = '[]'",
        "UPDATE annotations SET changes = '[{}]' WHERE annotation = 12",
    ],
)
def test_differences_of_another_shape_are_summed_up_anew(earlier: str, change: str) -> None:
    before = AnnotationStore(Database(earlier)).sums(7)
    reads = "UPDATE annotations SET open = 1 WHERE annotation = 12"
    execute(earlier, reads)
    execute(earlier, change)
    assert opened(earlier)
    store = AnnotationStore(Database(earlier), "worker")
    leased = {each.annotation: each for each in store.lease(9)}
    assert set(leased) == {12, 15}
    roof, tree = (
        LabelDiff("roof", corrected=1, predicted_px=80, true_px=100, shared_px=60),
        LabelDiff("tree", accepted=1, predicted_px=50, true_px=50, shared_px=50),
    )
    read = leased[12].before
    assert read is not None
    store.complete(leased[12], replace(read, changes=(roof, tree)))
    assert store.sums(7) == before


def test_a_learned_version_of_another_shape_is_left_out(earlier: str) -> None:
    execute(earlier, "UPDATE learned_versions SET version = '{}', pictures = '[]'")
    page = opened(earlier)["/projects/7/learning"]
    assert "the words alone" in page
    assert "Learn now: an earlier version" in page
