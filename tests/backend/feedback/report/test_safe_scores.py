"""The score from which on masks needed no change, from corrections that were made up."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from scipy.stats import binomtest

from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.statistics import PrelabelReport, SafeScore, lower_bound
from backend.feedback.report.tables import print_report
from tests.backend.fakes import report as fakes

VERSION = "demo clearclip d4f5aa8d"
KEPT = {"accepted": 1, "predicted_px": 5, "true_px": 5, "shared_px": 5}


def mask(score: float | None, **more: object) -> LabelDiff:
    return LabelDiff("car", score=score, **(KEPT | more))  # type: ignore[arg-type]


def report_of(
    masks: list[LabelDiff], version: str = VERSION, before: list[ReadAnnotation] | None = None
) -> PrelabelReport:
    reads = [
        ReadAnnotation(9 + n, 7, n, "compared", version, created=2e9 + n, changes=(each,))
        for n, each in enumerate(masks)
    ]
    return fakes.report_of([*(before or ()), *reads])


@pytest.mark.parametrize(("kept", "masks"), [(1, 1), (28, 29), (29, 29), (190, 200), (0, 9)])
def test_the_bound_is_that_of_clopper_and_pearson(kept: int, masks: int) -> None:
    exact = binomtest(kept, masks, alternative="greater").proportion_ci(0.95, "exact").low
    assert lower_bound(kept, masks) == pytest.approx(exact)


def test_the_lowest_score_that_is_sure_enough_is_shown_with_its_figures() -> None:
    masks = [mask(0.9)] * 40 + [mask(0.805)] * 20 + [mask(0.5, corrected=1)] * 30
    (safe,) = report_of(masks).safe_scores.values()
    assert safe == SafeScore(80, 60, 60)
    assert safe.figures()["score"] == 0.8
    (safe,) = report_of([*masks, mask(0.7, added=1), mask(0.7)]).safe_scores.values()
    assert safe == SafeScore(70, 62, 61), "one change among 62 is within the bound"


@pytest.mark.parametrize(
    "change",
    [{"corrected": 1}, {"deleted": 1}, {"relabelled": {"dog": 1}}, {"added": 1}, {"received": 1}],
)
def test_each_change_counts(change: dict[str, object]) -> None:
    (safe,) = report_of([mask(0.9, **change)] * 20 + [mask(0.9)] * 20).safe_scores.values()
    assert safe == SafeScore(None, 40, 20), "of no safe score: all masks"


def test_masks_without_a_score_and_of_other_models_do_not_count() -> None:
    old = [
        ReadAnnotation(n, 7, n, "compared", "demo maskclip 00000000", created=1e9, changes=(each,))
        for n, each in enumerate([mask(0.9)] * 40)
    ]
    report = report_of([mask(0.2), mask(None)], before=old)
    assert report.safe_scores == {"car": SafeScore(None, 1, 1)}
    learned = [
        ReadAnnotation(n, 7, n, "compared", "demo clearclip 01234567 +20", changes=(mask(0.9),))
        for n in range(40)
    ]
    assert report_of([mask(0.9)], before=learned).safe_scores["car"].masks == 41


def test_it_stands_in_the_json_and_on_the_terminal() -> None:
    report = report_of([mask(0.876)] * 30)
    assert report.figures()["safe_scores"]["car"] == {
        "score": 0.87,
        "masks": 30,
        "unchanged": 30,
        "share": 1.0,
        "lower_bound": pytest.approx(0.05 ** (1 / 30), abs=1e-6),
    }
    file = io.StringIO()
    print_report(report, Console(file=file, width=80))
    assert ["car", "0.87", "30", "100.0", "90.5"] in map(str.split, file.getvalue().splitlines())
