"""Backups of SQLite databases, made beside a backend that writes, and what restores them."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backend.database.backup import back_up, restore
from backend.database.database import Database
from backend.errors import DatabaseInUse, DatabaseRefused
from tests.backend.fakes.databases import check_filled, execute, fill, rows

ROOT = Path(__file__).parents[3]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/data/clearclip.db")
    fill(str(made.url))
    return made


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, once it has said that it is ready; it ends when its input does."""
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert running.stdout.readline() == "ready\n"
        yield running
    finally:
        running.communicate(timeout=60)
    assert running.returncode == 0


#: Two rows a transaction, at which the counts of jobs 1 and 2 are equal.
WRITER = """
import sys, threading
from backend.database.database import Database
database = Database(sys.argv[1])
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
count = 0
while not over.is_set():
    with database.write() as connection:
        for job in (1, 2):
            connection.exec_driver_sql(
                "INSERT INTO failures (job, task, reason, at) VALUES (?, 1, ?, 0)", (job, "x" * 500)
            )
    count += 1
    if count == 2000:
        print("ready", flush=True)
database.close()
"""


def test_a_backup_is_whole_while_a_backend_writes(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/clearclip.db")
    with process(WRITER, str(database.url)) as writer:
        for number in range(5):
            back_up(database, tmp_path / f"{number}.db")
        assert writer.poll() is None
    seen = []
    for number in range(5):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            one, two = (
                copy.execute("SELECT count(*) FROM failures WHERE job = ?", (job,)).fetchone()[0]
                for job in (1, 2)
            )
        assert one == two
        seen.append(one)
    assert seen == sorted(seen)
    assert 2000 <= seen[0] < seen[-1]


def test_a_backup_is_one_file_with_all_rows_and_stays(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "backups" / "monday.db"
    before = rows(str(database.url))
    back_up(database, file)
    assert list(file.parent.iterdir()) == [file]
    url = f"sqlite:///{file}"
    assert rows(url) == before
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(ValueError, match=r"monday\.db exists already"):
        back_up(database, file)
    check_filled(url)


def test_a_backup_that_fails_leaves_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Path, _other: Path) -> Path:
        raise OSError("The disk is full")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ValueError, match="The disk is full"):
        back_up(database, tmp_path / "backups" / "monday.db")
    assert list((tmp_path / "backups").iterdir()) == []


def test_nothing_is_restored_while_a_backend_runs(database: Database, tmp_path: Path) -> None:
    """It holds a connection, but neither a lease nor a transaction."""
    url = str(database.url)
    back_up(database, tmp_path / "monday.db")
    code = (
        "import sys; from backend.database.database import Database\n"
        "from backend.jobs.job_store import JobStore; store = JobStore(Database(sys.argv[1]))\n"
        "store.start_job(70); print('ready', flush=True); sys.stdin.read(); store.database.close()"
    )
    with process(code, url), pytest.raises(DatabaseInUse, match="stop the backends"):
        restore(database, tmp_path / "monday.db")
    assert execute(url, "SELECT max(project) FROM jobs") == [(70,)]
    assert not list(Path(str(database.file)).parent.glob("*before*"))
    restore(database, tmp_path / "monday.db")
    check_filled(url)


def _write_text(file: Path) -> None:
    file.write_text("It is no database, however long it is. " * 100)


def _make_foreign(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE jobs (id INTEGER)")


def _make_newer(file: Path) -> None:
    fill(f"sqlite:///{file}")
    execute(f"sqlite:///{file}", "UPDATE alembic_version SET version_num = '9999'")


def _damage(file: Path) -> None:
    fill(f"sqlite:///{file}")
    data = bytearray(file.read_bytes())
    data[4096 : 4096 + 4096] = b"\xff" * 4096
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_write_text, "not a database"),
        (_make_foreign, "no database of this backend"),
        (_damage, "damaged|malformed"),
        (_make_newer, "9999"),
        (lambda file: None, "unable to open"),
    ],
)
def test_what_is_no_backup_is_not_restored(
    database: Database, tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    file = tmp_path / "monday.db"
    make(file)
    with pytest.raises((ValueError, DatabaseRefused), match=sentence):
        restore(database, file)
    check_filled(str(database.url))


def test_a_file_that_is_no_database_any_more_stays(database: Database, tmp_path: Path) -> None:
    back_up(database, tmp_path / "monday.db")
    _write_text(database.file)
    with pytest.raises(ValueError, match="move it away"):
        restore(database, tmp_path / "monday.db")


def test_nothing_and_the_database_itself_are_no_backup(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no database"):
        back_up(Database(f"sqlite:///{tmp_path}/none.db"), tmp_path / "monday.db")
    with pytest.raises(ValueError, match="no SQLite file"):
        back_up(Database("sqlite://"), tmp_path / "monday.db")
    assert not (tmp_path / "monday.db").exists()
    with pytest.raises(ValueError, match="the database itself"):
        restore(database, database.file)
    check_filled(str(database.url))
