"""A project of 50,000 small pictures on the real Label Studio: what it takes, and what breaks.

Variants of one drawn picture go through a team's months: imported, prelabelled by a backend that is
killed three times, polled, 2,000 corrected, reported, exported. Label Studio and the backend keep
what they know in one PostgreSQL. It takes hours, and prints what it measures as it goes:

    python -m tests.bench.fifty_thousand --folder EMPTY --label-studio PATH
"""

import contextlib
import io
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psycopg
import requests
from PIL import Image

from backend.cli import demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core.demo.render import render_scene
from tests.backend.conftest import Postgres, running_postgres
from tests.backend.fakes.local_server import Answer, Asked, LocalServer
from tests.bench.timing import answers, cpu_s, memory_mb

LABELS = ["sky", "grass", "tree", "house", "car", "road"]
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">'
    + "".join(f'<Label value="{label}"/>' for label in LABELS)
    + "</BrushLabels></View>"
)
SCENE = Image.fromarray(render_scene(7).image).resize((128, 96))
IMPORTED_AT_ONCE = 2000
PAGES = ["", "/report", "/learning", "/label-errors", "/agreement", "/words", "/datasets"]


def draw(asked: Asked) -> Answer:
    """Answer ``/1.png`` to ``/16777216.png`` with variants of one drawn scene."""
    number, file = int(asked.path.strip("/").removesuffix(".png")), io.BytesIO()
    image = SCENE.copy()
    image.putpixel((0, 0), (number % 256, number // 256 % 256, number // 65536))
    image.save(file, "png")
    return Answer(body=file.getvalue(), headers={"Content-Type": "image/png"})


@dataclass
class Backend:
    """The served backend, which may be killed; its CPU and its most memory are kept over deaths."""

    command: list[str]
    variables: dict[str, str]
    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    cpu_before_s: float = 0.0
    most_mb: float = 0.0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=os.environ | self.variables, stdout=log, stderr=log
            )
        wait_until(lambda: answers(f"{self.url}/ready"), 300)

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.cpu_before_s = self.cpu_s()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cpu_s(self) -> float:
        """CPU seconds since the first start."""
        assert self.process is not None
        return self.cpu_before_s + cpu_s(self.process.pid)

    def look(self) -> float:
        """Return the memory that it has now, in MB."""
        assert self.process is not None
        now = memory_mb(self.process.pid)
        self.most_mb = max(self.most_mb, now)
        return now


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    """Ask every second, or fail."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise click.ClickException(f"It has not come within {within_s} s.")
        time.sleep(1)


@dataclass
class Bench:
    """The servers, the project and the figures."""

    studio: LabelStudioProcess
    backend: Backend
    postgres: Postgres
    studio_pid: int
    tasks: int
    folder: Path
    project: int = 0
    said: dict[str, Any] = field(default_factory=dict)

    def say(self, name: str, value: object) -> None:
        """Keep and print one figure."""
        self.said[name] = value
        print(f"{time.strftime('%H:%M:%S')} {name}: {value}", flush=True)

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Ask Label Studio."""
        headers = {"Authorization": self.studio.authorization}
        url = self.studio.url + path
        answer = requests.request(method, url, headers=headers, timeout=3600, **request)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def told(self, path: str) -> Any:
        """Ask the backend for JSON."""
        headers = {"Accept": "application/json"}
        answer = requests.get(self.backend.url + path, headers=headers, timeout=600)
        answer.raise_for_status()
        return answer.json()

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask Label Studio's database."""
        with self.connected() as connection:
            return connection.execute(statement, values).fetchall()

    def connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the database of Label Studio and of the backend."""
        where = f"host=127.0.0.1 port={self.postgres.port} user=test dbname=postgres"
        return psycopg.connect(where)

    @contextlib.contextmanager
    def measured(self, name: str, count: int) -> Iterator[None]:
        """Say what a part takes an item: seconds, CPU of the backend and of Label Studio."""

        def clocks() -> tuple[float, float, float]:
            return time.monotonic(), self.backend.cpu_s(), cpu_s(self.studio_pid)

        before = clocks()
        yield
        spent = [after - at for after, at in zip(clocks(), before, strict=True)]
        each = " / ".join(f"{1000 * seconds / count:.1f}" for seconds in spent)
        self.say(name, f"{spent[0]:.0f} s; ms each (wall / CPU here / CPU of Label Studio): {each}")

    # ---- a team's months -------------------------------------------------------------------------

    def import_tasks(self, pictures: str) -> None:
        """Make the project and its tasks."""
        made = self.ask("POST", "/api/projects/", json={"title": "Many", "label_config": CONFIG})
        self.project = made["id"]
        with self.measured("import", self.tasks):
            self.import_more(pictures, range(1, self.tasks + 1))

    def import_more(self, pictures: str, numbers: range) -> None:
        """Import the pictures of these numbers."""
        for start in range(0, len(numbers), IMPORTED_AT_ONCE):
            some = numbers[start : start + IMPORTED_AT_ONCE]
            rows = [{"image": f"{pictures}/{number}.png"} for number in some]
            self.ask("POST", f"/api/projects/{self.project}/import", json=rows)

    def prelabel(self, kills: int) -> None:
        """Prelabel all tasks, and kill the backend at even shares of them."""
        asked = requests.post(
            f"{self.backend.url}/jobs", json={"project": self.project}, timeout=60
        )
        asked.raise_for_status()
        job = asked.json()["id"]
        at = [self.tasks * (kill + 1) // (kills + 1) for kill in range(kills)]
        with self.measured("prelabel", self.tasks):
            while True:
                shown = self.told(f"/jobs/{job}")
                if at and shown["done"] >= at[0]:
                    self.backend.kill()
                    self.backend.start()
                    self.say(f"killed at {at.pop(0)}", "started again")
                self.progress(shown)
                if shown["over"]:
                    break
                time.sleep(5)
        self.say("job", {key: shown[key] for key in ("state", "done", "skipped", "failed")})
        self.count_predictions()

    def progress(self, shown: dict[str, Any]) -> None:
        """Print how far the job is."""
        now = self.backend.look()
        print(f"{time.strftime('%H:%M:%S')} {shown['done']} of {shown['total']}, {now:.0f} MB")

    def count_predictions(self) -> None:
        """Say how many tasks lack a prediction or have two of one version."""
        rows = self.query(
            "SELECT t.id, count(p.id), count(DISTINCT p.model_version) FROM task t "
            "LEFT JOIN prediction p ON p.task_id = t.id WHERE t.project_id = %s GROUP BY t.id",
            self.project,
        )
        lacking = sum(count == 0 for _, count, _ in rows)
        twice = sum(count > versions for _, count, versions in rows)
        self.say("tasks, lacking, twice", (len(rows), lacking, twice))

    def correct(self, count: int, seed: int) -> None:
        """Correct tasks, drawn at random, and wait until the backend has read them."""
        with self.measured("correct", count):
            self.annotate(count, seed)
        with self.measured("read by the poll", count):
            wait_until(lambda: self.read() >= count, 4 * 3600)

    def annotate(self, count: int, seed: int) -> None:
        """Annotate tasks as people do, drawn at random: the first region away, or all right."""
        rows = self.query(
            "SELECT p.task_id, p.id, p.result FROM prediction p JOIN task t ON t.id = p.task_id "
            "WHERE t.project_id = %s AND NOT t.is_labeled ORDER BY p.task_id",
            self.project,
        )
        chance = random.Random(seed)
        for number, (task, prediction, result) in enumerate(chance.sample(rows, count)):
            away = result[0]["id"] if number % 2 else None
            left = [entry for entry in result if entry["id"] != away]
            body = {"result": left, "parent_prediction": prediction, "lead_time": 20}
            self.ask("POST", f"/api/tasks/{task}/annotations/", json=body)

    def read(self) -> int:
        """Return how many annotations the backend has compared."""
        kinds = self.told(f"/projects/{self.project}/report.json")["annotations"]
        return int(sum(kinds.values()))

    def open_pages(self) -> None:
        """Say what each page takes, in seconds: the median of five, and the slowest."""
        for path in ["/", *(f"/projects/{self.project}{page}" for page in PAGES)]:
            times = []
            for _ in range(5):
                started = time.monotonic()
                headers = {"Accept": "text/html"}
                answer = requests.get(self.backend.url + path, headers=headers, timeout=600)
                times.append(time.monotonic() - started)
            shown = path.replace(str(self.project), "N")
            self.say(
                f"page {shown}",
                f"{answer.status_code} {sorted(times)[2]:.2f} s, slowest {max(times):.2f} s",
            )

    def command(self, name: str, count: int, *arguments: str) -> None:
        """Run a command of the backend, and say its time and its most memory."""
        started = time.monotonic()
        ran = [sys.executable, "-m", "backend", *arguments, "--project", str(self.project)]
        process = subprocess.Popen(ran, env=os.environ | self.backend.variables)
        most = 0.0
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                most = max(most, memory_mb(process.pid))
            time.sleep(0.2)
        took = time.monotonic() - started
        each = f"{1000 * took / count:.1f} ms each"
        self.say(name, f"status {process.returncode}, {took:.0f} s, {each}, {most:.0f} MB at most")

    def sizes(self) -> None:
        """Say how big the tables are."""
        rows = self.query(
            "SELECT nspname, relname, pg_total_relation_size(c.oid) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' "
            "AND nspname IN ('public', 'backend')"
        )
        total: Counter[str] = Counter()
        for schema, _, size in rows:
            total[schema] += size
        names = {"public": "Label Studio", "backend": "backend"}
        self.say("MB of", {names[schema]: round(size / 1e6) for schema, size in total.items()})
        largest = sorted(rows, key=lambda row: -row[2])[:6]
        self.say("largest tables in MB", {row[1]: round(row[2] / 1e6, 1) for row in largest})


@contextlib.contextmanager
def bench(folder: Path, label_studio: str, tasks: int) -> Iterator[Bench]:
    """Start PostgreSQL, Label Studio and the backend."""
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        real = demo_servers.find_label_studio(label_studio)
        command = folder / Path(real).name
        there = {
            "DJANGO_DB": "default",
            "POSTGRE_NAME": "postgres",
            "POSTGRE_USER": "test",
            "POSTGRE_PASSWORD": "",
            "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(postgres.port),
            "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short": "true",
        }
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in there.items())
        command.write_text(f"#!/bin/sh\n{exports}\nexport PATH={Path(real).parent}:$PATH\n")
        with command.open("a") as file:
            file.write(f'exec {shlex.quote(real)} "$@"\n')
        command.chmod(0o755)
        port = demo_servers.free_port(0)
        studio = stack.enter_context(
            demo_servers.label_studio(str(command), data_dir=folder / "studio", port=port)
        )
        pids = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        own = demo_servers.free_port(0)
        variables = {
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": studio.token,
            "PORT": str(own),
            "DATABASE_URL": postgres.make_url("backend"),
            "MODEL": "demo",
            "SHORT_SIDE_PX": "96",
            "MODEL_DIR": str(folder),
            "BASIC_AUTH_USER": "",
            "BASIC_AUTH_PASS": "",
            "ALLOWED_HOSTS": "127.0.0.1",
            "ADAPT": "off",
        }
        serve = [sys.executable, "-m", "backend", "serve"]
        backend = Backend(serve, variables, f"http://127.0.0.1:{own}", folder / "backend.log")
        backend.start()
        stack.callback(lambda: backend.process and backend.process.kill())
        yield Bench(studio, backend, postgres, int(pids[-1]), tasks, folder)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--label-studio", default=None, help="Its command; else that of the PATH.")
@click.option("--tasks", default=50_000, show_default=True)
@click.option("--corrected", default=2000, show_default=True)
@click.option("--kills", default=3, show_default=True)
def main(folder: Path, label_studio: str, tasks: int, corrected: int, kills: int) -> None:
    """Take a project of many pictures through everything, and print the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    with LocalServer(draw) as pictures, bench(folder.absolute(), label_studio, tasks) as run:
        run.import_tasks(pictures.url)
        run.command("connect", 1, "connect", "--yes")
        run.prelabel(kills)
        run.open_pages()
        run.correct(corrected, seed=1)
        run.open_pages()
        run.command("report", 1, "report")
        for given in ("", "--with-predictions"):
            count = tasks if given else corrected
            to = ["--to", str(folder / f"set{len(given)}"), "--format", "coco"]
            run.command(f"dataset {given}", count, "dataset", *to, *filter(None, [given]))
        run.sizes()
        run.backend.look()
        run.say("most memory of the backend in MB", round(run.backend.most_mb))


if __name__ == "__main__":
    main()
