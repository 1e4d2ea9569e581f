"""The database that backends share, and those of other versions; SQLite and a real PostgreSQL."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

import backend.web.app
from backend.cli.serve import wait_for_database
from backend.database import database, migrations
from backend.database.database import LOCK, METADATA, Database, revisions
from backend.database.leases import has_died, new_owner
from backend.errors import DatabaseRefused
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.jobs.job_store import JobStore
from backend.learning.versions import VersionStore, model_key
from backend.settings import Settings
from clearclip_core import Adaptation, Example
from tests.backend.database.test_backup import process
from tests.backend.fakes.colour_segmenter import colour_engine
from tests.backend.fakes.databases import check_filled, execute, fill, rows, tables
from tests.backend.web.browser import Dashboard

ON_POSTGRESQL = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


def test_a_new_file_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    """SQLite tells who comes while another makes it that it is locked, and lets nobody wait."""
    file = tmp_path / "clearclip.db"
    opened = threading.Event()

    def open_it() -> None:
        Database(f"sqlite:///{file}").check()
        opened.set()

    with FileLock(f"{file}.lock"):
        others = [threading.Thread(target=open_it) for _ in range(4)]
        for other in others:
            other.start()
        assert not opened.wait(0.5)
        assert not file.exists()
    for other in others:
        other.join()
    assert opened.is_set()


def test_the_settings_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    settings = Settings(model_dir=tmp_path / "models")
    Database.from_settings(settings).check()
    assert (tmp_path / "models" / "clearclip.db").exists()
    other = f"sqlite:///{tmp_path}/other.db"
    Database.from_settings(Settings(database_url=other)).check()  # type: ignore[arg-type]
    assert (tmp_path / "other.db").exists()
    named = Settings(database_url="postgresql+psycopg://ann:secret@host/name")  # type: ignore[arg-type]
    assert "secret" not in f"{named!r} {vars(Database.from_settings(named))!r}"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////proc/none/jobs.db",
        "postgresql+psycopg://ann:secret@127.0.0.1:9/name",
        "postgresql+psycopg://127.0.0.1:9/name?password=secret",
    ],
)
def test_a_database_that_cannot_be_had_is_told_in_a_sentence(url: str) -> None:
    advice = "set MODEL_DIR .*DATABASE_URL" if "sqlite" in url else "set DATABASE_URL"
    with pytest.raises(ValueError, match=advice) as caught:
        Database(url).check()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_driver_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ValueError, match=r"pip install 'clearclip-label-studio\[postgres\]'"
    ) as told:
        Database("postgresql+psycopg://ann:secret@127.0.0.1:9/name").check()
    assert "secret" not in str(told.value)


def test_a_postgresql_that_says_nothing_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_CONNECT_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ValueError, match="timeout"):
            Database(f"postgresql+psycopg://ann@127.0.0.1:{port}/name").check()


def test_a_database_that_is_up_to_date_is_opened_beside_one_who_writes(url: str) -> None:
    writer, reader = JobStore(Database(url)), Database(url)
    job = writer.start_job(7)
    with writer.database.write_exclusively(LOCK) as connection:  # the lock of an upgrade, too
        connection.execute(text("UPDATE jobs SET state = 'paused'"))
        begun = time.monotonic()
        with reader.read() as other:
            assert other.execute(text("SELECT state FROM jobs")).scalar() == job.state
        assert time.monotonic() - begun < 10
        assert reader.revision() == revisions()[-1]
    reader.close()
    writer.database.close()


def test_a_reader_waits_for_no_writers_however_many_of_them_wait(url: str) -> None:
    store = Database(url)
    pool = store._open_engines()[0].pool
    all_wait = 15 if url.startswith("sqlite") else pool.size() + pool._max_overflow
    has_read = threading.Event()

    def write() -> None:
        with store.write_exclusively(LOCK):
            pass

    def read() -> None:
        with store.read() as connection:
            connection.execute(text("SELECT 1"))
        has_read.set()

    threads = [*(threading.Thread(target=write) for _ in range(20)), threading.Thread(target=read)]
    with store.write_exclusively(LOCK):
        for writer in threads[:-1]:
            writer.start()
        while pool.checkedout() < all_wait:  # SQLAlchemy's own limit is 15
            time.sleep(0.001)
        threads[-1].start()
        assert has_read.wait(60)
    for thread in threads:
        thread.join()
    store.close()


@ON_POSTGRESQL
def test_reads_of_postgresql_are_sent_alone(url: str) -> None:
    """The begin and the end of a transaction are two more answers to wait for, at each read."""
    store = Database(url)
    with store.read() as connection:
        connection.execute(text("SELECT 1"))
        driver = connection.connection.dbapi_connection
        assert driver.info.transaction_status.name == "IDLE"  # type: ignore[union-attr]
    store.close()


@ON_POSTGRESQL
def test_a_user_who_may_not_make_tables_works_with_an_upgraded_database(url: str) -> None:
    Database(url).check()
    engine = create_engine(url)
    with engine.begin() as connection:
        schema = connection.execute(text("SELECT current_schema()")).scalar()
        for statement in (
            "CREATE ROLE clerk LOGIN",
            f'GRANT USAGE ON SCHEMA "{schema}" TO clerk',
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO clerk',
            f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA "{schema}" TO clerk',
        ):
            connection.execute(text(statement))
    engine.dispose()
    store = JobStore(Database(url.replace("//test@", "//clerk@")))
    assert store.start_job(7).id == 1
    store.database.close()


def test_sql_ascii_keeps_all_letters(postgres_url: Callable[[str], str], tmp_path: Path) -> None:
    """SQL_ASCII is what `initdb` chooses for the locale C, as in many small containers."""
    name = f"ascii-{tmp_path.name}"[:60]
    server = make_url(postgres_url(name))
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        how = "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        connection.execute(text(f'CREATE DATABASE "{name}" {how}'))
    engine.dispose()
    store = JobStore(Database(str(server.set(database=name, query={}))))
    job = store.start_job(7)
    with store.database.write() as connection:
        assert connection.execute(text("SHOW server_encoding")).scalar() == "SQL_ASCII"
        connection.execute(text("UPDATE jobs SET reason = 'Straße 道路'"))
    assert store.get_job(job.id).reason == "Straße 道路"
    store.database.close()


def test_an_owner_has_died_once_its_process_has_ended() -> None:
    code = "from backend.database.leases import new_owner; print(new_owner())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert has_died(ended.stdout.strip())
    assert not has_died(new_owner())
    assert not has_died(f"elsewhere:{os.getpid()}:ab")
    assert not has_died("")


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
def test_a_database_of_another_version_is_refused(url: str, change: str, sentence: str) -> None:
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


def test_an_open_run_of_a_kind_that_is_no_more_ends_with_the_upgrade(earlier: str) -> None:
    execute(earlier, "UPDATE runs SET state = 'running', owner = 'a' WHERE kind = 'next-tasks'")
    Database(earlier).check()
    (run,) = execute(earlier, "SELECT state, owner, reason FROM runs WHERE kind = 'next-tasks'")
    assert run[:2] == ("failed", "")
    assert "Uniform Sampling" in run[2]


def test_a_backend_of_0_2_0_beside_an_upgraded_database_takes_no_work(earlier: str) -> None:
    Database(earlier).check()
    with pytest.raises(OperationalError):  # its first question before it leases a run
        execute(earlier, "SELECT id, attempts FROM runs")
    versions = VersionStore(Database(earlier), "", lambda: "m")
    versions.request_step(7, unlabelled=True)
    assert execute(earlier, "SELECT 1 FROM learning_states WHERE asked > 0 AND model = 'm'") == []


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
    store.complete(leased[12], replace(read, changes=(roof, tree)))
    assert store.sums(7) == before


def test_a_learned_version_of_another_shape_is_left_out(earlier: str) -> None:
    execute(earlier, "UPDATE learned_versions SET version = '{}', pictures = '[]'")
    page = opened(earlier)["/projects/7/learning"]
    assert "the words alone" in page
    assert "Learn now: an earlier version" in page
