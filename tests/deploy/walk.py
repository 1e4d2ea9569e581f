"""Build the image and walk through Compose with a real engine: `make test-compose`.

Everything happens in a copy of the repository, in a Compose project and an image of its own. All
three are removed at the end.
"""

import argparse
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IMAGE = "clearclip-label-studio:walk"
EMAIL = "admin@example.com"
PICTURES = 12


WATCH_S = 10.0  # how often containers are looked at while a command of Compose runs, in seconds
MOST_RESTARTS = 3  # starts of a container by the engine, after which it will not come up any more


def run(
    *command: str,
    text: str | None = None,
    cwd: Path | None = None,
    watch: Callable[[], None] | None = None,
) -> str:
    """Run a command, and return what it prints; a failure has the end of that as its message.

    Args:
        command: its words.
        text: its input.
        cwd: the folder in which it runs.
        watch: is called now and then while it runs; what it raises ends the command.
    """
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdin=None if text is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            printed = _wait(process, text, watch)
        except BaseException:
            process.kill()
            raise

    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}\n{printed[-4000:]}")
    return printed


def _wait(
    process: subprocess.Popen[str], text: str | None, watch: Callable[[], None] | None
) -> str:
    """Return what a process prints until it ends."""
    while True:
        try:
            return process.communicate(text, timeout=WATCH_S if watch else None)[0]
        except subprocess.TimeoutExpired:
            text = None  # it has its input
            if watch is not None:
                watch()


class Walk:
    """A copy of the repository, its Compose project, and the steps that were taken.

    Args:
        folder: an empty folder for the copy.
        more: Compose files laid over the repository's, such as one with addresses for the build.
    """

    def __init__(self, folder: Path, more: list[Path]) -> None:
        self.folder = folder
        self.secrets = {
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(8),
            "LABEL_STUDIO_API_KEY": secrets.token_hex(20),
            "POSTGRES_PASSWORD": secrets.token_hex(16),
        }
        self.rows: list[tuple[str, float]] = []
        files = [folder / "docker-compose.yml", HERE / "closed-network.yml", *more]
        self.project = f"walk-{secrets.token_hex(4)}"
        self._compose = ["docker", "compose", "--project-name", self.project]
        self._compose += [word for file in files for word in ("--file", str(file.resolve()))]
        self._copy()

    def _copy(self) -> None:
        """Copy what Git tracks or would track."""
        listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)

    def write_env(self, **values: str) -> None:
        """Write `.env` as people do: the example with some values filled in."""
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        for name, value in (self.secrets | {"MODEL": "demo"} | values).items():
            text, found = re.subn(rf"^#?{name}=.*", f"{name}={value}", text, flags=re.MULTILINE)
            assert found == 1, name
        (self.folder / ".env").write_text(text, encoding="utf-8")

    def compose(self, *words: str, text: str | None = None) -> str:
        return run(*self._compose, *words, text=text, cwd=self.folder, watch=self.refuse_restarts)

    def refuse_restarts(self) -> None:
        """Raise with the log of a container that the engine has started again three times."""
        label = f"label=com.docker.compose.project={self.project}"
        containers = run("docker", "ps", "--all", "--quiet", "--filter", label).split()
        if not containers:
            return
        counts = run("docker", "inspect", "--format", "{{.RestartCount}} {{.Name}}", *containers)
        for line in counts.splitlines():
            count, name = line.split()
            if int(count) >= MOST_RESTARTS:
                container = name.removeprefix("/")
                logged = run("docker", "logs", "--tail", "40", container)
                raise RuntimeError(f"{container} was started again {count} times:\n{logged}")

    def inside(self, step: str, *words: str) -> dict[str, Any]:
        """Take a step of `inside.py` in the backend's container."""
        script = (HERE / "inside.py").read_text(encoding="utf-8")
        said = self.compose("exec", "-T", "backend-cpu", "python", "-", step, *words, text=script)
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answer

    def backend(self, *words: str) -> str:
        """Run a command in the backend's container, as the docs say."""
        return self.compose("exec", "-T", "backend-cpu", "clearclip-backend", *words)

    def doctor(self, project: str) -> None:
        said = self.backend("doctor", "--project", project)
        found = re.findall(r"^(ok|FAIL|-) ", said, re.MULTILINE)
        assert len(found) > 5, said
        assert set(found) == {"ok"}, said

    def inspect(self, field: str) -> str:
        """Return a field of the backend's container, such as `.State.ExitCode`."""
        container = self.compose("ps", "--all", "--quiet", "backend-cpu").strip()
        return run("docker", "inspect", "--format", f"{{{{{field}}}}}", container).strip()

    def stop(self) -> None:
        """Stop the backend: it ends by itself, before Compose kills it after 10 s."""
        self.compose("stop", "backend-cpu")
        assert self.inspect(".State.ExitCode") == "0"

    def kill(self) -> None:
        """Kill the server, the one child of the container's init; the container ends with it."""
        killing = ["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"]
        self.compose("exec", "--detach", "backend-cpu", *killing)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.rows.append((name, time.monotonic() - begun))
        print(f"ok  {name} ({self.rows[-1][1]:.0f} s)", flush=True)

    def up(self) -> None:
        """Start all that the profiles name, and wait until it answers."""
        self.compose("up", "--detach")
        self.inside("ready")


