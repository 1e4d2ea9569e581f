"""The plot of what versions have learned."""

from typing import Any

from backend.views.learning import iou_curve


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
