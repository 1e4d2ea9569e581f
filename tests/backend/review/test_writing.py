"""The annotations that a stand-in for Label Studio gets of verdicts, and their taking back."""

from typing import Any

import pytest

from backend.database.database import Database
from backend.errors import StudioUnreachable
from backend.label_studio.client import LabelStudioClient
from backend.review.verdicts import Reviewed, ReviewStore, TakingBack
from backend.review.writing import write_due
from tests.backend.conftest import Clock
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer
from tests.backend.review.samples import MASK, good

REFUSED = Answer(400, b'{"detail": "It is locked"}')


def write(reviews: ReviewStore, client: LabelStudioClient) -> None:
    while write_due(reviews, client):
        pass


def troubles(reviews: ReviewStore) -> dict[int, str]:
    return {each.task: each.reason for each in reviews.not_done(7, 0.0)}


def test_a_verdict_that_ends_the_process_is_named_and_the_others_are_written(
    database: Database, studio: FakeStudio, client: LabelStudioClient
) -> None:
    ReviewStore(database).save(7, 5, "seat", [good(studio, 1), good(studio, 2)], since=0.0)
    for number in range(3):
        assert ReviewStore(database, f"dies-{number}").lease_due() is not None
        end_leases(database, table="reviews")
    reviews = ReviewStore(database, "lives")
    write(reviews, client)
    assert [each["task"] for each in studio.annotations.values()] == [2]
    assert "while it wrote the annotation of task 1" in troubles(reviews)[1]