def walk(steps: Walk) -> None:
    steps.write_env(COMPOSE_PROFILES="cpu,label-studio")
    with steps.step("build"):
        steps.compose("build", "backend-cpu")
    try:
        on_a_folder_of_root(steps)
        project = first_day(steps)
        keep(steps, project)
        with_profiles(steps)
    except BaseException:
        print(steps.compose("logs", "--tail", "40"), file=sys.stderr)
        raise
    finally:
        steps.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
        run("docker", "image", "rm", IMAGE)


def on_a_folder_of_root(steps: Walk) -> None:
    """Start the backend alone on a folder of root's: it says what to do, and waits."""
    models = steps.folder / "models-of-root"
    models.mkdir()
    as_root = ["docker", "run", "--rm", "--network", "none", "--user", "0"]
    as_root += ["--volume", f"{models}:/models", IMAGE]
    run(*as_root, "chown", "-R", "0", "/models")
    run(*as_root, "chmod", "-R", "go-w", "/models")
    options = ["--detach", "--network", "none", "--volume", f"{models}:/models"]
    name = run("docker", "run", *options, "--env", "MODEL=demo", IMAGE).split()[-1]
    try:
        with steps.step("a models folder that root owns"):
            wait_for_log(name, "chown -R 1000 FOLDER")
            state = run("docker", "inspect", "--format", "{{.State.Running}}", name)
            assert state.strip() == "true", state
            run(*as_root, "chown", "-R", "1000", "/models")
            wait_for_log(name, "The model is ready")
        with steps.step("the database is made once the folder can be written"):
            status = ["docker", "exec", name, "clearclip-backend", "database", "status"]
            assert "up to date" in run(*status)
    finally:
        run("docker", "rm", "--force", "--volumes", name)
        run(*as_root, "chown", "-R", "0", "/models")


