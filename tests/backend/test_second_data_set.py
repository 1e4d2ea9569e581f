"""Data sets the second time, in every format: two people, two folders, two runs, a newer export.

Readers of other programs say what is in a set: pycocotools, OpenCV, PyArrow and Pillow.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco_mask

from backend.cli.main import main
from backend.dataset.formats.layouts import find_masks
from backend.dataset.formats.writers import WRITERS
from backend.dataset.mask_source import Limits
from tests.backend.dataset.drawn_tasks import (
    SIZE_HW,
    annotation,
    brush_region,
    picture_bytes,
    rectangle,
    saved,
    task,
)

Mask = npt.NDArray[np.bool_]

PICTURES = 10
#: What differs between two runs of one command: when it was, and what has changed since.
OF_THE_RUN = ("made", "changes")


def drawn_by(person: int, number: int, right: int = 30) -> Mask:
    """Return the car that a person draws on a picture: the second one reaches farther down."""
    return rectangle(number, 5, number + 10 + 5 * person, right)


class Project:
    """The folder of an export, with its pictures below, and the commands run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "photos/day 1").mkdir(parents=True)
        self.pictures = 0
        self.tasks: list[dict[str, Any]] = []
        for _ in range(PICTURES):
            self.add()

    def add(self) -> None:
        """Add a picture, uploaded as Label Studio does, that two people have drawn on.

        Every third has 16 bits: the copy in a data set has the same name, and other bytes.
        """
        number = self.pictures
        self.pictures += 1
        deep = saved(Image.fromarray(np.full(SIZE_HW, 1000 + number, np.uint16)))
        content = picture_bytes(number) if number % 3 else deep
        (self.folder / f"photos/day 1/{number}.png").write_bytes(content)
        own = [
            annotation(
                10 * number + person,
                [brush_region(drawn_by(person, number), "car")],
                person,
                updated_at=f"2026-01-0{person}T10:00:00Z",
            )
            for person in (1, 2)
        ]
        address = f"/data/upload/7/{number:08x}-{number}.png"
        self.tasks.append(task(number + 1, address, own, project=7))

    def correct(self, number: int) -> None:
        """Have the second person draw a picture's car wider."""
        own = self.tasks[number]["annotations"][1]
        own["result"] = [brush_region(drawn_by(2, number, right=40), "car")]

    def write(self, to: str, *options: str) -> dict[str, Any]:
        """Write a data set; return its report."""
        (self.folder / "project.json").write_text(json.dumps(self.tasks))
        words = ["dataset", "--export", str(self.folder / "project.json")]
        done = CliRunner().invoke(main, [*words, "--to", str(self.folder / to), *options])
        assert done.exit_code == 0, done.output
        report: dict[str, Any] = json.loads((self.folder / to / "report.json").read_text())
        return report

    def digests(self, name: str) -> dict[str, str]:
        """Return file -> digest of a data set, without what is of the run."""
        found = {}
        for path in sorted((self.folder / name).rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            if path.name == "report.json":
                report = json.loads(content)
                content = repr({k: v for k, v in report.items() if k not in OF_THE_RUN}).encode()
            found[path.relative_to(self.folder / name).as_posix()] = hashlib.sha256(
                content
            ).hexdigest()
        return found

    def parts(self, name: str) -> dict[int, str]:
        """Return task -> part of its picture."""
        lines = (self.folder / name / "pictures.jsonl").read_text().splitlines()
        return {row["task"]: row["part"] for row in map(json.loads, lines)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# ---- readers of other programs -------------------------------------------------------------------


def in_index_png(folder: Path) -> dict[str, Mask]:
    return {path.stem: np.asarray(Image.open(path)) == 0 for path in folder.glob("masks/*.png")}


def in_coco(folder: Path) -> dict[str, Mask]:
    found = {}
    for path in folder.glob("annotations/*.json"):
        told = json.loads(path.read_text())
        names = {each["id"]: Path(each["file_name"]).stem for each in told["images"]}
        for each in told["annotations"]:
            packed = coco_mask.frPyObjects(each["segmentation"], *each["segmentation"]["size"])
            found[names[each["image_id"]]] = coco_mask.decode(packed).astype(np.bool_)
    return found


def in_yolo(folder: Path) -> dict[str, Mask]:
    """Fill outlines as Ultralytics does."""
    height, width = SIZE_HW
    found = {}
    for path in folder.glob("labels/*.txt"):
        points = np.array(path.read_text().split()[1:], np.float64).reshape(-1, 2)
        canvas = np.zeros(SIZE_HW, np.uint8)
        cv2.fillPoly(canvas, [(points * (width, height)).astype(np.int32)], 1)
        found[path.stem] = canvas.astype(np.bool_)
    return found


def in_yolo_boxes(folder: Path) -> dict[str, Mask]:
    """Return the boxes, filled: those of the cars, which are boxes themselves."""
    found = {}
    for path in folder.glob("labels/*.txt"):
        x, y, width, height = np.array(path.read_text().split()[1:], np.float64)
        left, right = np.rint((np.array([-0.5, 0.5]) * width + x) * SIZE_HW[1]).astype(int)
        top, bottom = np.rint((np.array([-0.5, 0.5]) * height + y) * SIZE_HW[0]).astype(int)
        found[path.stem] = rectangle(top, left, bottom, right)
    return found


def in_parquet(folder: Path) -> dict[str, Mask]:
    rows = [row for path in folder.glob("data/*.parquet") for row in _rows(path)]
    return {
        row["name"]: np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) == 0 for row in rows
    }


def _rows(path: Path) -> list[Any]:
    rows: list[Any] = parquet.read_table(path).to_pylist()
    return rows


READERS: Mapping[str, Callable[[Path], dict[str, Mask]]] = {
    "index-png": in_index_png,
    "coco": in_coco,
    "yolo": in_yolo,
    "yolo-boxes": in_yolo_boxes,
    "parquet": in_parquet,
}
EACH_FORMAT = pytest.mark.parametrize("format_", READERS)


def test_every_format_has_a_reader_here() -> None:
    assert set(READERS) == set(WRITERS.names()) - {"overlays"}


# ---- two people, two folders, two runs -----------------------------------------------------------


@EACH_FORMAT
@pytest.mark.parametrize("person", [1, 2])
def test_a_set_has_what_the_person_has_drawn(project: Project, format_: str, person: int) -> None:
    project.write("set", "--format", format_, "--annotations", str(person))
    found = READERS[format_](project.folder / "set")
    assert len(found) == PICTURES
    for number in range(PICTURES):
        np.testing.assert_array_equal(found[str(number)], drawn_by(person, number))


@pytest.mark.parametrize("format_", ["index-png", "coco", "yolo"])
def test_a_set_is_read_by_the_import_of_masks(project: Project, format_: str) -> None:
    project.write("set", "--format", format_, "--split", "60/40")
    sources = list(find_masks(project.folder / "set").read(Limits(), None))
    assert len(sources) == PICTURES
    for source in sources:
        (region,) = source.read_regions(SIZE_HW)
        number = int(Path(source.name).stem)
        np.testing.assert_array_equal(region.read_mask(), drawn_by(2, number))


@EACH_FORMAT
def test_the_same_command_again_writes_the_same(project: Project, format_: str) -> None:
    options = ("--format", format_, "--overlays", "--split", "60/40")
    project.write("set", *options)
    first = project.digests("set")
    project.write("set", *options)
    assert project.digests("set") == first


@EACH_FORMAT
def test_another_folder_beside_it_has_the_same(project: Project, format_: str) -> None:
    """The first set lies among the pictures when the second is written."""
    options = ("--format", format_, "--split", "60/40")
    project.write("photos/set", *options)
    project.write("photos/set 2", *options)
    assert project.digests("photos/set 2") == project.digests("photos/set")


@EACH_FORMAT
def test_a_newer_export_keeps_the_parts_and_says_what_has_changed(
    project: Project, format_: str
) -> None:
    options = ("--format", format_, "--split", "60/40")
    project.write("set", *options)
    before = project.parts("set")
    project.correct(3)
    project.add()
    report = project.write("set", *options)
    after = project.parts("set")
    assert {number: after[number] for number in before} == before
    assert report["changes"]["pictures"] == {"new": 1, "corrected": 1, "gone": 0}
    found = READERS[format_](project.folder / "set")
    assert len(found) == PICTURES + 1
    np.testing.assert_array_equal(found["3"], drawn_by(2, 3, right=40))


@EACH_FORMAT
def test_a_picture_that_comes_back_has_its_part_again(project: Project, format_: str) -> None:
    options = ("--format", format_, "--split", "60/40")
    project.write("set", *options)
    before = project.parts("set")
    some = [project.tasks.pop(number) for number in (7, 2)]
    assert project.write("set", *options)["changes"]["pictures"]["gone"] == 2
    project.tasks += some
    project.write("set", *options)
    assert project.parts("set") == before
