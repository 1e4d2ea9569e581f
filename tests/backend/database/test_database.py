"""The database that backends share, as SQLite and as a real PostgreSQL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import QueuePool

from backend.database import database
from backend.database.database import LOCK, Database, revisions
from backend.database.leases import has_died, new_owner
from backend.jobs.job_store import JobStore
from backend.settings import Settings

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


def test_a_driver_that_is_not_installed_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ValueError, match=r"pip install 'clearclip-label-studio\[postgres\]'"
    ) as told:
        Database("postgresql+psycopg://ann:secret@127.0.0.1:9/name").check()
    assert "secret" not in str(told.value)


def test_a_postgresql_that_takes_a_connection_and_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    assert isinstance(pool, QueuePool)
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


def test_a_postgresql_without_an_encoding_keeps_all_letters(
    postgres_url: Callable[[str], str], tmp_path: Path
) -> None:
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