def wait_for_log(container: str, words: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while words not in (logged := run("docker", "logs", container)):
        assert time.monotonic() < end, logged[-2000:]
        time.sleep(1)


def first_day(steps: Walk) -> str:
    """Start, connect, predict, learn, and prelabel; return the project's number."""
    with steps.step("up"):
        steps.up()
        logged = steps.compose("logs", "backend-cpu")
        assert " ERROR " not in logged, logged
    with steps.step("read-only root file system, no network"):
        steps.inside("closed")
    with steps.step("connect"):
        project = str(steps.inside("connect", str(PICTURES))["project"])
    with steps.step(f"{PICTURES} tasks predicted"):
        counted = steps.inside("predict", project)
        assert counted == {"tasks": PICTURES, "predicted": PICTURES}, counted
    with steps.step("annotations learned from"):
        steps.inside("annotate", project)
    with steps.step("doctor all ok"):
        steps.doctor(project)
    with steps.step("prelabel inside"):
        steps.inside("add", project, "3")
        steps.backend("prelabel", "--project", project)
        counted = steps.inside("count", project)
        assert counted == {"tasks": PICTURES + 3, "predicted": PICTURES + 3}, counted
    return project


def keep(steps: Walk, project: str) -> None:
    """Kill the server; back up, lose what was learned, restore it; stop everything and start it."""
    learned = steps.inside("version", project)
    with steps.step("a server that is killed is started again"):
        steps.kill()
        end = time.monotonic() + 60
        while steps.inspect(".RestartCount") != "1" or steps.inspect(".State.Running") != "true":
            assert time.monotonic() < end, steps.inspect(".State")
            time.sleep(0.2)
        steps.inside("ready")
        assert steps.inside("version", project) == learned
    with steps.step("back up and restore (SQLite)"):
        steps.backend("database", "backup", "/models/copy.db")
        steps.backend("adapt", "reset", "--project", project)
        assert steps.inside("version", project) != learned
        steps.stop()
        restore = ["clearclip-backend", "database", "restore", "/models/copy.db"]
        steps.compose("run", "--rm", "-T", "backend-cpu", *restore)
        steps.compose("start", "backend-cpu")
        steps.inside("ready")
        assert steps.inside("version", project) == learned
    with steps.step("down and up"):
        steps.compose("down")
        steps.up()
        assert steps.inside("version", project) == learned
        assert steps.inside("count", project)["predicted"] == PICTURES + 3


def with_profiles(steps: Walk) -> None:
    """Move to PostgreSQL and behind the proxy, and do it all again in short."""
    password = secrets.token_hex(16)
    steps.write_env(
        COMPOSE_PROFILES="cpu,label-studio,database,tls",
        DATABASE_URL=f"postgresql+psycopg://clearclip:{password}@postgres/clearclip",
        PROXY_HOST="label.test",
        LABEL_STUDIO_HOST="https://label.test",
        PROXY_BIND="127.0.0.1",
        TRUSTED_PROXIES="1",
        BACKEND_PORT="9090-9091",
    )
    with steps.step("up with the profiles database and tls"):
        steps.up()
    with steps.step("a new password, and a login through the proxy"):
        new = secrets.token_hex(8)
        reset = ["label-studio", "reset_password", "--username", EMAIL, "--password", new]
        steps.compose("exec", "-T", "label-studio", *reset)
        root = "/data/caddy/pki/authorities/local/root.crt"
        authority = steps.compose("exec", "-T", "proxy", "cat", root)
        steps.inside("tls", "label.test", EMAIL, new, authority)
    with steps.step("connect, predict, learn and doctor on PostgreSQL"):
        project = str(steps.inside("connect", str(PICTURES))["project"])
        assert steps.inside("predict", project)["predicted"] == PICTURES
        learned = steps.inside("annotate", project)
        steps.doctor(project)
    with steps.step("back up and restore (PostgreSQL)"):
        dump = ["--username", "labelstudio", "--format=custom", "--file=/tmp/copy.dump"]
        steps.compose("exec", "-T", "postgres", "pg_dump", *dump, "clearclip")
        steps.backend("adapt", "reset", "--project", project)
        steps.stop()
        load = ["--username", "labelstudio", "--clean", "--if-exists", "--single-transaction"]
        restore = ["pg_restore", *load, "--dbname", "clearclip", "/tmp/copy.dump"]
        steps.compose("exec", "-T", "postgres", *restore)
        steps.compose("start", "backend-cpu")
        steps.inside("ready")
        assert steps.inside("version", project) == learned
    with steps.step("two backends on one database"):
        steps.compose("up", "--detach", "--wait", "--scale", "backend-cpu=2")
        ask = "import socket; print(len({each[4] for each in socket.getaddrinfo('backend', 9090)}))"
        seen = steps.compose("exec", "-T", "label-studio", "python3", "-c", ask)
        assert seen.split()[-1] == "2", seen
        steps.inside("add", project, "4")
        prelabel = ["clearclip-backend", "prelabel", "--project", project]
        steps.compose("exec", "-T", "--index", "2", "backend-cpu", *prelabel)
        assert steps.inside("count", project)["predicted"] == PICTURES + 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--file", type=Path, action="append", default=[], help="one more for Compose"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        steps = Walk(Path(folder), given.file)
        walk(steps)
    engine = run("docker", "version", "--format", "{{.Server.Version}}").strip()
    print(f"\n{date.today().isoformat()} · Docker {engine}\n\n| step | seconds |\n|---|---|")
    for name, seconds in steps.rows:
        print(f"| {name} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
