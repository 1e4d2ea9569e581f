"""The last report of a project outlives the process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from backend.agreement.agreement_report import AgreementReport, AnnotatorFigures
from backend.agreement.agreement_store import AgreementStore
from backend.database.database import Database
from tests.backend.conftest import Clock

REPORT = AgreementReport(
    *(2, 2, 4, 1.5, 0.25), annotators=(AnnotatorFigures(5, "Ann", 2, 0.5, None),)
)


def test_the_last_report_is_kept(url: str, clock: Clock) -> None:
    AgreementStore(Database(url, clock)).keep(7, replace(REPORT, tasks=1))
    clock.now = 2000.0
    AgreementStore(Database(url, clock)).keep(7, REPORT)
    kept = AgreementStore(Database(url)).last(7)
    assert kept is not None
    assert (kept.finished, kept.report) == (2000.0, REPORT)
    assert AgreementStore(Database(url)).last(8) is None


def test_who_keeps_at_the_same_time_does_not_fail(url: str) -> None:
    stores = [AgreementStore(Database(url)) for _ in range(4)]
    stores[0].last(7)  # the tables are there
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(lambda store: store.keep(7, REPORT), stores * 5))
