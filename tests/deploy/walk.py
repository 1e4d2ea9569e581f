"""Build the image and walk through Compose with a real engine: `make test-compose`.

Everything happens in a copy of the repository, in a Compose project and an image of its own, all
of which are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from tests.deploy.engine import on_a_folder_of_root, run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IMAGE = "clearclip-label-studio:walk"
EMAIL = "admin@example.com"
PICTURES = 12

#: The result stands in a page between these lines.
BEGIN, END = "<!-- compose:begin -->", "<!-- compose:end -->"


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
        self._compose = ["docker", "compose", "--project-name", f"walk-{secrets.token_hex(4)}"]
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
        """Run `docker compose` on the project."""
        return run(*self._compose, *words, text=text, cwd=self.folder)

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
        """Check that every check of `doctor` was made and has passed."""
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
        """Time a step, and say that it is done."""
        begun = time.monotonic()
        yield
        self.rows.append((name, time.monotonic() - begun))
        print(f"ok  {name} ({self.rows[-1][1]:.0f} s)", flush=True)

    def up(self) -> None:
        """Start all that the profiles name, and wait until it answers."""
        self.compose("up", "--detach")
        self.inside("ready")


def walk(steps: Walk) -> None:
    """Take all steps."""
    steps.write_env(COMPOSE_PROFILES="cpu")
    with steps.step("build"):
        steps.compose("build", "backend-cpu")
    try:
        on_a_folder_of_root(steps.folder, IMAGE, steps.step)
        project = first_day(steps)
        keep(steps, project)
        with_profiles(steps)
    except BaseException:
        print(steps.compose("logs", "--tail", "40"), file=sys.stderr)
        raise
    finally:
        steps.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
        run("docker", "image", "rm", IMAGE)


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
        COMPOSE_PROFILES="cpu,database,tls",
        DATABASE_URL=f"postgresql+psycopg://clearclip:{password}@postgres/clearclip",
        PROXY_HOST="label.test",
        LABEL_STUDIO_HOST="https://label.test",
        PROXY_BIND="127.0.0.1",
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


def result(steps: Walk) -> str:
    """Return date, versions and seconds of the steps, in Markdown."""
    engine = run("docker", "version", "--format", "{{.Server.Version}}").strip()
    compose = run("docker", "compose", "version", "--short").strip()
    lines = [
        f"{date.today().isoformat()} · Docker {engine}, Compose {compose}",
        "",
        "| step | seconds |",
        "|---|---|",
        *(f"| {name} | {seconds:.0f} |" for name, seconds in steps.rows),
    ]
    return "\n".join(lines)


def write_into(page: Path, text: str) -> None:
    """Replace what stands in a page between the lines `BEGIN` and `END`."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{page} has no line {BEGIN}"
    assert end, f"{page} has no line {END}"
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Walk, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--file", type=Path, action="append", default=[], help="one more for Compose"
    )
    parser.add_argument("--results", type=Path, help="write the result into this page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        steps = Walk(Path(folder), given.file)
        walk(steps)
        told = result(steps)
    print(told)
    if given.results:
        write_into(given.results, told)


if __name__ == "__main__":
    main()
