"""The plot of what versions have learned."""

from typing import Any

from backend.views.learning import iou_curve, missing_figures


def version(number: int, *, words: float, learned: float, is_told: bool = True) -> dict[str, Any]:
    ious = {"sky": words} if is_told else {}
    return {"number": number, "text_iou": words, "adapted_iou": learned, "text_ious": ious}


def test_the_oldest_version_comes_first() -> None:
    curve = iou_curve([version(2, words=0.4, learned=0.7), version(1, words=0.4, learned=0.6)])
    assert curve.rows == (("v1", "60.0 %", "40.0 %"), ("v2", "70.0 %", "40.0 %"))


def test_a_version_without_a_figure_is_a_gap() -> None:
    untold = version(2, words=0.0, learned=0.0, is_told=False)
    curve = iou_curve([version(3, words=0.4, learned=0.7), untold])
    assert curve.rows[0] == ("v2", "–", "–")


def test_one_version_is_no_curve() -> None:
    assert not iou_curve([version(1, words=0.4, learned=0.6)]).is_drawn


def told(shown: dict[str, int], *figures: str) -> str:
    few = {name: "" for name, count in shown.items() if count < 3}
    ious = dict.fromkeys(figures, 0.5)
    return missing_figures({"shown": shown, "text_ious": ious, "too_few": few})


def test_what_too_few_pictures_show_needs_no_other_reason() -> None:
    assert told({"sky": 9, "fence": 2}, "sky") == ""


def test_a_label_that_was_hardly_drawn_by_hand_has_a_reason() -> None:
    assert "less than half" in told({"sky": 9, "road": 9, "fence": 2}, "sky")


def test_where_no_label_has_a_figure_it_is_said_what_that_takes() -> None:
    assert "3 pictures" in told({"sky": 2})
