"""The plots of what versions have learned."""

from typing import Any

import pytest
from msgspec.structs import replace

from backend.feedback.sums import GroupSums, LabelSums, ProjectSums
from backend.learning.compared_images import ComparedImage
from backend.views.learning import (
    VersionScore,
    changes_sentence,
    gain_curve,
    learning_plots,
    left_curve,
    left_to_paint,
    missing_figures,
)
from tests.backend.fakes.learning_stores import adaptation, version_with


def test_the_oldest_version_comes_first() -> None:
    newest_first = [version_with(adaptation()), version_with(adaptation())]
    newest, oldest = (
        replace(each, number=number) for each, number in zip(newest_first, (2, 1), strict=True)
    )
    plots = learning_plots([newest, oldest], ProjectSums(GroupSums()), ())
    assert plots.gain.steps == ("v1", "v2")
    assert plots.drawn == (plots.gain,), "nothing was read of annotations"


def test_a_version_without_a_figure_is_a_gap() -> None:
    untold = replace(version_with(adaptation()), text_ious={}, number=2)
    curve = gain_curve([VersionScore.of(untold, {})])
    assert curve.rows == (("v2", "–"),)


def test_a_first_figure_of_a_difficult_label_lets_no_curve_fall() -> None:
    """Of three labels, the second version is the first one with a figure of the fence."""
    first = version_with(adaptation())
    first = replace(first, labels=3, text_ious={"sky": 0.6}, text_iou=0.6, adapted_iou=0.9)
    both = {"sky": 0.6, "fence": 0.0}
    second = replace(first, text_ious=both, text_iou=0.3, adapted_iou=0.55)
    curve = gain_curve([VersionScore.of(each, {}) for each in (first, second)])
    assert [row[1] for row in curve.rows] == ["10.0", "16.7"]


def test_one_version_is_no_curve() -> None:
    assert not gain_curve([VersionScore(1, 0.2)]).is_drawn


def group(painted: int, pictures: int = 9) -> GroupSums:
    """Sums of 100 annotated pixels; some of them had to be painted."""
    return GroupSums(
        total=LabelSums(
            pictures=pictures, predicted_px=100 - painted, shared_px=100 - painted, true_px=100
        )
    )


def test_what_was_left_is_told_by_the_version_that_made_the_masks() -> None:
    """Model versions of two settings with one learned version are added up."""
    left = left_to_paint(
        {
            "clearclip-1a": group(60),
            "clearclip-1a+10 v1": group(40),
            "clearclip-2b+10 v1": group(20),
            "clearclip-2b+32 v12": group(10),
        }
    )
    assert left == pytest.approx({0: 0.6, 1: 0.3, 12: 0.1})


def test_what_few_pictures_show_is_not_told() -> None:
    assert left_to_paint({"clearclip-1a+10 v1": group(40, pictures=4)}) == {}


def test_versions_that_nobody_corrected_leave_no_gap() -> None:
    words, first = VersionScore(0, None, 0.5), VersionScore(1, 0.2)
    curve = left_curve([words, first, VersionScore(2, 0.2, 0.25)])
    assert curve.rows == (("words", "50.0 %"), ("v2", "25.0 %"))


def told(shown: dict[str, int], *figures: str) -> str:
    ious = dict.fromkeys(figures, 0.5)
    return missing_figures(replace(version_with(None), shown=shown, text_ious=ious))


def test_what_too_few_pictures_show_needs_no_other_reason() -> None:
    assert told({"sky": 9, "fence": 2}, "sky") == ""


def test_a_label_that_was_hardly_drawn_by_hand_has_a_reason() -> None:
    assert "less than half" in told({"sky": 9, "road": 9, "fence": 2}, "sky")


def test_where_no_label_has_a_figure_it_is_said_what_that_takes() -> None:
    assert "3 pictures" in told({"sky": 2})


def compared(**more: Any) -> ComparedImage:
    return ComparedImage(3, "annotated", "words", "version", changes="changes", **more)


def test_colours_of_changes_say_who_is_right_where_somebody_annotated() -> None:
    said = changes_sentence([compared(gained=0.2, lost=0.1)], 4)
    assert "green where v4 alone is right, red where the words alone are" in said


def test_colours_of_changes_are_those_of_labels_where_nobody_annotated() -> None:
    said = changes_sentence([compared()], 4)
    assert "in the colour of the label" in said
    assert "right" not in said


def test_versions_that_were_drawn_without_changes_say_nothing_of_them() -> None:
    assert changes_sentence([ComparedImage(3, "annotated", "words", "version")], 4) == ""
