"""Repairs: labels taken away, pieces added and taken away, and what the annotation says of it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle

from backend.annotations.regions import LabelledRegion
from backend.errors import BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import Area
from backend.review.repair import MOST_STEPS, Piece, Step, piece_at, repair_regions
from backend.review.verdicts import Reviewed, ReviewStore
from backend.review.writing import write_due
from clearclip_core import BoolMask
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.feedback.test_annotation_reader import OURS, Desk, region
from tests.backend.feedback.test_annotation_reader import desk as desk

CONFIG = parse_label_config(brush_config("red", "blue", "green"), None)
RED = region("a", "red", 4)


def columns(start: int, stop: int) -> BoolMask:
    """Columns of a picture of 4 x 8 px."""
    return np.tile((np.arange(8) >= start) & (np.arange(8) < stop), (4, 1))


#: Beside the red one, as labels of a prediction do not overlap.
BLUE = brush_region(columns(4, 8), "blue", id="b", to_name="image")


def piece(label: str, start: int, stop: int, *, adds: bool = True) -> Step:
    return Step(label, Piece.of(columns(start, stop), "image", None, adds=adds))


def painted(entries: Sequence[Any]) -> dict[str, list[int]]:
    """Return label -> painted columns, read by Label Studio's own converter."""
    found = {}
    for each in entries:
        alpha = np.asarray(decode_rle(each["value"]["rle"])).reshape(4, 8, 4)[..., 3]
        (label,) = each["value"]["brushlabels"]
        found[label] = np.flatnonzero((alpha > 0).all(axis=0)).tolist()
    return found


def test_a_label_that_is_taken_away_leaves_the_others_as_they_were() -> None:
    (left,) = repair_regions([RED, BLUE], [Step("red")], CONFIG)
    assert (left["id"], left["value"]) == (BLUE["id"], BLUE["value"])
    assert (left["origin"], left["source"]) == ("prediction", "review")
    assert left["repaired"] == {"labels_removed": ("red",), "pieces_added": (), "pieces_taken": ()}


def test_a_piece_is_added_to_its_label_and_taken_from_the_others() -> None:
    made = repair_regions([RED, BLUE], [piece("red", 4, 6)], CONFIG)
    assert painted(made) == {"red": [0, 1, 2, 3, 4, 5], "blue": [6, 7]}
    assert {each["id"]: each["origin"] for each in made} == dict.fromkeys(
        "ab", "prediction-changed"
    )


def test_a_piece_of_a_label_that_is_not_there_becomes_a_region_of_a_person() -> None:
    made = repair_regions([RED], [piece("green", 5, 7)], CONFIG)
    assert painted(made) == {"red": [0, 1, 2, 3], "green": [5, 6]}
    assert [each["origin"] for each in made] == ["prediction", "manual"]
    assert made[1]["meta"] == {"text": ["Added in a review"]}


def test_a_piece_is_taken_away_from_its_label_alone() -> None:
    made = repair_regions([RED, BLUE], [piece("red", 2, 8, adds=False)], CONFIG)
    assert painted(made) == {"red": [0, 1], "blue": [4, 5, 6, 7]}


def test_a_mask_of_which_all_is_taken_is_gone() -> None:
    assert repair_regions([RED], [piece("red", 0, 8, adds=False)], CONFIG) == []


def test_a_label_that_was_taken_away_begins_anew_with_a_piece() -> None:
    made = repair_regions([RED], [Step("red"), piece("red", 6, 8)], CONFIG)
    assert painted(made) == {"red": [6, 7]}
    assert made[0]["origin"] == "manual"


def test_a_repair_is_the_same_each_time() -> None:
    steps = [piece("red", 5, 7), piece("blue", 0, 1, adds=False)]
    assert repair_regions([RED, BLUE], steps, CONFIG) == repair_regions([RED, BLUE], steps, CONFIG)


