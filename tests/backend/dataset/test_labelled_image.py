"""Label maps by every rule for overlaps, against a loop over pixels; tables of classes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backend.dataset.labelled_image import (
    NOTHING,
    ClassTable,
    LabelledImage,
    LabelledRegion,
    Overlap,
    overlaps,
)
from backend.errors import DatasetError

CLASSES = ClassTable.of(["sky", "road", "car"])


def _brute_force(image: LabelledImage, overlap: Overlap) -> list[list[int]]:
    """The winner of each pixel, among the regions that cover it."""
    rows, columns = image.size_hw
    found = [[NOTHING] * columns for _ in range(rows)]
    for y in range(rows):
        for x in range(columns):
            here = [region for region in image.regions if region.read_mask()[y, x]]
            if not here:
                continue

            def rank(region: LabelledRegion) -> tuple[float, int]:
                area = int(region.read_mask().sum())
                score = 2.0 if region.score is None else region.score
                first = {"largest": -area, "smallest": area, "score": -score}.get(overlap, 0)
                return first, CLASSES.names.index(region.label)

            found[y][x] = CLASSES.names.index(min(here, key=rank).label)
    return found


@pytest.mark.parametrize("overlap", overlaps())
def test_every_rule_agrees_with_a_loop_over_pixels(overlap: Overlap) -> None:
    random = np.random.default_rng(0)
    regions = tuple(
        LabelledRegion.of(
            CLASSES.names[random.integers(3)],
            random.random((6, 7)) < random.random(),
            score=None if index == 3 else float(random.random()),
        )
        for index in range(6)
    )
    image = LabelledImage("a", (6, 7), regions)
    assert image.label_map(CLASSES, overlap).tolist() == _brute_force(image, overlap)


def test_a_mask_of_another_size_is_refused() -> None:
    region = LabelledRegion.of("sky", np.ones((2, 3), np.bool_))
    with pytest.raises(DatasetError, match="2×1 px like its picture, but got 3×2"):
        LabelledImage("a", (1, 2), (region,)).label_map(CLASSES)


def test_an_unknown_label_is_refused() -> None:
    region = LabelledRegion.of("boat", np.ones((1, 2), np.bool_))
    with pytest.raises(DatasetError, match='"boat"'):
        LabelledImage("a", (1, 2), (region,)).label_map(CLASSES)


def test_a_table_comes_back_from_its_file() -> None:
    written = json.loads(json.dumps(CLASSES.to_json("largest")))
    assert ClassTable.from_json(written) == CLASSES
    assert written["nothing"] == 255
    assert written["overlap"] == "largest"
    assert "most pixels" in written["overlap_rule"]


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {"classes": 3},
        {"classes": [{"value": 1, "name": "sky", "colour": [0, 0, 0]}]},
        {"classes": [{"value": 0, "name": "sky", "colour": [0, 0]}]},
        {"classes": [{"value": 0, "name": "sky", "colour": [0, 0, 256]}]},
    ],
)
def test_a_broken_file_of_classes_is_refused(found: object) -> None:
    with pytest.raises(DatasetError):
        ClassTable.from_json(found)


@pytest.mark.parametrize("names", [[], ["sky", "sky"], [str(i) for i in range(256)]])
def test_a_table_refuses_what_a_label_map_cannot_hold(names: list[str]) -> None:
    with pytest.raises(DatasetError):
        ClassTable(tuple(names), ((0, 0, 0),) * len(names))
