"""What annotations say, in masks drawn by hand; regions as Label Studio writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backend.feedback.comparison import ImageDiff, compare_annotation
from backend.feedback.evidence import ImageEvidence, LazyMasks
from tests.backend.feedback.test_comparison import CONFIG, LEFT, WIDE, drawn, region, shape

RIGHT = drawn("....####", "....####", "........", "........")
EDGE = drawn("....##..", "....##..", "........", "........")

#: The left half of a picture of 4 x 8 px, in percent.
HALF = {"x": 0, "y": 0, "width": 50, "height": 100}


def picture_of(predicted: list[Any] | None, final: list[Any]) -> ImageDiff:
    (picture,) = compare_annotation(predicted, final, CONFIG)
    return picture


def said(predicted: list[Any] | None, final: list[Any]) -> ImageEvidence:
    return picture_of(predicted, final).evidence


def painted(masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, list[list[int]]]:
    """Name of the label -> the pixels of its mask, row by row; without empty masks."""
    rows = {label: mask.astype(int).tolist() for label, mask in masks.items() if mask.any()}
    return dict(sorted(rows.items()))


def test_a_region_as_it_was_predicted_is_kept_and_a_changed_one_is_drawn() -> None:
    shown = [region("a", "c", LEFT), region("b", "Sky", RIGHT)]
    evidence = said(shown, [region("a", "c", LEFT), region("b", "Sky", EDGE)])
    assert painted(evidence.masks) == painted({"Car": LEFT, "Sky": EDGE})
    assert painted(evidence.kept) == painted({"Car": LEFT})
    assert painted(evidence.removed) == painted({"Sky": RIGHT & ~EDGE})


@pytest.mark.parametrize(
    ("origin", "is_kept"), [("prediction", True), ("prediction-changed", False), ("manual", False)]
)
@pytest.mark.parametrize("shown", [None, [region("z", "Dog", WIDE)]])
def test_without_the_prediction_at_hand_the_origin_says_what_was_kept(
    origin: str, is_kept: bool, shown: list[Any] | None
) -> None:
    final = [region("a", "Car", LEFT, origin=origin), region("z", "Dog", WIDE)]
    kept = said(shown, final).kept
    assert ("Car" in kept) == is_kept


def test_the_prediction_at_hand_says_more_than_the_origin() -> None:
    changed = said([region("a", "Car", LEFT)], [region("a", "Car", WIDE, origin="prediction")])
    assert painted(changed.kept) == {}
    copied = said([region("a", "Car", LEFT)], [region("a", "Car", LEFT, origin="manual")])
    assert painted(copied.kept) == painted({"Car": LEFT})


def test_what_is_drawn_over_something_kept_with_its_label_is_drawn() -> None:
    shown = [region("a", "Car", LEFT)]
    evidence = said(
        shown,
        [
            region("a", "Car", LEFT),
            region(
                "n", "Car", EDGE | LEFT & ~drawn("##......", "##......", "........", "........")
            ),
        ],
    )
    assert painted(evidence.kept) == painted(
        {"Car": drawn("##......", "##......", "........", "........")}
    )


def test_a_region_with_another_label_is_removed_from_the_first_and_drawn() -> None:
    evidence = said([region("a", "Car", LEFT)], [region("a", "Dog", LEFT)])
    assert painted(evidence.masks) == painted({"Dog": LEFT})
    assert painted(evidence.kept) == {}
    assert painted(evidence.removed) == painted({"Car": LEFT})


def test_a_deleted_region_is_removed_where_the_label_is_not_drawn_again() -> None:
    shown = [region("a", "Car", WIDE), region("b", "Sky", RIGHT)]
    evidence = said(shown, [region("b", "Sky", RIGHT), region("n", "Car", LEFT)])
    assert painted(evidence.removed) == painted({"Car": WIDE & ~LEFT})
    assert painted(evidence.kept) == painted({"Sky": RIGHT})


def test_who_deleted_all_began_anew_and_removed_only_what_is_drawn_over() -> None:
    shown = [region("a", "Car", WIDE), region("b", "Dog", LEFT)]
    evidence = said(shown, [region("n", "Sky", EDGE)])
    assert painted(evidence.removed) == painted({"Car": EDGE})
    assert painted(said(shown, [region("n", "Car", LEFT)]).removed) == painted({"Dog": LEFT})
    assert said(shown, []).is_empty


def test_a_rectangle_is_no_mask_and_one_that_is_gone_removes_nothing() -> None:
    box = shape("rectanglelabels", "box", "Sign", HALF)
    alone = picture_of([box | {"id": "gone"}], [box])
    assert alone.evidence.is_empty
    assert alone.final["Sign"].sum() == 16, "the report compares it as before"
    assert alone.changes[0].shared_px == 16
    assert said([box, region("b", "Sky", RIGHT)], [region("b", "Sky", RIGHT)]).removed == {}
    beside = said(None, [box, region("n", "Sky", RIGHT)])
    assert painted(beside.masks) == painted({"Sky": RIGHT})


def test_a_polygon_is_its_shape() -> None:
    corners = {"points": [[0, 0], [50, 0], [0, 100]]}
    roof = shape("polygonlabels", "poly", "Roof", corners)
    for evidence in (said(None, [roof]), said([roof], [roof])):
        assert evidence.masks["Roof"][0, 0]
        assert not evidence.masks["Roof"][3, 3]
        assert evidence.masks["Roof"].sum() < 16, "the box around it"
    assert painted(said([roof], [roof]).kept).keys() == {"Roof"}


def test_masks_are_drawn_when_they_are_asked_for_and_not_before() -> None:
    drawn_: list[str] = []

    def draw() -> npt.NDArray[np.bool_]:
        drawn_.append("car")
        return LEFT

    masks = LazyMasks({"car": draw})
    assert ("car" in masks, "dog" in masks, list(masks), len(masks)) == (True, False, ["car"], 1)
    assert drawn_ == []
    assert masks["car"] is LEFT
