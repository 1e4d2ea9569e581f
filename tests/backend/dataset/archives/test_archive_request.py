"""What a page or a program asks for."""

from __future__ import annotations

from typing import Any

import pytest

from backend.dataset.archives.archive_request import ArchiveRequest
from backend.errors import BadRequest


def test_choices_are_those_of_the_command() -> None:
    asked = ArchiveRequest.parse(
        {
            "project": "7",
            "view": "3",
            "formats": ["coco", "yolo", "coco"],
            "pictures": False,
            "annotations": "5",
            "overlap": "score",
            "split": "80/10/10",
            "near_duplicates": "0.98",
            "with_predictions": "on",
        }
    )
    options = asked.options
    assert (asked.project, asked.view) == (7, 3)
    assert (options.formats, options.pictures) == (("coco", "yolo"), "none")
    assert (options.choice.annotator, options.overlap) == (5, "score")
    assert (options.split.shares, options.with_predictions) == ((80, 10, 10), True)
    assert options.least_cosine == 0.98
    assert ArchiveRequest.parse(asked.to_json()) == asked


def test_what_is_not_chosen_is_as_on_the_command_line() -> None:
    empty = {"view": "", "formats": [], "annotations": "", "overlap": "", "split": ""}
    empty |= {"near_duplicates": ""}
    asked = ArchiveRequest.parse({"project": 7, **empty})
    assert asked == ArchiveRequest(7)
    assert (asked.options.formats, asked.options.pictures) == (("index-png",), "copy")
    assert str(asked.options.choice) == "preferred"
    assert ArchiveRequest.parse(asked.to_json()) == asked


def test_tables_hold_the_pictures() -> None:
    assert ArchiveRequest(7, formats=("parquet",)).options.pictures == "none"


@pytest.mark.parametrize(
    "wrong",
    [
        {"project": None},
        {"project": "seven"},
        {"formats": "coco"},
        {"formats": ["bmp"]},
        {"overlap": "random"},
        {"annotations": "best"},
        {"annotations": 5},
        {"split": "80/30"},
        {"pictures": "maybe"},
        {"near_duplicates": 0.9},  # without a split
        *({"split": "80/20", "near_duplicates": each} for each in (0, 1.5, "nan", "near", True)),
    ],
)
def test_other_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"^Expected "):
        ArchiveRequest.parse({"project": 7, **wrong})