def test_outlines_get_a_piece_as_an_outline_of_its_own() -> None:
    xml = """<View><Image name="image" value="$image"/><PolygonLabels name="p" toName="image">
    <Label value="red"/></PolygonLabels></View>"""
    mask = np.zeros((40, 80), np.bool_)
    mask[10:30, 20:60] = True
    step = Step("red", Piece.of(mask, "image", None, adds=True))
    (made,) = repair_regions([], [step], parse_label_config(xml, None))
    corners = {tuple(point) for point in made["value"]["points"]}
    assert corners == {(25.0, 25.0), (25.0, 75.0), (75.0, 75.0), (75.0, 25.0)}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (piece("gone", 0, 2), "No control draws “gone”"),
        (Step("red", Piece.of(columns(0, 4).T, "image", None, adds=False)), "another size"),
        (Step("red", Piece(False, "image", 4, 8, "bm8=")), "cannot be read"),
        (Step("red", Piece(False, "image", 1 << 28, 1 << 28, "")), "smaller picture"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused(step: Step, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        repair_regions([RED], [step], CONFIG)


def test_only_what_is_good_has_a_repair_and_of_so_many_steps() -> None:
    one = {"task": 1, "prediction": 1, "verdict": "work", "repair": [{"label": "red"}]}
    with pytest.raises(msgspec.ValidationError, match="called good"):
        msgspec.convert(one, Reviewed)
    many = one | {"verdict": "good", "repair": [{"label": "red"}] * (MOST_STEPS + 1)}
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.convert(many, Reviewed)


def shapes(*masks: BoolMask) -> list[LabelledRegion]:
    area = Area("brushlabels", "mask", "image", None, (4, 8), {})
    return [LabelledRegion.of("red", mask, area=area) for mask in masks]


def test_a_click_takes_the_part_of_its_island_that_it_finds() -> None:
    got = piece_at(shapes(columns(0, 5) | columns(6, 8)), "red", columns(0, 2), (1, 1))
    assert got.tolist() == columns(0, 2).tolist()


def test_a_click_takes_an_island_whole_of_which_it_finds_most() -> None:
    got = piece_at(shapes(columns(0, 3) | columns(6, 8)), "red", columns(1, 8), (1, 1))
    assert got.tolist() == columns(0, 3).tolist()


def test_a_click_beside_a_label_takes_nothing() -> None:
    assert not piece_at(shapes(columns(0, 3)), "red", columns(0, 8), (1, 5)).any()


# ---- the annotation, and what is learned of it ---------------------------------------------------


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red", "blue", "green"), {1: {"image": "1.png"}})


def write(
    reviews: ReviewStore, studio: FakeStudio, client: LabelStudioClient, *steps: Step
) -> dict[str, Any]:
    prediction = studio.add(1, OURS, 1.0, [RED, BLUE])
    said = Reviewed(1, prediction, "good", 4.0, OURS, 0.5, steps)
    assert reviews.save(7, 5, "seat", [said], since=0.0) == []
    while write_due(reviews, client):
        pass
    return next(iter(studio.annotations.values()), {})


def test_the_annotation_of_a_repaired_prediction_has_what_was_changed(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    made = write(reviews, studio, client, Step("blue"), piece("green", 6, 8))
    assert painted(made["result"]) == {"red": [0, 1, 2, 3], "green": [6, 7]}
    assert (made["lead_time"], made["bulk_created"]) == (4.0, False)
    told = {"labels_removed": ["blue"], "pieces_added": ["green"], "pieces_taken": []}
    assert [each["repaired"] for each in made["result"]] == [told, told]


def test_a_repair_of_a_label_that_is_deleted_since_is_told(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    studio.label_config = brush_config("red", "blue")
    assert write(reviews, studio, client, piece("green", 6, 8)) == {}
    (told,) = reviews.not_done(7, 0.0)
    assert "No control draws “green”" in told.reason


def test_a_repaired_annotation_is_taken_back(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    write(reviews, studio, client, Step("blue"), piece("red", 6, 8))
    reviews.undo(7, "seat")
    while write_due(reviews, client):
        pass
    assert not studio.annotations


def test_what_was_repaired_to_nothing_is_taken_back(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    assert write(reviews, studio, client, Step("blue"), Step("red"))["result"] == []
    reviews.undo(7, "seat")
    while write_due(reviews, client):
        pass
    assert not studio.annotations


@pytest.mark.parametrize("steps", [[Step("blue")], [Step("blue"), Step("red")]])
def test_a_repaired_annotation_is_counted_by_itself(
    steps: list[Step], client: LabelStudioClient, reviews: ReviewStore, desk: Desk
) -> None:
    made = write(reviews, desk.studio, client, *steps)
    assert desk.read_one(made).kind == "repaired"


def test_what_a_review_changed_is_learned_and_the_rest_only_stands(
    client: LabelStudioClient, reviews: ReviewStore, desk: Desk
) -> None:
    made = write(reviews, desk.studio, client, piece("red", 4, 6))
    desk.read_one(made)
    (image,) = desk.notebook.known[made["id"]].images
    masks, kept, removed = image.evidence.masks, image.evidence.kept, image.evidence.removed
    assert (masks["red"].tolist(), kept["red"].tolist()) == (
        columns(0, 6).tolist(),
        columns(0, 4).tolist(),
    )
    assert kept["blue"].tolist() == columns(6, 8).tolist()
    assert removed["blue"].tolist() == columns(4, 6).tolist()


def test_a_label_that_a_review_took_away_is_learned_as_removed(
    client: LabelStudioClient, reviews: ReviewStore, desk: Desk
) -> None:
    made = write(reviews, desk.studio, client, Step("blue"))
    desk.read_one(made)
    (image,) = desk.notebook.known[made["id"]].images
    assert image.evidence.removed["blue"].tolist() == columns(4, 8).tolist()
    assert image.evidence.kept["red"].tolist() == columns(0, 4).tolist()
