"""The last review and what people have confirmed outlive the process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from backend.database.database import Database
from backend.label_errors.review_report import ReviewReport, Suspicion
from backend.label_errors.review_store import ReviewStore
from tests.backend.conftest import Clock

FOUND = Suspicion(3, 12, 5.25, None, "label", "car", "tree", 2.5, True, "data:a", "data:b")
REPORT = ReviewReport(
    4, 2, 1.5, (FOUND, replace(FOUND, annotation=13, kind="edges")), {9: "Gone."}, 5
)


def test_the_last_review_is_kept(url: str, clock: Clock) -> None:
    ReviewStore(Database(url, clock)).keep(7, replace(REPORT, suspicions=()))
    clock.now = 2000.0
    ReviewStore(Database(url, clock)).keep(7, REPORT)
    kept = ReviewStore(Database(url)).last(7)
    assert kept is not None
    assert (kept.finished, kept.report) == (2000.0, REPORT)
    assert ReviewStore(Database(url)).last(8) is None


def test_what_is_confirmed_leaves_the_list_until_it_is_changed(url: str) -> None:
    store = ReviewStore(Database(url))
    store.confirm(7, 12, 5.25)
    store.confirm(7, 12, 5.25)
    left = REPORT.without(store.confirmed(7)).suspicions
    assert [each.annotation for each in left] == [13]
    changed = replace(REPORT, suspicions=(replace(FOUND, updated=6.0),))
    assert changed.without(store.confirmed(7)) == changed, "another version of it"
    assert store.confirmed(8) == {}
    store.take_back(7, 12)
    assert store.confirmed(7) == {}


@pytest.mark.parametrize(
    "act", [lambda store: store.confirm(7, 12, 5.25), lambda store: store.keep(7, REPORT)]
)
def test_who_acts_at_the_same_time_does_not_fail(
    url: str, act: Callable[[ReviewStore], None]
) -> None:
    """Two clicks on a button, two backends that have reviewed one project."""
    stores = [ReviewStore(Database(url)) for _ in range(4)]
    stores[0].last(7)  # the tables are there
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(act, stores * 10))
