"""Scores that predictions of another program have are read once, page by page."""

from pathlib import Path

import pytest

from backend.database.database import Database
from backend.label_studio.client import LabelStudioClient
from backend.projects.scores import ScoreStore
from backend.review.score_walk import read_scores
from tests.backend.conftest import Clock
from tests.backend.fakes.label_studio import FakeStudio, asks_for_whole
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.feedback.test_annotation_reader import OURS

COUNT = 130  # more than are looked at together


@pytest.fixture
def studio() -> FakeStudio:
    studio = FakeStudio("<View/>", {n: {"image": f"{n}.png"} for n in range(1, COUNT + 1)})
    for task in studio.tasks:
        studio.add(task, OURS)
        studio.predictions[-1]["score"] = task / 1000
    return studio


@pytest.fixture
def scores(tmp_path: Path) -> ScoreStore:
    scores = ScoreStore(Database(f"sqlite:///{tmp_path}/own.db", Clock()))
    scores.ask(7)
    return scores


def in_order(scores: ScoreStore) -> list[int]:
    pages = scores.in_order(7, OURS, highest_first=True)
    return [each.task for page in pages for each in page]


def pass_by(scores: ScoreStore, seconds: float) -> None:
    scores.database.clock.now += seconds  # type: ignore[attr-defined]
    scores.ask(7)


def test_a_walk_goes_on_where_it_has_stopped_and_ends(
    scores: ScoreStore, client: LabelStudioClient, studio: FakeStudio
) -> None:
    assert read_scores(scores, client)
    assert in_order(scores) == [*range(100, 0, -1)]
    again = ScoreStore(scores.database)
    assert read_scores(again, client)
    assert in_order(scores) == [*range(COUNT, 0, -1)]
    assert not read_scores(again, client)


def test_only_what_lacks_a_score_is_read(
    scores: ScoreStore, client: LabelStudioClient, studio: FakeStudio
) -> None:
    scores.keep(7, OURS, dict.fromkeys(range(1, COUNT), 0.5))
    whole: list[Asked] = []
    studio.fault = lambda asked: whole.append(asked) if "fields=all" in asked.path else None
    while read_scores(scores, client):
        pass
    assert [asks_for_whole(asked, COUNT) for asked in whole] == [True]
    assert in_order(scores)[-1] == COUNT


def test_new_tasks_are_read_after_a_minute_and_earlier_ones_again_after_a_day(
    scores: ScoreStore, client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.predictions = [each for each in studio.predictions if each["task"] != 1]
    while read_scores(scores, client):
        pass
    new = studio.create({"image": "new.png"})
    studio.add(new, OURS)
    studio.add(1, OURS)
    scores.ask(7)
    assert not read_scores(scores, client)
    pass_by(scores, 61)
    assert read_scores(scores, client)
    assert new in in_order(scores)
    assert 1 not in in_order(scores)
    pass_by(scores, 86_400)
    while read_scores(scores, client):
        pass
    assert 1 in in_order(scores)


def test_a_task_that_label_studio_cannot_serve_keeps_no_other_from_its_score(
    scores: ScoreStore, client: LabelStudioClient, studio: FakeStudio
) -> None:
    def fail_at_three(asked: Asked) -> Answer | None:
        is_its = "selectedItems" in asked.path and asks_for_whole(asked, 3)
        return Answer(500) if is_its else None

    studio.fault = fail_at_three
    while read_scores(scores, client):
        pass
    assert set(studio.tasks) - {*in_order(scores)} == {3}


def test_a_project_that_is_gone_ends_its_walk(
    scores: ScoreStore, client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.project = 8
    assert read_scores(scores, client)
    assert not read_scores(scores, client)
