"""Nothing is written outside MODEL_DIR and a test's own folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What label-studio-ml 2.x does when it is imported.
STUB = """
import os, pathlib

folder = pathlib.Path(os.getenv("MODEL_DIR", "."))
folder.mkdir(parents=True, exist_ok=True)
(folder / "cache.db").touch()


class LabelStudioMLBase:
    pass
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a label-studio-ml of 2.x beside it."""
    package = tmp_path / "packages" / "label_studio_ml"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(STUB)
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    return tmp_path / "home"


def run(home: Path, *command: str, folder: Path | None = None, **variables: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "MODEL_DIR"}
    path = f"{home.parent / 'packages'}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-B", *command],
        cwd=folder or home.parent / "here",
        env=inherited | {"HOME": str(home), "PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def databases(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.db")]


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "home/.cache/clearclip/cache.db"),
        ({"MODEL_DIR": ""}, "home/.cache/clearclip/cache.db"),
        ({"MODEL_DIR": "~/weights"}, "home/weights/cache.db"),
    ],
)
def test_the_adapter_lets_label_studio_ml_write_to_model_dir_alone(
    home: Path, variables: dict[str, str], place: str
) -> None:
    run(home, "-c", "import backend.label_studio_ml", **variables)
    assert databases(home.parent) == [place]
    assert not list((home.parent / "here").iterdir())


def test_looking_for_doctests_writes_nothing(home: Path) -> None:
    command = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "backend")
    assert "backend/settings.py" in run(home, *command, folder=ROOT)
    assert databases(home.parent) == []
    assert not (ROOT / "cache.db").exists()


@pytest.mark.parametrize(("place", "status"), [("Path()", 1), ("tmp_path", 0)])
def test_a_run_that_leaves_a_file_in_the_repository_fails(
    tmp_path: Path, place: str, status: int
) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    test = f"def test(tmp_path):\n    ({place} / 'left.db').touch()\n"
    (tmp_path / "test_it.py").write_text(f"from pathlib import Path\n\n\n{test}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", ".own"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert ("new files in the repository: left.db" in done.stdout) is bool(status)
