"""Verdicts: which one stands, who writes it, and which predictions are checked."""

from pathlib import Path

import pytest
from scipy.special import betaincinv

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.label_studio.client import LabelStudioClient
from backend.review.verdicts import CHECKED, Reviewed, ReviewStore, Tally
from backend.review.writing import write_due
from tests.backend.conftest import Clock
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.feedback.test_annotation_reader import OURS
from tests.backend.review.samples import good


def checked() -> list[Reviewed]:
    """Return verdicts on predictions that are drawn to be checked."""
    all_ = (Reviewed(n, 1000 + n, "good", 1.0, OURS, 0.5) for n in range(1, 2000))
    return [each for each in all_ if each.is_checked]


def test_a_verdict_is_written_by_one_backend_at_a_time(
    database: Database, studio: FakeStudio
) -> None:
    one, other = ReviewStore(database, "one"), ReviewStore(database, "other")
    one.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    row = one.lease_due()
    assert row is not None
    assert other.lease_due() is None
    one.release(row)
    assert other.lease_due() is not None


def test_a_verdict_waits_for_no_clock_that_was_set_back(
    database: Database, studio: FakeStudio, clock: Clock
) -> None:
    reviews = ReviewStore(database, "one")
    reviews.save(7, 5, "seat", [good(studio, 1)], since=0.0)
    row = reviews.lease_due()
    assert row is not None
    reviews.note_trouble(row, "Refused.")
    assert reviews.lease_due() is None
    clock.now -= 3600.0
    assert reviews.lease_due() is not None


def test_of_two_pages_the_first_verdict_stays(studio: FakeStudio, reviews: ReviewStore) -> None:
    said = good(studio, 1)
    reviews.save(7, 5, "seat", [said], since=1000.0)
    other = Reviewed(1, said.prediction, "work")
    assert reviews.save(7, 5, "other", [other], since=999.0) == [1]
    assert reviews.to_correct(7) == []
    assert reviews.save(7, 5, "other", [other], since=1001.0) == []
    assert reviews.to_correct(7) == [1]


def test_one_good_picture_in_twenty_is_checked_and_goes_to_the_editor_with_the_worst_first(
    studio: FakeStudio, client: LabelStudioClient, reviews: ReviewStore
) -> None:
    drawn = checked()
    assert 1999 / CHECKED * 0.7 < len(drawn) < 1999 / CHECKED * 1.3
    work = Reviewed(5, 50, "work", 1.0, OURS, 0.1)
    reviews.save(7, 5, "seat", [drawn[0], work, Reviewed(6, 60, "skip")], since=0.0)
    assert not write_due(reviews, client), "a checked one is not accepted"
    assert reviews.to_correct(7) == [5, drawn[0].task]
    assert reviews.to_correct(7, highest_first=True) == [drawn[0].task, 5]
    assert reviews.count_waiting(7) == 3


def test_checked_ones_are_counted_by_person(tmp_path: Path, reviews: ReviewStore) -> None:
    annotations = AnnotationStore(Database(f"sqlite:///{tmp_path}/own.db"), "me")
    drawn = checked()
    same = LabelDiff("red", accepted=1, predicted_px=9, true_px=9, shared_px=9)
    other = LabelDiff("red", corrected=1, predicted_px=9, true_px=8, shared_px=8)

    def submit(
        of: Reviewed, kind: AnnotationOrigin, change: LabelDiff, version: str = OURS
    ) -> None:
        annotations.mark(7, [of.task])
        read = ReadAnnotation(of.task, 7, of.task, kind, version, 2, changes=(change,))
        annotations.complete(annotations.lease(1)[0], read)

    reviews.save(7, 5, "seat", drawn[:20], since=0.0, person="Ann")
    others = [drawn[21], Reviewed(1, 2, "good", 0.3)]
    reviews.save(7, 5, "seat", others, since=0.0, person="Ben")
    for each in drawn[:15]:
        submit(each, "compared", same)
    submit(drawn[15], "compared", other)
    submit(drawn[16], "unchecked", same)  # nobody has looked
    submit(drawn[17], "scratch", same)
    submit(drawn[18], "compared", other, "another version")  # not what was judged
    first, second = reviews.tallies(7)
    assert first == Tally("Ann", 20, 0, 0, 0, 16, 15)
    assert second == Tally("Ben", 2, 0, 0, 1)
    low, high = first.interval
    assert low == pytest.approx(betaincinv(15, 2, 0.025))  # Clopper and Pearson's
    assert high == pytest.approx(betaincinv(16, 1, 0.975))
