"""Formats of other packages, found by their entry points, and the example of the guide."""

import re

import pytest
from click.testing import CliRunner

from backend.cli.dataset import dataset
from backend.dataset.formats.writers import WRITERS, find_writer, find_writers
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import Bench, brush_region, rectangle
from tests.packages import Packages, blocks_of_guide

GROUP = "clearclip.writers"


def test_the_example_of_the_guide_is_written(bench: Bench, packages: Packages) -> None:
    blocks = blocks_of_guide("Add a format")
    point = re.search(r'^csv = "(.*)"$', blocks["toml"], re.MULTILINE)
    assert point is not None
    packages.install("clearclip_csv", blocks["py"], GROUP, f"csv = {point[1]}")
    bench.draw("a.png", brush_region(rectangle(0, 0, 2, 3), "sky"))
    for _ in range(2):  # the folder is known as a data set
        report = bench.done(formats=("csv", "index-png"))
        assert (bench.folder / "objects/train.csv").read_text() == "a.png,sky,6\n"
    assert report.notes[-1] == "CSV has areas and no masks."
    assert "CSV: the area of each object" in [each.title for each in WRITERS.all()]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_that_name", "is broken: ModuleNotFoundError: No module named"),
        ("1 / 0", "is broken: ZeroDivisionError: division by zero"),
        ("Mine = 7", "is no FormatWriter"),
        (
            "from backend.dataset.formats.coco import CocoWriter as Mine",
            'calls itself "coco": give both one name',
        ),
    ],
)
def test_a_broken_package_costs_its_own_format(packages: Packages, code: str, reason: str) -> None:
    packages.install("broken_one", code, GROUP, "mine = broken_one:Mine")
    assert "mine" in WRITERS.names()
    with pytest.raises(DatasetError, match=f"^The format mine of broken_one {reason}"):
        find_writer("mine")
    assert "coco" in [each.name for each in WRITERS.all()]


def test_no_package_replaces_a_format_of_ours(packages: Packages) -> None:
    packages.install("other", "1 / 0", GROUP, "coco = other:Coco")
    assert find_writer("coco").__module__ == "backend.dataset.formats.coco"
    assert WRITERS.names().count("coco") == 1


def test_an_unknown_format_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(DatasetError, match=r"to be index-png, coco, .*, but got \"gif\"\.$"):
        find_writer("gif")


def test_formats_with_files_of_one_name_are_refused() -> None:
    with pytest.raises(DatasetError, match="yolo and yolo-boxes have files of the same names"):
        find_writers(["yolo", "yolo-boxes"])


def test_the_command_names_the_formats() -> None:
    done = CliRunner().invoke(dataset, ["--export", __file__, "--to", "x", "--format", "gif"])
    assert "'index-png', 'coco'" in done.output
    assert done.exit_code == 2
