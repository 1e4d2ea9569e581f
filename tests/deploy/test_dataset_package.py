"""The converter's own package: what is in it, what it asks for, and that it works without torch."""

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image

from tests.deploy.release import Tree

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packages/dataset"

#: Modules of packages whose names are others; those that nothing imports, but a module needs.
_MODULES = {"pillow": "PIL", "opencv-python-headless": "cv2", "pyyaml": "yaml"}


def requirements(file: Path) -> dict[str, str]:
    """Return name -> the whole requirement of what a package needs."""
    text = file.read_text(encoding="utf-8")
    (needed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r'"(([A-Za-z0-9_-]+)[^"]*)"', needed)
    return {name.lower(): whole for whole, name in found}


@pytest.fixture(scope="module")
def setup_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dataset_setup", FOLDER / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package as its wheel has it."""
    to = tmp_path_factory.mktemp("built")
    run_setup(FOLDER, to, "build_py", "--build-lib", to)
    return to


def run_setup(folder: Path, metadata: Path, *words: object) -> None:
    """Run setup.py of a folder, whose metadata goes elsewhere."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", metadata, *words]
    made = subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return the path and the bytes of each file of the built package."""
    files = (each for each in folder.glob("clearclip_dataset/**/*") if each.is_file())
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


def test_what_is_imported_is_what_is_asked_for(setup_file: ModuleType) -> None:
    _, others = setup_file.closure()
    imported = others - set(sys.stdlib_module_names)
    asked = {_MODULES.get(name, name.replace("-", "_")) for name in _asked()}
    assert imported == asked


def test_nothing_heavy_is_imported(setup_file: ModuleType) -> None:
    heavy = {"torch", "open_clip", "timm", "scipy", "sqlalchemy", "flask", "ray", "pyarrow"}
    assert not heavy & setup_file.closure()[1]


def _asked() -> dict[str, str]:
    return requirements(FOLDER / "pyproject.toml")


def test_requirements_are_those_of_the_whole_package() -> None:
    whole = requirements(ROOT / "pyproject.toml")
    own = {name: text for name, text in _asked().items() if name != "pydantic"}
    assert own == {name: whole[name] for name in own}


def test_versions_are_one() -> None:
    tree = Tree.read()
    assert tree.converter == tree.version


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of one task with a brush region, in the corner of its picture."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:10, :20] = 255
    region = {
        "id": "r",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "img",
        "original_width": 60,
        "original_height": 40,
        "value": {"format": "rle", "rle": mask2rle(mask), "brushlabels": ["sky"]},
    }
    when = "2026-01-01T00:00:00Z"
    annotation = {"id": 1, "completed_by": 1, "created_at": when, "updated_at": when}
    task = {
        "id": 1,
        "data": {"image": "/data/upload/7/00000001-a.png"},
        "annotations": [annotation | {"result": [region]}],
    }
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    (tmp_path / "project.json").write_text(json.dumps([task]))
    return tmp_path / "project.json"


def test_an_export_is_converted_without_what_the_converter_lacks(built: Path, export: Path) -> None:
    """In a process where torch and its kin cannot be imported."""
    code = (
        "import sys\n"
        "for name in ('torch', 'open_clip', 'timm', 'scipy', 'sqlalchemy', 'flask'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(built)!r})\n"
        "from clearclip_dataset.__main__ import main\n"
        "main()\n"
    )
    to = export.parent / "set"
    formats = ("--format", "coco", "--format", "yolo", "--format", "index-png", "--overlays")
    words = ("dataset", "--export", str(export), "--to", str(to), *formats)
    made = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    coco = json.loads((to / "annotations/instances_train.json").read_text())
    assert [each["area"] for each in coco["annotations"]] == [200]
    assert yaml.safe_load((to / "data.yaml").read_text())["names"] == {0: "sky"}
    with Image.open(to / "masks/a.png") as values:
        assert (np.asarray(values) == 0).sum() == 200


def test_an_sdist_builds_the_same_where_the_repository_is_not(built: Path, tmp_path: Path) -> None:
    run_setup(FOLDER, tmp_path, "sdist", "--dist-dir", tmp_path)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()

    to = tmp_path / "built"
    to.mkdir()
    run_setup(source, to, "build_py", "--build-lib", to)
    assert contents_of(to) == contents_of(built)


def test_the_license_is_in_it(built: Path) -> None:
    copy = built / "clearclip_dataset/sources/LICENSE"
    assert copy.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_whole_package_may_lie_beside_it(built: Path) -> None:
    """Its copies of `backend` are in a folder of its own."""
    assert {path.name for path in built.iterdir() if path.suffix != ".egg-info"} == {
        "clearclip_dataset"
    }
