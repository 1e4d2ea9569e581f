"""Build a release, and live through its first day on each Python: `make rehearse`.

It builds the packages as the index gets them. The wheel is installed on each Python, with the
oldest and with the newest releases of what it requires; there it serves, predicts, upgrades the
databases of earlier versions, and goes back. Where Docker is, the image is built and started. What
it saw stands in a report. Nothing is published.

    python -m tests.deploy.rehearse --address https://github.com/OWNER/NAME --report dist

`UV_TORCH_BACKEND=cpu` spares gigabytes where PyTorch's own index can be reached.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from zipfile import ZipFile

import click
import requests

from backend.cli.demo_servers import DemoError, free_port, running
from clearclip_core import render_scene
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.deploy.links import absolute_links, broken_links
from tests.deploy.release import Tree, faults

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: What is installed -> uv's name for it.
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
#: Dumps of databases that released versions have made, such as `version_0_2.sql`.
DUMPS = ROOT / "tests" / "backend" / "database"
SHOWN = ("torch", "open-clip-torch", "numpy", "opencv-python-headless", "pillow", "flask")
IMAGE = "clearclip-label-studio:rehearsal"


class StepError(Exception):
    """A step failed; the message has what a command said at its end."""


@dataclass
class Rehearsal:
    """The steps that were taken.

    Attributes:
        folder: a folder of its own for environments and databases.
        rows: where, what, how it went, and the seconds that it took.
    """

    folder: Path
    rows: list[tuple[str, str, str, float]] = field(default_factory=list)

    def step(self, where: str, what: str, take: Callable[[], str]) -> bool:
        """Take a step, note what it says, and return whether it was well."""
        begun = time.monotonic()
        is_well = True
        try:
            said = f"ok{take()}"
        except (StepError, DemoError, AssertionError, requests.RequestException) as error:
            said, is_well = f"**failed**: {str(error)[-1500:] or type(error).__name__}", False
        self.rows.append((where, what, said, time.monotonic() - begun))
        print(f"{where}: {what}: {said} ({self.rows[-1][3]:.0f} s)", flush=True)
        return is_well

    @property
    def is_well(self) -> bool:
        """Whether all steps were."""
        return all(said.startswith("ok") for _, _, said, _ in self.rows)

    def report(self, about: list[str]) -> str:
        """Return the rows as a page."""
        cells = [
            (where, what, " ".join(said.replace("|", "/").split()), f"{seconds:.0f}")
            for where, what, said, seconds in self.rows
        ]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        head = ["| where | what | how it went | seconds |", "|---|---|---|---|"]
        return "\n".join(["# Rehearsal", "", *about, "", *head, *lines]) + "\n"


def run(*command: object, cwd: Path) -> str:
    """Run a command without this checkout on Python's path, and return what it prints."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise StepError(f"{' '.join(words)[:160]}: {done.stdout[-1200:]}")
    return done.stdout


# ---- the packages ----------------------------------------------------------------------------


def copy_tree(to: Path) -> None:
    """Copy what Git tracks, or would track."""
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def build(source: Path, to: Path) -> str:
    """Build both packages, and check them as the index does."""
    for package in (".", "packages/dataset"):
        run(sys.executable, "-m", "build", "--quiet", "--outdir", to, package, cwd=source)
    run(sys.executable, "-m", "twine", "check", "--strict", *to.iterdir(), cwd=source)
    sizes = [f"{file.name} {file.stat().st_size / 1e6:.2f} MB" for file in sorted(to.iterdir())]
    return ": " + ", ".join(sizes)


