"""Small masks drawn by hand, with figures counted by hand, which Label Studio's SDK writes."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from backend.errors import BadRequest
from backend.feedback.comparison import AnnotationDiff, LabelDiff, compare_annotation
from backend.feedback.evidence import ImageEvidence
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from tests.backend.dataset.drawn_tasks import brush_region

CONFIG = parse_label_config(
    """<View>
    <Image name="img" value="$image"/><Image name="pages" valueList="$pages"/>
    <BrushLabels name="mask" toName="img,pages">
      <Label value="Car" alias="c"/><Label value="Dog"/><Label value="Sky"/>
    </BrushLabels>
    <BitmaskLabels name="bits" toName="img"><Label value="Leaf"/></BitmaskLabels>
    <PolygonLabels name="poly" toName="img"><Label value="Roof"/></PolygonLabels>
    <RectangleLabels name="box" toName="img"><Label value="Car"/><Label value="Sign"/>
    </RectangleLabels>
    <RectangleLabels name="tool" toName="img" smart="true"><Label value="Dog"/></RectangleLabels>
    </View>""",
    None,
)
TASK = Task(1, 7, {"image": "/data/a.png", "pages": ["/data/1.png", "/data/2.png"]})


def drawn(*rows: str) -> npt.NDArray[np.bool_]:
    return np.array([[cell == "#" for cell in row] for row in rows])


def region(id_: str, label: str, mask: npt.NDArray[np.bool_], **more: Any) -> dict[str, Any]:
    return brush_region(mask, label, id=id_, **more)


def shape(
    kind: str, control: str, label: str, value: dict[str, Any], id_: str = "s"
) -> dict[str, Any]:
    """A region of another kind, on a picture of 4 x 8 px."""
    size = {"original_width": 8, "original_height": 4, "to_name": "img"}
    return {"id": id_, "type": kind, "from_name": control, "value": value | {kind: [label]}} | size


def change(predicted: list[Any], final: list[Any], label: str = "Car") -> LabelDiff:
    (picture,) = compare_annotation(predicted, final, CONFIG)
    return next(each for each in picture.changes if each.label == label)


LEFT = drawn("####....", "####....", "........", "........")
WIDE = drawn("######..", "######..", "........", "........")


@pytest.mark.parametrize(("before", "after"), [("c", "Car"), ("Car", "c"), ("c", "c")])
def test_unchanged_is_accepted_and_other_pixels_are_a_correction(before: str, after: str) -> None:
    same = change([region("a", before, LEFT)], [region("a", after, LEFT, origin="prediction")])
    assert (same.accepted, same.corrected, same.deleted, same.added) == (1, 0, 0, 0)
    assert (same.predicted_px, same.true_px, same.shared_px) == (8, 8, 8)
    assert same.iou == 1
    final = drawn(".#####..", ".#####..", "........", "........")
    made = change([region("a", before, LEFT)], [region("a", after, final)])
    assert (made.accepted, made.corrected) == (0, 1)
    assert (made.true_px - made.shared_px, made.predicted_px - made.shared_px) == (4, 2)
    assert made.iou == 6 / 12


def test_a_region_that_is_gone_was_false_and_one_that_is_new_was_missed() -> None:
    predicted = [region("a", "Car", LEFT), region("b", "Dog", WIDE)]
    final = [region("a", "Car", LEFT), region("n", "Sky", WIDE)]
    (picture,) = compare_annotation(predicted, final, CONFIG)
    car, dog, sky = picture.changes
    assert (car.accepted, dog.deleted, sky.added) == (1, 1, 1)
    assert (dog.iou, dog.predicted_px, dog.true_px) == (0, 12, 0)
    assert (sky.iou, sky.predicted_px, sky.true_px) == (0, 0, 12)
    assert sorted(picture.evidence.masks) == ["Car", "Sky"]
    assert np.array_equal(picture.evidence.masks["Sky"], WIDE)


def test_a_region_that_got_another_label() -> None:
    predicted, final = [region("a", "Car", LEFT)], [region("a", "Dog", LEFT)]
    car, dog = change(predicted, final), change(predicted, final, "Dog")
    assert (dict(car.relabelled), car.deleted, car.corrected) == ({"Dog": 1}, 0, 0)
    assert (dog.received, dog.added) == (1, 0)


def test_several_regions_of_a_label_count_each_and_their_pixels_together() -> None:
    corner = drawn("##......", "##......", "........", "........")
    predicted = [region("a", "Car", LEFT), region("b", "Car", corner)]
    made = change(predicted, [region("a", "Car", LEFT), region("n", "Car", WIDE)])
    assert (made.accepted, made.deleted, made.added) == (1, 1, 1)
    assert (made.predicted_px, made.true_px, made.shared_px) == (8, 12, 8)


def test_what_was_drawn_anew_has_the_iou_of_the_masks_and_all_of_it_was_painted() -> None:
    made = change([region("a", "Car", LEFT)], [region("n", "Car", LEFT)])
    assert (made.iou, made.redrawn_px) == (1, 8)
    assert (made.accepted, made.deleted, made.added) == (0, 1, 1)


def test_only_what_no_region_covers_that_is_left_was_drawn_anew() -> None:
    predicted = [region("a", "Car", LEFT), region("b", "Car", RIGHT)]
    made = change(predicted, [region("a", "Car", LEFT), region("n", "Car", WIDE)])
    assert (made.shared_px, made.redrawn_px) == (12, 4)
    kept = change(predicted, [region("a", "Car", WIDE), region("b", "Car", RIGHT)])
    assert (kept.shared_px, kept.redrawn_px) == (16, 0)


def test_a_box_around_a_mask_is_not_the_mask() -> None:
    """Where two controls draw a label, the first that the annotator has kept counts."""
    box = shape("rectanglelabels", "box", "Car", {"x": 0, "y": 0, "width": 100, "height": 100})
    both = [region("a", "Car", LEFT), box]
    assert change(both, both).true_px == 8
    assert change(both, both).accepted == 1
    assert change(both, [box]).true_px == 32
    assert change(both, []).deleted == 1
    assert change(both, []).predicted_px == 8


PARTLY = parse_label_config(
    """<View><Image name="img" value="$image"/>
    <BrushLabels name="mask" toName="img"><Label value="Car"/></BrushLabels>
    <RectangleLabels name="box" toName="img" prelabel="no"><Label value="Car"/>
      <Label value="Sign"/></RectangleLabels></View>""",
    None,
)


def test_a_prediction_is_compared_with_a_control_that_is_not_predicted() -> None:
    box = shape("rectanglelabels", "box", "Car", {"x": 0, "y": 0, "width": 50, "height": 50})
    predicted = [region("a", "Car", WIDE)]
    (picture,) = compare_annotation(predicted, [box], PARTLY)
    (car,) = picture.changes
    assert (car.predicted_px, car.true_px, car.shared_px, car.redrawn_px) == (12, 8, 8, 8)
    assert (car.deleted, car.added) == (1, 1)
    (kept,) = compare_annotation(predicted, [*predicted, box], PARTLY)
    assert (kept.changes[0].accepted, kept.changes[0].true_px) == (1, 12)


def test_what_is_never_predicted_is_not_missed() -> None:
    sign = shape("rectanglelabels", "box", "Sign", {"x": 0, "y": 0, "width": 50, "height": 50})
    (picture,) = compare_annotation([], [sign], PARTLY)
    assert picture.changes == ()
    assert picture.has_regions
    (before,) = compare_annotation([sign], [sign], PARTLY)  # it was predicted once
    assert before.changes[0].accepted == 1


def test_a_broken_region_of_a_label_that_is_not_predicted_is_a_sentence() -> None:
    sign = shape("rectanglelabels", "box", "Sign", {"x": "?", "y": 0, "width": 50, "height": 50})
    for predicted in (None, []):
        with pytest.raises(BadRequest, match=r"A rectangle region of Sign is broken: .*\."):
            compare_annotation(predicted, [sign], PARTLY)


def test_regions_without_an_id_are_never_the_same() -> None:
    nameless = region("", "c", LEFT)
    made = change([nameless], [nameless])
    assert (made.accepted, made.deleted, made.added, made.redrawn_px) == (0, 1, 1, 8)
    (picture,) = compare_annotation([nameless], [nameless], CONFIG)
    assert not picture.evidence.kept, "nobody says that it stands as it was shown"


def test_prompts_and_labels_that_are_not_ours_are_left_aside() -> None:
    prompt = shape("rectanglelabels", "tool", "Dog", {"x": 0, "y": 0, "width": 9, "height": 9})
    other = region("o", "Unicorn", LEFT)
    words = {"id": "w", "type": "textarea", "from_name": "words", "value": {"text": ["car"]}}
    assert compare_annotation([other], [prompt, other, words, None, 5], CONFIG) == ()


def test_pictures_of_a_list_are_told_apart() -> None:
    def page(id_: str, index: int | None) -> dict[str, Any]:
        more: dict[str, Any] = {"to_name": "pages"}
        return region(id_, "Sky", LEFT, **more | ({} if index is None else {"item_index": index}))

    single = region("i", "Sky", LEFT)
    pictures = compare_annotation([page("a", None)], [page("a", 0), page("b", 1), single], CONFIG)
    named = [(each.tag.name, each.item_index) for each in pictures]
    assert named == [("img", 0), ("pages", 0), ("pages", 1)]
    assert [each.changes[0].accepted for each in pictures] == [0, 1, 0]
    changes = AnnotationDiff(3, 7, TASK, CONFIG, pictures, 1.0).changes
    assert [each.image for each in changes] == [0, 1, 2]


def test_without_a_prediction_there_are_masks_and_nothing_to_compare() -> None:
    (picture,) = compare_annotation(None, [region("a", "Car", LEFT)], CONFIG)
    assert picture.changes == ()
    assert np.array_equal(picture.evidence.masks["Car"], LEFT)
    made = AnnotationDiff(3, 7, TASK, CONFIG, (picture,), 1.0, "somebody")
    assert (made.changes, made.images[0].size_hw) == ((), (4, 8))
    (all_new,) = compare_annotation([], [region("a", "Car", LEFT)], CONFIG)
    assert all_new.changes[0].added == 1


@pytest.mark.parametrize(
    "broken",
    [
        region("a", "Car", LEFT) | {"original_width": float("nan")},
        region("a", "Car", LEFT) | {"original_width": 9},
        region("a", "Car", LEFT) | {"value": {"rle": [1, 2], "brushlabels": ["Car"]}},
        shape("polygonlabels", "poly", "Roof", {"points": [[0, 0]]}) | {"original_width": 1 << 40},
    ],
)
@pytest.mark.parametrize("side", ["predicted", "final", "by hand"])
def test_what_cannot_be_read_is_a_sentence(broken: dict[str, Any], side: str) -> None:
    good = [region("g", "Sky", LEFT)]
    sides = {"predicted": ([broken], good), "final": (good, [broken]), "by hand": (None, [broken])}
    told = "of different sizes|is broken|is too large"
    with pytest.raises(BadRequest, match=rf"^[A-Z].*({told}).*\.$"):
        compare_annotation(*sides[side], CONFIG)


def test_a_change_is_kept_as_json() -> None:
    assert msgspec.json.encode(LabelDiff("Car", 1, 2, 3, {"Dog": 4}, 5, 6, 7, 8, 9, 0, 8)) == (
        b'{"label":"Car","accepted":1,"corrected":2,"deleted":3,"relabelled":{"Dog":4},"added":5,'
        b'"received":6,"predicted_px":7,"true_px":8,"shared_px":9,"redrawn_px":8}'
    )


RIGHT = drawn("....####", "....####", "........", "........")
EDGE = drawn("....##..", "....##..", "........", "........")

#: The left half of a picture of 4 x 8 px, in percent.
HALF = {"x": 0, "y": 0, "width": 50, "height": 100}


def said(predicted: list[Any] | None, final: list[Any]) -> ImageEvidence:
    (picture,) = compare_annotation(predicted, final, CONFIG)
    return picture.evidence


def painted(masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, list[list[int]]]:
    """Name of the label -> the pixels of its mask, row by row; without empty masks."""
    rows = {label: mask.astype(int).tolist() for label, mask in masks.items() if mask.any()}
    return dict(sorted(rows.items()))


def test_a_region_as_it_was_predicted_is_kept_and_a_changed_or_renamed_one_is_drawn() -> None:
    shown = [region("a", "c", LEFT), region("b", "Sky", RIGHT)]
    evidence = said(shown, [region("a", "c", LEFT), region("b", "Sky", EDGE)])
    assert painted(evidence.masks) == painted({"Car": LEFT, "Sky": EDGE})
    assert painted(evidence.kept) == painted({"Car": LEFT})
    assert painted(evidence.removed) == painted({"Sky": RIGHT & ~EDGE})
    renamed = said(shown, [region("a", "Dog", LEFT), region("b", "Sky", RIGHT)])
    assert painted(renamed.masks) == painted({"Dog": LEFT, "Sky": RIGHT})
    assert painted(renamed.kept) == painted({"Sky": RIGHT})
    assert painted(renamed.removed) == painted({"Car": LEFT})


@pytest.mark.parametrize(
    ("origin", "is_kept"), [("prediction", True), ("prediction-changed", False), ("manual", False)]
)
@pytest.mark.parametrize("shown", [None, [region("z", "Dog", WIDE)]])
def test_origin_says_what_was_kept(origin: str, is_kept: bool, shown: list[Any] | None) -> None:
    final = [region("a", "Car", LEFT, origin=origin), region("z", "Dog", WIDE)]
    kept = said(shown, final).kept
    assert ("Car" in kept) == is_kept


def test_the_prediction_at_hand_says_more_than_the_origin() -> None:
    changed = said([region("a", "Car", LEFT)], [region("a", "Car", WIDE, origin="prediction")])
    assert painted(changed.kept) == {}
    copied = said([region("a", "Car", LEFT)], [region("a", "Car", LEFT, origin="manual")])
    assert painted(copied.kept) == painted({"Car": LEFT})


def test_what_is_drawn_over_something_kept_with_its_label_is_drawn() -> None:
    corner = drawn("##......", "##......", "........", "........")
    over = region("n", "Car", EDGE | LEFT & ~corner)
    evidence = said([region("a", "Car", LEFT)], [region("a", "Car", LEFT), over])
    assert painted(evidence.kept) == painted({"Car": corner})


def test_who_deleted_all_began_anew_and_removed_only_what_is_drawn_over() -> None:
    shown = [region("a", "Car", WIDE), region("b", "Dog", LEFT)]
    evidence = said(shown, [region("n", "Sky", EDGE)])
    assert painted(evidence.removed) == painted({"Car": EDGE})
    assert painted(said(shown, [region("n", "Car", LEFT)]).removed) == painted({"Dog": LEFT})
    assert said(shown, []).is_empty


def test_a_rectangle_is_no_mask_and_one_that_is_gone_removes_nothing() -> None:
    box = shape("rectanglelabels", "box", "Sign", HALF)
    (alone,) = compare_annotation([box | {"id": "gone"}], [box], CONFIG)
    assert alone.evidence.is_empty
    changed = alone.changes[0]
    assert (changed.predicted_px, changed.true_px) == (16, 16), "the report compares it as before"
    assert said([box, region("b", "Sky", RIGHT)], [region("b", "Sky", RIGHT)]).removed == {}
    beside = said(None, [box, region("n", "Sky", RIGHT)])
    assert painted(beside.masks) == painted({"Sky": RIGHT})
