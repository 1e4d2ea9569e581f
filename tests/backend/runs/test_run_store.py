"""Runs in the database: who gets one, who takes it, and who is refused."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.errors import Busy
from backend.runs import run_store
from backend.runs.run_store import MOST_OPEN, Run, RunKind, RunStore
from backend.runs.runner import KINDS
from tests.backend.conftest import Clock
from tests.backend.runs.samples import SAMPLES

KIND = KINDS[0]
ASKED, _ = SAMPLES[KIND.name]


@pytest.fixture
def runs(database: Database) -> RunStore:
    return RunStore(database, "one")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_another_version_was_asked_fails_with_a_sentence(kind: RunKind[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"Another version .* ask again"):
        kind.read_asked(Run(id=1, kind=kind.name, project=7, asked=[]))  # type: ignore[arg-type]


def test_few_wait_and_who_ask_at_once_are_told_alike(runs: RunStore, database: Database) -> None:
    other = RunStore(Database(database.url.render_as_string(False), database.clock), "b")
    stores = [runs, other] * 4
    with ThreadPoolExecutor(len(stores)) as pool:
        found = list(pool.map(lambda store: store.request(KIND, 7, ASKED), stores))
    assert len({each.id for each in found}) == 1
    for project in range(8, 7 + MOST_OPEN):
        runs.request(KIND, project, ASKED)
    with pytest.raises(Busy):
        runs.request(KIND, 99, ASKED)


def test_a_run_that_ends_the_backend_each_time_fails(runs: RunStore, clock: Clock) -> None:
    run = runs.request(KIND, 7, ASKED)
    for number in range(3):
        assert RunStore(runs.database, f"dies-{number}").lease([KIND.name]) is not None
        clock.now += LEASE_S + 1
    assert runs.lease([KIND.name]) is None
    failed = runs.get(KIND, 7, run.id)
    assert (failed.state, failed.reason[:27]) == ("failed", "The backend has ended each ")


def test_an_older_backend_takes_no_run_that_a_newer_one_was_asked_for(
    runs: RunStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(run_store, "revisions", lambda: ("0200", "9999"))
        run = runs.request(KIND, 7, ASKED)
    assert runs.lease([KIND.name]) is None
    assert runs.get(KIND, 7, run.id).state == "queued"
    own = runs.request(KIND, 8, ASKED)
    leased = runs.lease([KIND.name])
    assert leased is not None
    assert leased.id == own.id, "it holds up no other"
