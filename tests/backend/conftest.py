"""No test keeps anything beyond its own folder, and a real PostgreSQL for those that ask."""

import getpass
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from backend.database.database import Database
from backend.jobs.job_store import JobStore
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer, free_port


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave PostgreSQL to `make test-all`, a few tests of the database itself apart."""
    own = Path(__file__).parent / "database"
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()) and item.path.parent != own:
            item.add_marker("thorough")


@pytest.fixture(scope="session", autouse=True)
def _database_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For backends that several tests share, which are made before `_own_database`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", f"sqlite:///{tmp_path_factory.mktemp('database')}/shared.db")
        yield


@pytest.fixture(autouse=True)
def _own_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Backends of tests must not share jobs, nor write into the home of who runs them."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/own.db")
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "models"))


@dataclass
class Clock:
    """A clock that stands until somebody moves it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.thorough)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    make: Callable[[str], str] = request.getfixturevalue("postgres_url")
    return make(f"store-{tmp_path.name}"[:60])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(url: str, clock: Clock) -> Iterator[Database]:
    database = Database(url, clock)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    """Serves the Label Studio that a module makes by its fixture `studio`."""
    with studio.served() as server:
        yield server


@pytest.fixture
def client(server: LocalServer) -> LabelStudioClient:
    return LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01)


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL on 127.0.0.1, which a test may stop for a while; `user`: as whom it runs."""

    folder: Path
    port: int
    user: str | None

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -F"
        self._control("-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as an administrator does: it ends all connections."""
        self._control("-m", "fast", "stop")

    def make_url(self, name: str) -> str:
        return _create(self.port, name)

    def remover(self) -> subprocess.Popen[bytes]:
        """Start a shell that stops it and removes its folder, at a line or the end of its input.

        The end comes with this process, however that ends: one that is killed tears nothing down.
        """
        stop = shlex.join([*_become(self.user), *self._controlled("-m", "fast", "stop")])
        script = f"read -r line; {stop}; rm -rf {shlex.quote(str(self.folder))}"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        shell = ["sh", "-c", script]
        return subprocess.Popen(shell, stdin=subprocess.PIPE, start_new_session=True, **silent)

    def _control(self, *arguments: str) -> None:
        _as(self.user, *self._controlled(*arguments))

    def _controlled(self, *arguments: str) -> list[str]:
        return [_program("pg_ctl"), "-D", str(self.folder / "data"), "-w", *arguments]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL in a folder of its own; it ends with this process at last."""
    server = Postgres(Path(tempfile.mkdtemp()), free_port(), _someone())
    remover = server.remover()
    try:
        if server.user is not None:
            shutil.chown(server.folder, server.user)
        data = str(server.folder / "data")
        _as(server.user, _program("initdb"), "-D", data, "-U", "test", "-A", "trust", "--no-sync")
        server.start()
        yield server
    finally:
        remover.communicate(b"\n", timeout=120)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that all tests of a run share; who stops it starts it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> Callable[[str], str]:
    return postgres.make_url


def _create(port: int, name: str) -> str:
    """Make a schema in place of a database, which would take 7 MB and a quarter of a second."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    root = f"host=127.0.0.1 port={port} user=test dbname=postgres"
    with psycopg.connect(root, autocommit=True) as connection:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
    path = quote(f'-csearch_path="{name}"')
    return f"postgresql+psycopg://test@127.0.0.1:{port}/postgres?options={path}"


def _program(name: str) -> str:
    """On the PATH, or where Debian keeps it."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(places[-1]) if places else None)
    assert found, f"{name} is missing: `make postgres` installs PostgreSQL"
    return found


def _someone() -> str | None:
    """PostgreSQL refuses to run as root: whom to become, if that is who we are."""
    if os.geteuid() != 0:
        return None
    assert getpass.getuser(), "root has a name"
    return "nobody"


def _become(user: str | None) -> list[str]:
    return ["setpriv", f"--reuid={user}", "--clear-groups", "--"] if user else []


def _as(user: str | None, *command: str) -> None:
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([*_become(user), *command], check=True, timeout=120, **silent)
