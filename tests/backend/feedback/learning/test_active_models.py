"""What predictions use, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import text

from backend.database.database import Database
from backend.feedback.learning.versions import ActiveModel
from tests.backend.fakes.learning_stores import LearningStores, adaptation


def test_what_is_live_is_used_as_the_mode_says(
    learning: LearningStores, other: LearningStores
) -> None:
    assert learning.active_models.get(7, "all") is None
    learning.replace_all(1)
    learning.make_version()
    scores = other.active_models.get(7, "scores")
    assert scores is not None
    assert scores.adaptation is not None
    assert (scores.adaptation.digest, scores.thresholds) == (adaptation().digest, {})
    thresholds = other.active_models.get(7, "thresholds")
    assert thresholds is not None
    assert (thresholds.adaptation, thresholds.thresholds) == (None, {"car": 0.3})
    both = other.active_models.get(7, "all")
    assert both is not None
    assert both.adaptation is not None
    assert both.thresholds == {}  # those of its own scores
    assert len({scores.digest, thresholds.digest}) == 2
    assert other.active_models.get(7, "off") is None
    assert other.active_models.get(None, "all") is None


def test_where_the_database_is_away_what_it_said_last_counts(
    database: Database, learning: LearningStores, caplog: pytest.LogCaptureFixture
) -> None:
    learning.replace_all(1)
    learning.make_version()
    before = learning.active_models.get(7, "scores")
    assert before is not None
    with database.write() as connection:
        connection.execute(text("DROP TABLE learners"))
    assert learning.active_models.get(8, "scores") is None
    after = learning.active_models.get(7, "scores")
    assert after is not None
    assert after.digest == before.digest
    assert "The database of what projects have learned" in caplog.text


def test_a_version_of_another_release_counts_as_none(
    database: Database, learning: LearningStores, caplog: pytest.LogCaptureFixture
) -> None:
    learning.replace_all(1)
    learning.make_version()
    with database.write() as connection:
        connection.execute(text("UPDATE learned_versions SET adaptation = :b"), {"b": b"other"})
    assert learning.active_models.get(7, "scores") is None
    assert "cannot be used" in caplog.text


def test_a_job_finds_the_version_that_it_has_begun_with(learning: LearningStores) -> None:
    def digests() -> Sequence[str | None]:
        return [each and each.digest for each in learning.active_models.earlier(7, "scores")]

    assert digests() == []
    learning.replace_all(1)
    learning.make_version("a", number=1)
    learning.make_version("b", number=2)
    used: Callable[[float], str] = lambda number: ActiveModel(10, adaptation(number)).digest  # noqa: E731
    assert digests() == [used(2), used(1), None]
    learning.examples.forget(1)
    assert digests() == []
