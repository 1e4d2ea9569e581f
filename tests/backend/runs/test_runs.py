"""What all kinds of runs have in common, from asking for one to reading its report."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.errors import Busy, ModelUnavailable, RunNotFound
from backend.runs import runner as runner_module
from backend.runs.agreement import AGREEMENT
from backend.runs.kinds import KINDS
from backend.runs.next_tasks import NEXT_TASKS
from backend.runs.run import Run, RunKind
from backend.runs.run_store import MOST_KEPT, MOST_OPEN, RunStore
from backend.runs.runner import Runner
from backend.services import Services
from backend.settings import Settings
from tests.backend.conftest import Clock
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.samples import EVIL, SAMPLES
from tests.backend.web.browser import PEOPLE, Dashboard, Page

Kind = RunKind[Any, Any]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
any_kind = pytest.mark.parametrize("kind", KINDS[:1], ids=lambda kind: kind.name)


@dataclass
class Bench:
    """A backend on a database, whose runs do what a test says."""

    store: RunStore
    owner: str

    def run_next(
        self, kind: Kind, make: Any, stopping: threading.Event | None = None, parts: Any = None
    ) -> bool:
        parts = parts or SimpleNamespace(settings=Settings())
        runner = Runner(self.store, parts, self.owner, stopping or threading.Event())
        return runner.run_next(replace(kind, make=make))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_NOTE_EVERY_S", 0.0)
    monkeypatch.setattr(runner_module, "_KEEP_EVERY_S", 0.0)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(RunStore(database), "one")


def other_of(bench: Bench, database: Database) -> Bench:
    """Another backend on the same database."""
    return Bench(RunStore(Database(str(database.url.render_as_string(False)), database.clock)), "b")


def sample(kind: Kind) -> tuple[Any, Any]:
    asked, _, report = SAMPLES[kind.name]
    return asked, report


def fail(error: Exception) -> Any:
    def make(*_: Any) -> None:
        raise error

    return make


@each_kind
def test_a_report_is_made_kept_and_read_by_every_backend(
    bench: Bench, database: Database, kind: Kind
) -> None:
    asked, report = sample(kind)
    run = bench.store.request(kind, 7, asked)
    assert (run.state, run.is_over, kind.read_asked(run)) == ("queued", False, asked)
    other = other_of(bench, database)
    assert other.store.request(kind, 7, asked).id == run.id, "an equal one is open"
    assert other.store.request(kind, 8, asked).id != run.id
    seen: list[Run] = []

    def make(_parts: Any, made: Run, what: Any, progress: Any) -> Any:
        assert (made.id, what) == (run.id, asked)
        progress(2, 3)
        seen.append(bench.store.get(kind, 7, run.id))
        assert not bench.run_next(kind, fail(AssertionError())) or made.project == 7
        return report

    assert other.run_next(kind, make)
    assert (seen[0].state, seen[0].done, seen[0].total) == ("running", 2, 3)
    made = bench.store.last(kind, 7)
    assert made is not None
    assert (made[0].id, made[0].state, made[1]) == (run.id, "done", report)
    assert bench.store.report(kind, made[0]) == report
    assert bench.store.request(kind, 7, asked).state == "queued", "the project may have changed"
    assert all(bench.store.last(each, 7) is None for each in KINDS if each is not kind)


@any_kind
def test_few_wait_and_those_who_ask_at_once_are_told_alike(
    bench: Bench, database: Database, kind: Kind
) -> None:
    asked, _ = sample(kind)
    stores = [bench.store, other_of(bench, database).store] * 4
    with ThreadPoolExecutor(len(stores)) as pool:
        runs = list(pool.map(lambda store: store.request(kind, 7, asked), stores))
    assert len({each.id for each in runs}) == 1
    for project in range(8, 7 + MOST_OPEN):
        bench.store.request(kind, project, asked)
    with pytest.raises(Busy):
        bench.store.request(kind, 99, asked)


@any_kind
def test_a_run_whose_backend_has_died_is_made_by_another_one(
    bench: Bench, database: Database, clock: Clock, kind: Kind
) -> None:
    asked, report = sample(kind)
    run = bench.store.request(kind, 7, asked)
    assert bench.store.lease(kind, "dead") is not None
    other = other_of(bench, database)
    assert not other.run_next(kind, fail(AssertionError())), "it may be at work still"
    clock.now += LEASE_S + 1
    assert other.run_next(kind, lambda *_: report)
    assert bench.store.get(kind, 7, run.id).state == "done"


@any_kind
def test_a_run_that_ends_the_backend_each_time_fails(
    bench: Bench, clock: Clock, kind: Kind
) -> None:
    run = bench.store.request(kind, 7, sample(kind)[0])
    for _ in range(3):
        assert bench.store.lease(kind, "dead") is not None
        clock.now += LEASE_S + 1
    assert bench.store.lease(kind, "dead") is None
    failed = bench.store.get(kind, 7, run.id)
    assert (failed.state, failed.reason[:27]) == ("failed", "The backend has ended each ")


@any_kind
def test_a_backend_that_stops_leaves_the_run_to_another_one(bench: Bench, kind: Kind) -> None:
    asked, report = sample(kind)
    stopping = threading.Event()

    def make(*given: Any) -> Any:
        stopping.set()
        given[3](1, 2)
        return report

    run = bench.store.request(kind, 7, asked)
    for _ in range(5):
        stopping.clear()
        assert bench.run_next(kind, make, stopping)
        assert bench.store.get(kind, 7, run.id).state == "queued"
    assert bench.run_next(kind, lambda *_: report)
    assert bench.store.get(kind, 7, run.id).state == "done"


@any_kind
def test_a_run_that_is_cancelled_ends_at_its_next_step(bench: Bench, kind: Kind) -> None:
    asked, report = sample(kind)
    steps: list[int] = []

    def make(_parts: Any, run: Run, _asked: Any, progress: Any) -> Any:
        for step in range(9):
            progress(step, 9)
            steps.append(step)
            if step == 2:
                bench.store.cancel(run)
        return report

    run = bench.store.request(kind, 7, asked)
    assert bench.run_next(kind, make)
    assert steps == [0, 1, 2]
    assert bench.store.get(kind, 7, run.id).state == "cancelled"
    assert bench.store.last(kind, 7) is None
    waiting = bench.store.request(kind, 7, asked)
    bench.store.cancel(waiting)
    assert not bench.run_next(kind, make), "nothing waits"
    bench.store.cancel(bench.store.get(kind, 7, waiting.id))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelUnavailable("The model is away."), "The model is away."),
        (ZeroDivisionError(), "Unexpected ZeroDivisionError: see the backend's log."),
        (
            OperationalError("SELECT", {}, Exception("locked")),
            "The database cannot be used now (locked): start it again once that is over.",
        ),
    ],
)
@any_kind
def test_what_fails_says_why_and_the_last_report_stays(
    bench: Bench, kind: Kind, error: Exception, reason: str
) -> None:
    asked, report = sample(kind)
    bench.store.add_done(kind, 7, asked, report, 1.0)
    run = bench.store.request(kind, 7, asked)
    assert bench.run_next(kind, fail(error))
    failed = bench.store.get(kind, 7, run.id)
    assert (failed.state, failed.reason) == ("failed", reason)
    made = bench.store.last(kind, 7)
    assert made is not None
    assert made[1] == report


@any_kind
def test_what_was_found_outlives_an_outage_of_the_database(
    bench: Bench, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, refusals = RunStore.finish, 3

    def refuse(*given: Any) -> Any:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise OperationalError("INSERT", {}, Exception("locked"))
        return finish(*given)

    monkeypatch.setattr(RunStore, "finish", refuse)
    asked, report = sample(kind)
    run = bench.store.request(kind, 7, asked)
    assert bench.run_next(kind, lambda *_: report)
    assert bench.store.get(kind, 7, run.id).state == "done"


@any_kind
def test_three_are_kept_that_are_done_and_three_that_are_not(bench: Bench, kind: Kind) -> None:
    asked, report = sample(kind)
    forgotten: list[int] = []
    kind = replace(kind, forget=lambda _settings, run: forgotten.append(run.id))
    numbers = []
    for number in range(2 * MOST_KEPT + 4):
        numbers.append(bench.store.request(kind, 7, asked).id)
        made = (lambda *_: report) if number % 2 else fail(ValueError("No."))
        assert bench.run_next(kind, made)
    kept = [each.id for each in bench.store.runs(kind, 7)]
    assert kept == numbers[-2 * MOST_KEPT :][::-1]
    assert [each for each in forgotten if each not in kept][-1:] == [numbers[3]]
    with pytest.raises(RunNotFound):
        bench.store.get(kind, 7, numbers[0])
    with pytest.raises(RunNotFound):
        bench.store.get(kind, 8, numbers[-1])


# ---- pages ---------------------------------------------------------------------------------------


@pytest.fixture
def store() -> RunStore:
    return RunStore(Database.from_settings(Settings()))


def told(dashboard: Dashboard, path: str) -> Any:
    response = dashboard.client.get(path)
    assert response.status_code == 200
    return json.loads(response.data)


@each_kind
def test_people_ask_watch_cancel_and_read(
    dashboard: Dashboard, store: RunStore, kind: Kind
) -> None:
    path = f"/projects/7/{kind.name}"
    asked, report = sample(kind)
    assert dashboard.page(path).next_page == ""
    run = store.request(kind, 7, asked)
    page = dashboard.page(path)
    assert page.next_page == path
    assert "queued" in page.text
    assert dashboard.post(f"{path}/{run.id}/cancel").status_code == 303
    page = dashboard.page(path)
    assert page.next_page == ""
    assert "cancelled" in page.text
    assert dashboard.page(f"{path}/{run.id}").next_page == ""
    store.add_done(kind, 7, asked, report, 1.0)
    page = dashboard.page(path)
    assert EVIL in page.text, "and no script"
    assert not [each for each in page.all("script") if "nonce" not in each]
    links = [each["href"] or "" for each in page.all("a")]
    assert any("/projects/7/data?task=" in link for link in links)
    made = store.last(kind, 7)
    assert made is not None
    assert EVIL in dashboard.page(f"{path}/{made[0].id}").text
    assert dashboard.client.get(f"{path}/99", headers=PEOPLE).status_code == 404
    assert dashboard.client.get(f"/projects/8/{kind.name}/{run.id}").status_code == 404


@each_kind
def test_a_program_has_the_same(dashboard: Dashboard, store: RunStore, kind: Kind) -> None:
    path = f"/projects/7/{kind.name}"
    asked, report = sample(kind)
    answered = dashboard.client.post(path, json=msgspec.to_builtins(asked))
    assert answered.status_code == 202
    run = json.loads(answered.data)
    assert (run["state"], run["kind"], run["project"]) == ("queued", kind.name, 7)
    assert answered.headers["Location"] == f"{path}/{run['id']}"
    again = dashboard.client.post(path, json=msgspec.to_builtins(asked))
    assert json.loads(again.data)["id"] == run["id"]
    assert told(dashboard, path)["run"] == run
    assert (
        json.loads(dashboard.client.post(f"{path}/{run['id']}/cancel").data)["run"]["state"]
        == "cancelled"
    )
    store.add_done(kind, 7, asked, report, 1.0)
    answer = told(dashboard, path)
    assert msgspec.convert(answer["report"], kind.report, strict=False) == report
    assert [each["state"] for each in answer["runs"]] == ["done", "cancelled"]
    one, none = (told(dashboard, f"{path}/{each['id']}") for each in answer["runs"])
    assert one["report"] == answer["report"]
    assert none["report"] is None


@each_kind
def test_what_is_no_request_is_refused(dashboard: Dashboard, kind: Kind) -> None:
    path = f"/projects/7/{kind.name}"
    for body in (b"[]", b"{", b"\xff", b"[" * 60_000, b'"x"'):
        refused = dashboard.client.post(path, data=body, content_type="application/json")
        assert refused.status_code == 400, body
    assert dashboard.client.post(path, data=b" " * 70_000).status_code == 413
    for end in ("", "/1/cancel", "/view"):
        crossed = dashboard.post(f"{path}{end}", None, Origin="http://evil.example")
        assert crossed.status_code in (403, 404, 405)
        assert end or crossed.status_code == 403


@pytest.mark.parametrize("kind", [each for each in KINDS if each.tasks], ids=lambda kind: kind.name)
def test_a_view_lists_the_tasks_of_the_report(
    dashboard: Dashboard, store: RunStore, studio: FakeStudio, kind: Kind
) -> None:
    view = f"/projects/7/{kind.name}/view"
    refused = dashboard.post(view)
    assert refused.status_code == 400
    assert "There is no report yet" in Page(refused).text
    studio.tabs[99] = {"title": "Default"}
    store.add_done(kind, 7, *sample(kind), 1.0)
    made_view = dashboard.post(view)
    assert made_view.status_code == 303
    said = dashboard.page(made_view.headers["Location"])
    number = min(studio.tabs)
    assert "lists these tasks now" in said.text
    assert any(str(each.get("href")).endswith(f"?tab={number}") for each in said.all("a"))
    assert dashboard.client.post(view).status_code == 200
    default, made = studio.tabs.values()
    assert default == {"title": "Default"}
    assert made["title"] == kind.title
    (item,) = made["filters"]["items"]
    assert (item["operator"], item["value"]) == ("in", {"min": 3, "max": 4})


def test_the_worker_of_a_server_makes_each_kind() -> None:
    given: dict[str, Any] = {"label_studio_api_key": TOKEN}
    services = Services(Settings(label_studio_url="http://studio:8080", **given))
    rounds = services.worker(services.predictor())._rounds
    assert {kind.name for kind in KINDS} <= rounds.keys()


def test_a_report_is_stored_as_a_struct(tmp_path: Path) -> None:
    """Each kind has a sample here, and what it asks for has defaults."""
    assert {kind.name for kind in KINDS} == SAMPLES.keys()
    for kind in KINDS:
        assert msgspec.json.decode(b"{}", type=kind.asked) is not None
        report = sample(kind)[1]
        assert kind.read_report(msgspec.json.encode(report).decode()) == report


def test_the_page_of_agreement_shows_all_figures(dashboard: Dashboard, store: RunStore) -> None:
    store.add_done(AGREEMENT, 7, *SAMPLES["agreement"][::2], 1.0)
    text = " ".join(dashboard.page("/projects/7/agreement").text.split())
    for figures in (
        "People do not agree on 3.1 % of a picture's pixels, on average over 41",
        f"{EVIL}9 few75.0 %1.0 %",
        "tree1025.0 %2.0 %",
        f"{EVIL}tree12.5 % treenothing6.2 %",
        f"{EVIL}4081.2 %",
        "User 62 few50.0 %",
        "The picture cannot be read.",
        "The first 1 of 7 tasks.",
    ):
        assert figures in text


def test_the_page_of_next_tasks_shows_what_they_were_chosen_of(
    dashboard: Dashboard, store: RunStore
) -> None:
    path = "/projects/7/next-tasks"
    store.add_done(NEXT_TASKS, 7, *SAMPLES["next-tasks"][::2], 1.0)
    page = dashboard.page(path)
    assert [each["id"] for each in page.all("figure")] == ["task-4", "task-3"]
    text = " ".join(page.text.split())
    assert "of 4 321 tasks without an annotation or a draft: 12" in text
    assert "12 pictures compared in 75 s, 9 near-duplicates skipped, 7 left out" in text
    assert "compared with 5 corrected pictures too" in text
    assert not [each for each in page.all("p") if each.get("id") == "shortage"]
    for count in ("0", "101", "many"):
        refused = dashboard.post(path, {"count": count})
        assert refused.status_code == 400
        (field,) = [each for each in Page(refused).all("input") if each.get("name") == "count"]
        assert field["value"] == count
    assert dashboard.post(path, {"count": "5"}).status_code == 303
    assert [run.asked for run in store.runs(NEXT_TASKS, 7)] == [{"count": 5}, {"count": 5}]
