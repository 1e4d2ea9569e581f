"""Scores of predictions, kept by project and task."""

from pathlib import Path

import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.projects.scores import ScoreStore
from tests.backend.conftest import Clock


@pytest.fixture
def scores(tmp_path: Path) -> ScoreStore:
    return ScoreStore(Database(f"sqlite:///{tmp_path}/own.db", Clock()))


def in_order(scores: ScoreStore, *, highest_first: bool = True, least: float = 0.0) -> list[int]:
    pages = scores.in_order(7, "new", highest_first=highest_first, least=least)
    return [each.task for page in pages for each in page]


def test_the_version_in_use_comes_first_and_then_the_score(scores: ScoreStore) -> None:
    scores.keep(7, "old", {1: 0.9, 2: 0.1})
    scores.keep(7, "new", {3: 0.2, 4: 0.4})
    scores.keep(8, "new", {5: 0.5})
    assert in_order(scores) == [4, 3, 1, 2]
    assert in_order(scores, highest_first=False) == [3, 4, 2, 1]
    assert in_order(scores, least=0.3) == [4, 1]


def test_a_new_prediction_takes_the_place_of_an_earlier_score(scores: ScoreStore) -> None:
    scores.keep(7, "old", {1: 0.9})
    scores.keep(7, "new", {1: 0.1, 2: 0.2})
    assert in_order(scores) == [2, 1]


def test_what_label_studio_does_not_list_is_left_out_for_an_hour(scores: ScoreStore) -> None:
    scores.keep(7, "new", {1: 0.1, 2: 0.2})
    scores.close(7, [1])
    assert in_order(scores) == [2]
    scores.database.clock.now += 3601  # type: ignore[attr-defined]
    assert in_order(scores) == [2, 1]


def test_what_is_closed_meanwhile_has_nothing_passed_over(scores: ScoreStore) -> None:
    scores.keep(7, "new", {task: 1 / task for task in range(1, 1001)})
    seen = []
    for page in scores.in_order(7, "new", highest_first=True):
        scores.database.clock.now += 1  # type: ignore[attr-defined]
        scores.close(7, [each.task for each in page])
        seen += [each.task for each in page]
    assert seen == [*range(1, 1001)]


def test_a_task_with_an_annotation_does_not_wait(scores: ScoreStore) -> None:
    scores.keep(7, "new", {1: 0.1, 2: 0.2})
    annotations = AnnotationStore(scores.database, "me")
    annotations.mark(7, [5])
    annotations.complete(annotations.lease(1)[0], ReadAnnotation(5, 7, 2, "compared"))
    assert in_order(scores) == [1]


def test_a_project_has_a_first_task_once_something_is_predicted() -> None:
    scores = ScoreStore(Database("sqlite://"))
    scores.keep(7, "v1", {5: 0.5, 3: 0.9})
    scores.keep(8, "v1", {4: 0.5})
    assert scores.first_tasks([7, 8, 9]) == {7: 3, 8: 4}
