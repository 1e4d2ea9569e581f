"""Trials are ranked by the paint that they save, and findings come with what to try."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.wording.wording_report import PictureTrial, Trial, WordingReport
from backend.wording.wording_request import Wording
from clearclip_core.evaluation.comparison import LabelFigures
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.wording.vocabulary_check import (
    LabelResponse,
    NearWords,
    Swallowed,
    UnknownWord,
    VocabularyCheck,
)

CHECK = VocabularyCheck((), (), 0.5, 0.5)


def trial(*shared_px: int | None, method: str = "", words: tuple[str, ...] = ("a",)) -> Trial:
    """A trial on pictures of which 10 px are true and 10 are predicted."""
    pictures = tuple(
        PictureTrial(task, 0.1, 5.0)
        if shared is None
        else PictureTrial(
            task, 0.1, 5.0 + task, *[LabelFigures.of(MaskOverlap(10, 10, shared))] * 2
        )
        for task, shared in enumerate(shared_px)
    )
    return Trial(Wording((), None, method), words, 0.0, method or "clearclip", "", pictures)


def report(*trials: Trial) -> WordingReport:
    return WordingReport("a", ("a",), "corrected", trials)


def test_the_most_saved_paint_comes_first_and_equal_ones_share_a_rank() -> None:
    told = report(trial(5, 5), trial(9, 7), trial(8, 8), trial(0, 1))
    assert told.ranks == {0: 3, 1: 1, 2: 1, 3: 4}
    assert [row["row"] for row in told.rows] == [1, 2, 0, 3]
    assert told.rows[0]["saved_paint"] == pytest.approx(1 - 8 / 20)
    assert told.rows[0]["iou"] == pytest.approx(16 / 24)
    assert told.rows[0]["milliseconds"] == 5.5


def test_a_raised_threshold_that_saves_on_one_picture_alone_is_not_first() -> None:
    now, lucky = trial(5, 5, 5, 5), trial(5, 5, 5, 9)
    assert report(now, replace(lucky, threshold=0.9)).ranks == {0: 1, 1: 2}
    assert report(now, lucky).ranks == {0: 2, 1: 1}


def test_without_truth_trials_keep_their_order() -> None:
    told = report(trial(None), trial(None))
    assert told.ranks == {}
    assert [(row["row"], row["rank"], row["iou"]) for row in told.rows] == [
        (0, None, None),
        (1, None, None),
    ]


def test_another_method_with_the_words_of_today_changes_no_label_config() -> None:
    told = report(trial(5), trial(6, method="clip"), trial(7, words=("b",)))
    assert {row["row"]: row["is_in_config"] for row in told.rows} == {0: True, 1: True, 2: False}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"check": VocabularyCheck((NearWords(("a", "b"), ("x", "y"), 0.9),), (), 0.5, 0.5)},
            "“y” (b) means nearly the same to the model as “x” (a).",
        ),
        (
            {"check": VocabularyCheck((), (UnknownWord("a", "x", 0.9),), 0.5, 0.5)},
            "“x” (a) means as little to the model as a made-up word.",
        ),
        ({"check": CHECK, "swallowed": (Swallowed("a", "b", 0.75),)}, "b takes 75 % of a from it"),
        (
            {"check": CHECK, "responses": (LabelResponse("a", 0.0, None, 0.2),)},
            "a is found on none",
        ),
    ],
)
def test_each_finding_comes_with_what_to_try(found: dict[str, object], said: str) -> None:
    (advice,) = WordingReport("", ("a", "b"), "diverse", **found).advice()  # type: ignore[arg-type]
    assert said in advice["finding"]
    assert advice["try"]
    assert advice["label"] in ("a", "b")


def test_a_vocabulary_without_a_finding_has_no_advice() -> None:
    clean = WordingReport(
        "", ("a",), "diverse", check=CHECK, responses=(LabelResponse("a", 0.5, 1.0, 0.9),)
    )
    assert list(clean.advice()) == []
    assert clean.to_json()["words"]["near_from"] == 0.5