def test_a_good_prediction_becomes_an_annotation_once_even_where_the_answer_was_lost(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    studio.late = 1
    client = LabelStudioClient(client.url, TOKEN, retry_for_s=20, first_pause_s=0.01)
    verdicts = [good(studio, 1), good(studio, 2, ()), Reviewed(3, 99, "skip")]
    assert reviews.save(7, 5, "seat", verdicts, since=0.0) == []
    write(reviews, client)
    assert [each["task"] for each in studio.annotations.values()] == [1, 2]
    first, empty = studio.annotations.values()
    assert first["result"] == [MASK | {"origin": "prediction", "source": "review"}]
    assert (first["parent_prediction"], first["lead_time"]) == (verdicts[0].prediction, 1.5)
    assert (first["bulk_created"], empty["bulk_created"]) == (False, True)
    assert "completed_by" not in first or first["completed_by"] == 1
    assert all(client.annotation(each["id"]).is_reviewed for each in (first, empty))  # type: ignore[union-attr]
    assert not troubles(reviews)
    again = [Reviewed(each.task, each.prediction, "work") for each in verdicts]
    assert reviews.save(7, 5, "seat", again, since=0.0) == [1, 2], "from another tab of the browser"
    write(reviews, client)
    assert (len(studio.annotations), reviews.tallies(7)[0][:4]) == (2, ("", 2, 1, 0))


def test_what_somebody_has_begun_or_done_since_is_not_overwritten_and_said(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    verdicts = [good(studio, task) for task in range(1, 6)]
    reviews.save(7, 5, "seat", verdicts, since=0.0)
    studio.annotate(1, [MASK], parent_prediction=verdicts[0].prediction)
    studio.annotate(2, [], was_cancelled=True)
    studio.drafted.add(3)
    studio.predictions = [e for e in studio.predictions if e["task"] != 4]
    del studio.tasks[5]
    before = {**studio.annotations}
    write(reviews, client)
    assert studio.annotations == before
    assert troubles(reviews) == {
        1: "It has an annotation since.",
        2: "It has an annotation since.",
        3: "Somebody has begun to annotate it.",
        4: "Its prediction was deleted.",
        5: "The task is not there any more.",
    }


def test_what_label_studio_refuses_is_tried_again_and_told_at_the_third_time(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore, clock: Clock
) -> None:
    reviews.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    studio.fault = lambda asked: Answer(403) if asked.method == "POST" else None
    told = []
    for pause_s in (5, 10, 20):
        write(reviews, client)
        told.append(1 in troubles(reviews))
        clock.now += pause_s - 1
        assert not write_due(reviews, client), "it waits"
        clock.now += 1
    assert told == [False, False, True]
    assert "HTTP 403" in troubles(reviews)[1]

    studio.fault = lambda _: None
    write(reviews, client)
    assert len(studio.annotations) == 1
    assert not troubles(reviews)


def test_a_pause_never_grows_beyond_ten_minutes(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore, clock: Clock
) -> None:
    reviews.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    studio.fault = lambda asked: Answer(500) if asked.method == "POST" else None
    for _ in range(12):
        write(reviews, client)
        clock.now += 600
    assert write_due(reviews, client)


def test_what_label_studio_refuses_again_and_again_is_given_up_and_told(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore, clock: Clock
) -> None:
    reviews.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    studio.fault = lambda asked: REFUSED if asked.method == "POST" else None
    for _ in range(4):
        write(reviews, client)
        clock.now += 600
    assert write_due(reviews, client)
    clock.now += 86_400
    assert not write_due(reviews, client)
    assert "HTTP 400: It is locked. It is not tried again" in troubles(reviews)[1]
    assert troubles(reviews)[1].endswith("correct the task in the editor.")


def test_an_undo_that_is_refused_again_and_again_leaves_the_verdict_as_it_was(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore, clock: Clock
) -> None:
    reviews.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    write(reviews, client)
    studio.fault = lambda asked: REFUSED if asked.method == "DELETE" else None
    reviews.undo(7, "seat")
    for _ in range(5):
        write(reviews, client)
        clock.now += 600
    assert troubles(reviews)[1].endswith("delete the annotation in the editor.")
    assert reviews.taking_back(7, "seat") == TakingBack()

    studio.fault = lambda _: None
    assert reviews.undo(7, "seat") == TakingBack(1, 1)
    write(reviews, client)
    assert not studio.annotations


def test_while_label_studio_is_away_no_verdict_is_blamed_for_it(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore, clock: Clock
) -> None:
    reviews.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    studio.fault = lambda _: Answer(503)
    for _ in range(4):
        with pytest.raises(StudioUnreachable):
            write_due(reviews, client)
        clock.now += 5
    assert not troubles(reviews)


def test_one_that_label_studio_fails_at_does_not_stop_the_others(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    reviews.save(7, 5, "seat", [good(studio, task) for task in (1, 2, 3)], since=0.0)

    def fail_at_the_first(asked: Any) -> Answer | None:
        return Answer(500) if asked.method == "POST" and "/tasks/1/" in asked.path else None

    studio.fault = fail_at_the_first
    write(reviews, client)
    assert sorted(each["task"] for each in studio.annotations.values()) == [2, 3]


def test_an_annotation_that_cannot_be_deleted_is_told_and_the_others_are(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore, clock: Clock
) -> None:
    reviews.save(7, 5, "seat", [good(studio, task) for task in (1, 2, 3)], since=0.0)
    write(reviews, client)
    broken = min(studio.annotations)

    def fail_at_one(asked: Any) -> Answer | None:
        is_it = asked.method == "DELETE" and f"/annotations/{broken}/" in asked.path
        return Answer(500) if is_it else None

    studio.fault = fail_at_one
    assert reviews.undo(7, "seat") == TakingBack(3, 3)
    for pause_s in (5, 10, 20):
        write(reviews, client)
        assert [*studio.annotations] == [broken]
        clock.now += pause_s
    task = studio.annotations[broken]["task"]
    assert troubles(reviews)[task].startswith("Its annotation is not taken back yet.")
    assert reviews.taking_back(7, "seat") == TakingBack(3, 1)

    studio.fault = lambda _: None
    write(reviews, client)
    assert not studio.annotations
    assert not troubles(reviews)
