"""The package as the index takes it, and as people install it from there."""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.thorough


def run(*command: object, cwd: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(each) for each in command]
    made = subprocess.run(
        words, cwd=cwd, env=variables, capture_output=True, text=True, timeout=600
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist of the files that git tracks, and of the wheel that is made of it."""
    made = tmp_path_factory.mktemp("package")
    source = made / "source"
    source.mkdir()
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--quiet", "--outdir", made / "dist", cwd=source)
    return made / "dist"


def test_the_index_takes_both_files(built: Path) -> None:
    """Also what twine does not see: the index refuses requirements with an address."""
    (wheel,) = built.glob("*.whl")
    told = run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert told.count("PASSED") == 2
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        head = archive.read(metadata).decode().split("\n\n")[0].splitlines()
    required = [line for line in head if line.startswith("Requires-Dist:")]
    assert required
    assert not [line for line in required if "@" in line]


def test_the_wheel_works_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    """With what it asks for alone, and its data: weights of the demo, pages and migrations."""
    (wheel,) = built.glob("*.whl")
    code = (
        "from backend import create_app\n"
        "from backend.settings import Settings\n"
        "from clearclip_core import Segmenter, render_scene\n"
        "segmenter = Segmenter.load('demo', device='cpu', precision='fp32')\n"
        "labels = segmenter.segment(render_scene(1).image, ['sky', 'grass']).label_map\n"
        "assert (labels == 0).any()\n"
        f"app = create_app(Settings(model='demo', model_dir={str(tmp_path)!r}))\n"
        "assert app.test_client().get('/').status_code == 200\n"
        "import os; os._exit(0)  # the model's thread may still be loading\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest would keep its gigabyte
        run(sys.executable, "-m", "venv", folder, cwd=tmp_path)
        python = Path(folder, "bin", "python")
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", wheel, cwd=tmp_path)
        run(python, "-c", code, cwd=tmp_path)
        for command, part in ("clearclip", "models"), ("clearclip-backend", "demo"):
            run(python.with_name(command), part, "--help", cwd=tmp_path)


def test_the_sdist_has_what_its_tests_and_its_image_need(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    tracked = {name for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0") if name}
    lacking = {name for name in tracked if not (source / name).exists()}
    assert not {name for name in lacking if not name.startswith(".git")}

    # All of them are collected; those run that look at files beside the packages.
    chosen = "-k 'conventions or readability or settings'"
    given = f"VENV={sys.prefix}", f"ARGS=-q -p no:cacheprovider --numprocesses 0 {chosen}"
    assert " passed" in run("make", f"--old-file={sys.prefix}/.made", "quick", *given, cwd=source)
