"""A data set's folder, which is replaced as a whole or stays."""

import subprocess
import sys
import threading

import pytest

from backend.dataset.output_folder import OutputFolder
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import (
    Bench,
    brush_region,
    rectangle,
)

SKY, ROAD = rectangle(0, 0, 20, 60), rectangle(15, 0, 40, 60)


def folders(bench: Bench) -> list[str]:
    return sorted(each.name for each in bench.folder.parent.glob("set*"))


def test_a_failed_run_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.draw("a.png", brush_region(SKY, "sky"))
    bench.done()
    before = bench.files()
    stopping = threading.Event()
    stopping.set()
    assert bench.run(stopping) is None
    (bench.pictures / "a.png").unlink()
    with pytest.raises(
        DatasetError,
        match=r"^1 task skipped, .* earlier sets stay\. 1 picture not found: .*Task 1: .* gone",
    ):
        bench.run()
    bench.tasks = []
    monkeypatch.setattr(OutputFolder, "finish", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    assert bench.files() == before
    assert folders(bench) == ["set"]


@pytest.mark.parametrize("when", ["writes", "replaces"])
def test_a_killed_run_leaves_what_the_next_one_removes(bench: Bench, when: str) -> None:
    bench.draw("a.png", brush_region(SKY, "sky"))
    bench.done()
    before = bench.files()
    place = "OutputFolder.write" if when == "writes" else "output_folder.shutil.rmtree"
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from backend.dataset import output_folder\n"
        "from backend.dataset.output_folder import OutputFolder\n"
        "from tests.backend.dataset.drawn_tasks import Bench\n"
        "def kill(*_): os.kill(os.getpid(), 9)\n"
        "root = Path(sys.argv[1])\n"
        "(root / 'pictures').rename(root / 'kept')\n"
        "bench = Bench(root)\n"
        "bench.pictures = root / 'kept'\n"
        f"{place} = kill\n"  # of .parts, before the renames
        "bench.run()\n"
    )
    root = bench.folder.parent
    done = subprocess.run([sys.executable, "-c", code, str(root)], check=False)
    assert done.returncode == -9
    assert bench.files() == before
    assert (root / "set.partial").is_dir()
    bench.pictures = root / "kept"
    with OutputFolder(root / "busy", "project 7"):
        bench.folder = root / "set2"
        bench.done()
        assert folders(bench) == ["set", "set2"]
        assert (root / "busy.partial").is_dir()
    bench.folder = root / "set"
    bench.done()
    assert bench.files() == before


def test_a_folder_of_something_else_is_left_alone(bench: Bench) -> None:
    with OutputFolder(bench.folder, "project 7"), pytest.raises(DatasetError, match="Another run"):
        bench.run()
    bench.folder.mkdir()
    (bench.folder / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match="files already"):
        bench.run()
    assert bench.files() == {"thesis.tex"}
    (bench.folder / "thesis.tex").unlink()
    bench.done()
    (bench.folder / "runs").mkdir()
    (bench.folder / "runs/best.pt").write_bytes(b"weights")
    with pytest.raises(DatasetError, match='"runs", which is not of the data set'):
        bench.run()
    assert (bench.folder / "runs/best.pt").is_file()
    assert not bench.folder.with_name("set.partial").exists()
    bench.name = "project 8"
    with pytest.raises(DatasetError, match="project 7, not of project 8"):
        bench.run()