def check_links(wheel: Path, address: str, tag: str) -> str:
    """Check the long description, which the index shows, against this checkout."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(name).decode().partition("\n\n")[2]
    broken = broken_links(text, ROOT, address, tag)
    if broken:
        raise StepError(" ".join(broken))
    return f": {text.count(address)} links begin with {address}"


# ---- on a Python -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own."""

    folder: Path  # the environment

    def program(self, name: str) -> Path:
        """Return a program of the environment."""
        return self.folder / "bin" / name

    def backend(self, *words: object, models: Path) -> str:
        """Run a command of the backend on the database of a folder."""
        given = (*words, "--model-dir", models)
        return run(self.program("clearclip-backend"), *given, cwd=self.folder)

    @contextmanager
    def served(self, models: Path) -> Iterator[str]:
        """Serve the demo model until the end of the block; the value is the address."""
        url = f"http://127.0.0.1:{(port := free_port(0))}"
        with running(
            [str(self.program("clearclip-backend")), "serve"],
            variables={
                "PYTHONPATH": "",
                "DATABASE_URL": "",
                "MODEL": "demo",
                "MODEL_DIR": str(models),
                "HOST": "127.0.0.1",
                "PORT": str(port),
            },
            health=f"{url}/ready",
            log=self.folder / "serve.log",
            timeout_s=300,
        ):
            yield url


def install(rehearsal: Rehearsal, wheel: Path, python: str, which: str) -> Installed | None:
    """Install the wheel, or return None where it cannot be.

    What it requires is named beside it: uv takes the lowest releases of what is named alone.
    """
    here = Installed(rehearsal.folder / f"{python}-{which}")
    where = f"Python {python}, {which}"

    def take() -> str:
        run("uv", "venv", "--quiet", "--python", python, here.folder, cwd=rehearsal.folder)
        into = ("uv", "pip", "install", "--quiet", "--python", here.program("python"))
        required = ("--requirement", ROOT / "pyproject.toml")
        run(*into, "--resolution", RESOLUTIONS[which], wheel, *required, cwd=rehearsal.folder)
        listed = run("uv", "pip", "freeze", "--python", here.program("python"), cwd=here.folder)
        pins = dict(line.split("==") for line in listed.splitlines() if "==" in line)
        return ": " + ", ".join(f"{name} {pins.get(name, '?')}" for name in SHOWN)

    return here if rehearsal.step(where, "install", take) else None


def predict(here: Installed, models: Path) -> str:
    """Serve, and have a drawn scene predicted as Label Studio asks for it."""
    picture = data_url(render_scene(3, size_hw=(192, 256)).image)
    body = {
        "tasks": [{"id": 1, "data": {"image": picture}}],
        "label_config": brush_config("sky", "grass", "tree"),
        "project": "7.1",
    }
    with here.served(models) as url:
        answer = requests.post(f"{url}/predict", json=body, timeout=120)
        answer.raise_for_status()
        (entry,) = answer.json()["results"]
        assert entry["result"], "no mask"
        page = requests.get(url, headers={"Accept": "text/html"}, timeout=60)
        page.raise_for_status()
    return f": {len(entry['result'])} masks by {entry['model_version']}"


def dump_of(file: Path) -> list[str]:
    """Return what an SQLite file holds, as statements."""
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


def upgrade_and_go_back(here: Installed, dump: Path, models: Path) -> str:
    """Upgrade a database that an earlier version has filled, and restore its backup."""
    models.mkdir()
    file, backup = models / "clearclip.db", models / "copy.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(dump.read_text("utf-8"))
    before = dump_of(file)

    first = here.backend("database", "status", models=models)
    here.backend("database", "backup", backup, models=models)
    with here.served(models) as url:
        page = requests.get(f"{url}/projects/7/report.json", timeout=60)
        page.raise_for_status()
        assert page.json()["annotations"]["compared"], "its annotations are gone"
    upgraded = here.backend("database", "status", models=models)
    assert "up to date" in upgraded, upgraded

    here.backend("database", "restore", backup, models=models)
    assert dump_of(file) == before, "what was restored is not what was backed up"
    revisions = [re.findall(r"revision (\w+)", said)[0] for said in (first, upgraded)]
    return f": {dump.stem}: {' -> '.join(revisions)} -> {revisions[0]}"


def live(rehearsal: Rehearsal, wheel: Path, python: str, which: str) -> None:
    """Install the wheel on one Python, and use it."""
    where = f"Python {python}, {which}"
    here = install(rehearsal, wheel, python, which)
    if here is None:
        return

    models = rehearsal.folder / f"models-{python}-{which}"
    rehearsal.step(where, "serve and predict", lambda: predict(here, models))
    for dump in sorted(DUMPS.glob("version_*.sql")):
        to = rehearsal.folder / f"{dump.stem}-{python}-{which}"
        take = lambda dump=dump, to=to: upgrade_and_go_back(here, dump, to)  # noqa: E731
        rehearsal.step(where, "upgrade and go back", take)
    shutil.rmtree(here.folder)  # gigabytes


# ---- the image -------------------------------------------------------------------------------


def image(source: Path) -> str:
    """Build the image, and start it on a network that leads nowhere."""
    run(
        "docker",
        "build",
        "--quiet",
        "--file",
        "backend/Dockerfile",
        "--tag",
        IMAGE,
        ".",
        cwd=source,
    )
    start = ("docker", "run", "--detach", "--network", "none", "--env", "MODEL=demo", IMAGE)
    name = run(*start, cwd=source).split()[-1]
    try:
        end = time.monotonic() + 300
        while _health(name) != "healthy":
            assert time.monotonic() < end, run("docker", "logs", name, cwd=source)[-1000:]
            time.sleep(2)
    finally:
        run("docker", "rm", "--force", "--volumes", name, cwd=source)
        run("docker", "image", "rm", IMAGE, cwd=source)
    return ": healthy"


def _health(container: str) -> str:
    asked = ("docker", "inspect", "--format", "{{.State.Health.Status}}", container)
    return run(*asked, cwd=ROOT).strip()


def has_docker() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(asked, capture_output=True).returncode == 0


# ---- all of it -------------------------------------------------------------------------------


@click.command(help=(__doc__ or "").partition("\n\n    ")[0])
@click.option("--address", default="https://example.org/owner/name", help="Of the repository.")
@click.option("--tag", default=None, help="Of the release, such as v0.3.0; checked if given.")
@click.option("--python", "pythons", multiple=True, default=PYTHONS, show_default=True)
@click.option(
    "--which", "resolutions", multiple=True, default=tuple(RESOLUTIONS), help="lowest, newest"
)
@click.option("--report", "to", type=click.Path(path_type=Path), default=Path("dist"))
@click.option("--build-only", is_flag=True, help="Build the packages and check them.")
def main(
    *,
    address: str,
    tag: str | None,
    pythons: tuple[str, ...],
    resolutions: tuple[str, ...],
    to: Path,
    build_only: bool,
) -> None:
    """Rehearse, and write the packages and `rehearsal.md` into the folder of the report."""
    to.mkdir(parents=True, exist_ok=True)
    tree = Tree.read()
    tag_or_branch = tag or "main"
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        rehearsal = Rehearsal(Path(folder))
        source, built = rehearsal.folder / "source", rehearsal.folder / "dist"
        copy_tree(source)
        page = source / "README.md"
        page.write_text(absolute_links(page.read_text("utf-8"), address, tag_or_branch), "utf-8")
        with (source / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(f'\n[project.urls]\nRepository = "{address}"\n')

        rehearsal.step("tree", f"version {tree.version}", lambda: _belongs_together(tree, tag))
        if rehearsal.step("packages", "build and check", lambda: build(source, built)):
            (wheel,) = built.glob("clearclip_label_studio-*.whl")
            check = lambda: check_links(wheel, address, tag_or_branch)  # noqa: E731
            rehearsal.step("packages", "links of the long description", check)
            for file in built.iterdir():
                shutil.copy2(file, to / file.name)
            for python, which in product(() if build_only else pythons, resolutions):
                live(rehearsal, wheel, python, which)
        if has_docker() and not build_only:
            rehearsal.step("image", "build and start", lambda: image(source))

    commit = run("git", "describe", "--always", "--dirty", cwd=ROOT).strip()
    about = [f"{date.today().isoformat()}, {commit}, {platform.platform()}"]
    if not has_docker():
        about.append("There was no Docker engine: the image was not built.")
    (to / "rehearsal.md").write_text(rehearsal.report(about), encoding="utf-8")
    print(f"The report is {to / 'rehearsal.md'}.")
    sys.exit(0 if rehearsal.is_well else 1)


def _belongs_together(tree: Tree, tag: str | None) -> str:
    found = faults(tree, tag)
    if found:
        raise StepError(" ".join(found))
    return "" if tag is None else f": {tag} can be released"


if __name__ == "__main__":
    main()
