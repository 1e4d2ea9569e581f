"""Changes found by polling a stand-in for Label Studio's API; the real one: e2e/test_learning."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.errors import StudioUnreachable, TaskNotServed
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ANNOTATIONS
from backend.jobs.change_poller import ChangePoller, Poll, PollStore
from backend.jobs.job_store import JobStore
from backend.label_studio.client import LabelStudioClient
from backend.projects.task_scope import TaskScope
from backend.settings import Settings
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.databases import FlakyDatabase
from tests.backend.fakes.label_studio import TOKEN, FakeStudio, asks_for_whole
from tests.backend.fakes.local_server import Answer, Asked, LocalServer
from tests.backend.fakes.report import rows_of

CONFIG = brush_config("red")
DAY_S = 86_400.0


class Team:
    """A Label Studio, and a backend that polls it every minute."""

    def __init__(self, server: LocalServer, database: Database, clock: Clock, **more: Any) -> None:
        self.clock, self.server = clock, server
        owner = f"me{id(self)}"
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
        self.annotations = AnnotationStore(database, owner)
        self.jobs = JobStore(database)
        self.polls = PollStore(database, owner)
        stores = self.polls, self.annotations, self.jobs, TaskScope.of(database)
        settings = Settings(**({"poll_interval_s": 60} | more))
        self.poller = ChangePoller(settings, *stores, client, clock=clock)
        self.reader = AnnotationReader(self.annotations, client)

    def connect(self) -> None:
        self.poller.note_setup(7)
        self.clock.now += 10
        self.poll(0)

    def poll(self, after_s: float = 60.0) -> None:
        """Poll once that time is over."""
        self.clock.now += after_s
        while self.poller.poll():
            pass

    def read(self) -> list[int]:
        """Read what is marked; the value is the ids, in ascending order."""
        marked = self.annotations.lease(1000)
        self.annotations.release(marked)
        while self.reader.read_some():
            pass
        return sorted(each.annotation for each in marked)


@pytest.fixture
def studio() -> FakeStudio:
    studio = FakeStudio(CONFIG, {task: {"image": "/data/a.png"} for task in range(1, 6)})
    studio.backends = [{"id": 1, "url": "http://here:9090", "created_at": "2001-09-09T01:46:40Z"}]
    return studio


@pytest.fixture
def own(tmp_path: Path, clock: Clock) -> Iterator[FlakyDatabase]:
    database = FlakyDatabase(f"sqlite:///{tmp_path}/own.db", clock)
    yield database
    database.close()


@pytest.fixture
def team(server: LocalServer, own: FlakyDatabase, clock: Clock) -> Team:
    team = Team(server, own, clock)
    team.connect()
    return team


def asked(server: LocalServer) -> list[str]:
    """What was asked since this was called last, without the query."""
    paths = [each.path.partition("?")[0] for each in server.asked]
    server.asked.clear()
    return paths


def open_(team: Team) -> int:
    return team.annotations.count_open(7)


def test_a_task_whose_annotations_are_too_large_keeps_no_other_from_being_marked(
    team: Team, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 200_000)
    studio.annotate(1, [{"meta": {"text": "x" * 200_000}}])
    made, beside = studio.annotate(2, []), studio.annotate(1, [])
    team.poll()
    team.read()
    assert [(each.annotation, each.kind) for each in rows_of(team.annotations)][1:] == [
        (made["id"], "scratch"),
        (beside["id"], "scratch"),
    ]


def test_a_change_is_read_once(team: Team, studio: FakeStudio, server: LocalServer) -> None:
    made, skipped = studio.annotate(2, []), studio.annotate(3, [], was_cancelled=True)
    for _ in range(4):
        team.poll()
        assert open_(team) == 2
    assert team.read() == [made["id"], skipped["id"]]
    assert [(each.task, each.kind) for each in rows_of(team.annotations)] == [
        (2, "scratch"),
        (3, "skipped"),
    ]
    asked(server)
    for _ in range(4):
        team.poll()
    assert asked(server) == ["/api/tasks/"] * 4
    studio.update(made["id"], lead_time=99.0)
    team.poll()
    assert team.read() == [made["id"]]
    assert [each.seconds for each in rows_of(team.annotations)] == [99.0, 10.0]


def test_deleted_annotations_and_tasks_are_forgotten(team: Team, studio: FakeStudio) -> None:
    ids = [studio.annotate(task, [])["id"] for task in (2, 2, 3)]
    team.poll()
    team.read()
    studio.remove(ids[0])
    team.poll()
    team.read()
    assert [each.annotation for each in rows_of(team.annotations)] == ids[1:]
    del studio.tasks[3], studio.annotations[ids[2]]
    studio.create({"image": "/data/b.png"})  # the number of tasks is as it was
    team.poll()
    assert open_(team) == 1
    team.read()
    assert [each.annotation for each in rows_of(team.annotations)] == ids[1:2]


def test_a_long_backlog_delays_nobody(team: Team, studio: FakeStudio, server: LocalServer) -> None:
    studio.tasks |= {task: {"image": "/data/a.png"} for task in range(6, 256)}
    ids = [studio.annotate(task, [])["id"] for task in range(1, 256)]
    studio.changed = dict.fromkeys(studio.tasks, studio.now)  # a bulk action, all at one time

    def as_seven(asked: Asked) -> Answer | None:
        path = asked.path.replace("project=8", "project=7")
        return None if path == asked.path else studio.answer(replace(asked, path=path))

    studio.fault = as_seven
    team.poller.note_setup(8)
    asked(server)
    team.poll()
    pages = [each.path for each in server.asked if each.path.startswith("/api/tasks/?")]
    projects = [re.findall(r"project=(\d)", each)[0] for each in pages]
    assert projects not in (sorted(projects), sorted(projects, reverse=True)), "they take turns"
    marked = sum(team.annotations.count_open(project) for project in (7, 8))
    assert marked == len(ids), "of the same ids in both"


def test_a_change_that_becomes_visible_late_is_found(team: Team, studio: FakeStudio) -> None:
    """One of a long transaction, or of a server of Label Studio's whose clock is behind."""
    studio.annotate(2, [])
    team.poll()
    team.read()
    late = studio.annotate(3, [])
    studio.changed[3] = studio.changed[2] - 50
    team.poll(30)
    assert open_(team) == 0, "it is not due yet"
    team.poll(30)
    assert team.read() == [late["id"]]


@pytest.mark.parametrize("years", [-10, 10])
def test_the_clocks_of_label_studio_and_of_the_backend_may_differ(
    server: LocalServer, own: FlakyDatabase, studio: FakeStudio, clock: Clock, years: int
) -> None:
    clock.now = 1e9 + years * 365 * DAY_S
    team = Team(server, own, clock)
    team.connect()
    for task in (2, 3):
        made = studio.annotate(task, [])
        team.poll()
        assert team.read() == [made["id"]]


def test_an_outage_of_label_studio_says_so_and_loses_nothing(
    team: Team, studio: FakeStudio, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [studio.annotate(task, [])["id"] for task in (1, 2, 3)]
    studio.fault = lambda asked: Answer(403)
    team.poll()
    (poll,) = team.polls.list_polls()
    assert "HTTP 403" in poll.trouble
    assert "HTTP 403" in caplog.text
    assert TOKEN not in caplog.text
    for away in ("/tasks/", ""), ("fields=all", "whoami"):
        studio.fault = lambda asked, away=away: (  # type: ignore[misc]
            Answer(503) if any(each and each in asked.path for each in away) else None
        )
        with pytest.raises(StudioUnreachable):
            team.poll()
        (poll,) = team.polls.list_polls()
        assert "HTTP 503" in poll.trouble
        assert poll.since == 1e9, "it has not moved"
        assert poll.unserved == {}
    studio.fault = lambda asked: None
    team.poll()
    assert team.read() == ids
    (poll,) = team.polls.list_polls()
    assert (poll.trouble, poll.since) == ("", studio.now)


@pytest.mark.parametrize("status", [500, 504, 403, 200])
def test_a_task_that_label_studio_cannot_serve_costs_no_other_one(
    team: Team, studio: FakeStudio, server: LocalServer, status: int
) -> None:
    ids = {task: studio.annotate(task, [], 1.0)["id"] for task in (1, 2, 3)}
    beside = studio.annotate(2, [], 1.0)["id"]
    broken = f"/annotations/{ids[2]}/"
    studio.fault = lambda asked: (
        Answer(status, b"{") if asks_for_whole(asked, 2) or broken in asked.path else None
    )
    team.poll()
    assert team.read() == [*ids.values(), beside]
    kinds = {each.annotation: each.kind for each in rows_of(team.annotations)}
    assert kinds == dict.fromkeys((ids[1], ids[3], beside), "scratch") | {ids[2]: "broken"}
    (poll,) = team.polls.list_polls()
    assert poll.trouble == ""
    assert f"HTTP {status}" in poll.unserved[2].reason
    pauses, last = list[float](), team.clock.now
    for _ in range(40):
        server.asked.clear()
        team.poll(15)
        if any(asks_for_whole(each, 2) for each in server.asked):
            pauses.append(team.clock.now - last)
            last = team.clock.now
    assert pauses == sorted(pauses)
    assert 2 * pauses[0] < pauses[-1], "it is asked for less often each time"
    studio.fault = lambda _: None
    team.poll(3600)
    assert team.read() == [ids[2]]
    assert {each.kind for each in rows_of(team.annotations)} == {"scratch"}
    assert team.polls.list_polls()[0].unserved == {}


def test_a_clock_that_is_set_back_stops_no_poll(team: Team, studio: FakeStudio) -> None:
    team.poll()
    studio.annotate(2, [])
    team.poll(-3600.0)
    assert open_(team) == 1


def test_a_task_that_was_not_served_is_asked_for_after_the_clock_was_set_back(
    team: Team, studio: FakeStudio
) -> None:
    team.poll(1e6)
    studio.annotate(2, [], 1.0)
    studio.fault = lambda asked: Answer(500) if asks_for_whole(asked, 2) else None
    team.poll()
    assert list(team.polls.list_polls()[0].unserved) == [2]
    studio.fault = lambda _: None
    team.poll(-86_400.0)
    assert team.polls.list_polls()[0].unserved == {}


def test_where_many_tasks_are_not_served_it_is_not_them(team: Team, studio: FakeStudio) -> None:
    studio.tasks |= {task: {"image": "/data/a.png"} for task in range(6, 60)}
    for task in range(1, 60):
        studio.annotate(task, [])
    studio.fault = lambda a: Answer(403) if "fields=all" in a.path else None
    with pytest.raises(TaskNotServed):
        team.poll()
    (poll,) = team.polls.list_polls()
    assert (poll.since, poll.unserved) == (1e9, {})


@pytest.mark.parametrize("after_writes", range(5))
def test_an_outage_of_the_database_loses_nothing(
    team: Team, studio: FakeStudio, own: FlakyDatabase, after_writes: int
) -> None:
    """Wherever in a poll it begins: leasing, marking, moving the mark."""
    team.read()
    ids = [studio.annotate(task, [])["id"] for task in (1, 2)]
    own.good = after_writes
    with suppress(OperationalError):
        team.poll()
    own.good = inf
    team.clock.now += LEASE_S
    team.polls.leases.renew()
    team.poll()
    assert team.read() == ids
    (poll,) = team.polls.list_polls()
    assert poll.since == studio.now


def test_a_double_is_deleted_if_unused(team: Team, studio: FakeStudio, server: LocalServer) -> None:
    """Neither storing them changes the time of a task, nor does an import of the real one."""
    ours, theirs = "demo clearclip 1a2b3c4d", "their own model"
    first, second = ([studio.add(task, ours) for task in range(1, 6)] for _ in range(2))
    studio.annotate(2, [], parent_prediction=second[1])
    studio.drafted.add(3)
    for prediction in (first[3], second[3]):
        studio.annotate(4, [], parent_prediction=prediction, was_cancelled=True)
    others = [studio.add(5, version) for version in (theirs, theirs, "", "", f"{ours} +20 v2")]
    team.poll()
    assert studio.stored(ours) == dict.fromkeys(range(1, 6), 2), "somebody may have them open"
    team.poll()
    gone = {second[0], first[1], second[4]}
    assert {each["id"] for each in studio.predictions} == {*first, *second, *others} - gone
    for _ in range(2):  # as their number has changed
        team.poll()
    asked(server)
    team.poll()
    assert asked(server) == ["/api/tasks/"], "nothing has changed since"
    studio.drafted.clear()
    studio.annotate(3, [], parent_prediction=first[2])
    team.poll()
    team.poll()
    assert second[2] not in {each["id"] for each in studio.predictions}


def test_new_tasks_that_no_job_has_are_queued_where_their_project_is_prelabeled(
    server: LocalServer, own: FlakyDatabase, clock: Clock, studio: FakeStudio
) -> None:
    team = Team(server, own, clock, auto_prelabel="7")
    team.connect()
    assert team.jobs.list_jobs() == [], "tasks from before the connection are not new"
    new = [studio.create({"image": "/data/b.png"}) for _ in range(2)]
    unasked = Team(server, own, clock)
    unasked.poll()
    assert team.jobs.list_jobs() == [], "no setting asks for them"
    studio.touch(new[0])
    for _ in range(4):
        team.poll()
    (job,) = team.jobs.list_jobs()
    assert (job.kind, job.project, list(team.jobs.task_ids(job.id) or ())) == ("new", 7, new)
    studio.label_config = CONFIG.replace("<BrushLabels", '<BrushLabels prelabel="auto"')
    told, predicted, lost = (studio.create({"image": "/data/b.png"}) for _ in range(3))
    studio.add(predicted, "v1")
    team.jobs.start_job(7, kind="new", tasks=[told])
    team.jobs.cancel(job.id)
    unasked.poll()
    newest = team.jobs.list_jobs()[0]
    assert (len(team.jobs.list_jobs()), team.jobs.task_ids(newest.id)) == (2, (lost,))


def test_what_is_gone_is_not_polled(team: Team, studio: FakeStudio, server: LocalServer) -> None:
    team.poller.note_setup(8)
    team.poll(10)
    assert [each.project for each in team.polls.list_polls()] == [7]
    studio.backends.clear()
    studio.annotate(2, [])
    team.poll()
    assert team.polls.list_polls() == []
    asked(server)
    team.poll()
    assert asked(server) == []
    team.connect()
    studio.project = 9  # it is deleted
    team.poll()
    assert team.polls.list_polls() == []


def test_without_a_token_nothing_is_polled(own: FlakyDatabase, clock: Clock) -> None:
    polls = PollStore(own, "me")
    stores = polls, AnnotationStore(own, "me"), JobStore(own), TaskScope.of(own)
    poller = ChangePoller(Settings(), *stores, None)
    poller.note_setup(7)
    poller.wake(7)
    assert (poller.poll(), polls.list_polls()) == (False, [])


def test_a_backend_that_is_killed_at_once_polls_the_project_later(
    server: LocalServer, own: FlakyDatabase, clock: Clock, studio: FakeStudio
) -> None:
    """What has changed between the connection and its next start is found."""
    studio.changed = dict.fromkeys(studio.tasks, studio.now - 1000)
    killed = Team(server, own, clock)
    killed.poller.note_setup(7)
    killed.poll(5)
    assert asked(server) == [], "the project is still being connected"
    made = studio.annotate(2, [])
    clock.now += DAY_S
    team = Team(server, own, clock)
    team.poll()
    assert team.read() == [made["id"]]


def test_annotations_that_are_older_than_the_connection_are_read_the_newest_first(
    server: LocalServer,
    own: FlakyDatabase,
    clock: Clock,
    studio: FakeStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And again where somebody asks, those that the table lacks too; their tasks are not new."""
    monkeypatch.setattr("backend.label_studio.client.PAGE", 1)
    studio.tasks |= {task: {"image": "/data/a.png"} for task in range(6, 251)}
    studio.changed = dict.fromkeys(studio.tasks, studio.now - DAY_S)
    old = [studio.annotate(task, [])["id"] for task in (3, 150, 240)]
    studio.changed = dict.fromkeys(studio.tasks, studio.now - DAY_S)
    team = Team(server, own, clock, auto_prelabel="7")
    team.poller.note_setup(7)
    clock.now += 10
    found = []
    while team.poller.poll():
        found.append(open_(team))
    assert found[:3] == [1, 2, 3], "page by page"
    pages = [unquote(each.path) for each in server.asked if "fields=all" in each.path]
    assert re.findall(r'"included":\[(.*?)\]', "".join(pages)) == ["240", "150", "3"]
    assert team.read() == old
    assert team.jobs.list_jobs() == []
    team.poll(120)
    assert open_(team) == 0
    with own.write() as connection:
        connection.execute(delete(ANNOTATIONS).where(ANNOTATIONS.c.annotation == old[0]))
    team.poller.read_again(7)
    team.poll(0)
    assert team.read() == old


def test_a_webhook_in_a_poll_counts(team: Team, studio: FakeStudio, server: LocalServer) -> None:
    """A change that comes while the last page is read is found by a poll after it."""
    studio.annotate(1, [])

    def tell(each: Asked) -> Answer | None:
        if "fields=all" in each.path:
            studio.fault = lambda asked: None
            studio.annotate(3, [])
            team.poller.wake(7)
        return None

    studio.fault = tell
    team.poll()
    assert open_(team) == 1
    team.poll(2)
    team.poll(2)
    assert open_(team) == 2


def test_an_unknown_project_of_a_webhook_costs_nothing(team: Team, server: LocalServer) -> None:
    asked(server)
    for project in (None, 0, -1, 8, 1 << 40):
        team.poller.wake(project)
        team.poll(2)
    assert asked(server) == []
    assert [each.project for each in team.polls.list_polls()] == [7]


def test_a_poll_that_is_to_stop_leaves_the_page_to_another(
    team: Team, studio: FakeStudio, server: LocalServer, own: FlakyDatabase
) -> None:
    ids = [studio.annotate(task, [])["id"] for task in (1, 2, 3)]
    studio.now += DAY_S
    ids.append(studio.annotate(4, [])["id"])
    stopping = False

    def stop(each: Asked) -> Answer | None:
        nonlocal stopping
        stopping = stopping or "fields=all" in each.path
        return None

    studio.fault = stop
    team.poller.is_stopping = lambda: stopping
    team.poll()
    assert (open_(team), stopping) == (0, True)
    another = Team(server, own, team.clock)
    team.polls.leases.renew()
    another.poll(60)
    assert another.read() == ids


@pytest.fixture
def polls(database: Database) -> PollStore:
    return PollStore(database, "me")


def test_a_project_is_due_once_however_often_it_is_woken(polls: PollStore, clock: Clock) -> None:
    polls.add(7, 60.0)
    polls.add(7, 0.0)
    for _ in range(3):
        polls.wake([7, 8], 1.0)
    assert polls.lease() is None
    clock.now += 1
    woken = polls.lease()
    assert woken == Poll(7)
    polls.wake([7], 1.0)
    polls.finish(woken, 60.0)
    clock.now += 2
    assert polls.lease() is None
    assert polls.list_polls() == [Poll(7, polled=clock.now - 2)]


def test_the_longest_due_comes_first(polls: PollStore, database: Database, clock: Clock) -> None:
    other = PollStore(database, "other")
    for project in (7, 8):
        polls.add(project, 0.0)
        clock.now += 1
    leased = polls.lease(), other.lease(), polls.lease()
    assert leased == (Poll(7), Poll(8), None)
    clock.now += 0.9 * LEASE_S
    polls.leases.renew()
    other.leases.renew()
    clock.now += 0.9 * LEASE_S
    assert other.lease() is None
    polls.leases.let_go(7)
    polls.leases.renew()
    clock.now += 0.2 * LEASE_S
    other.leases.renew()
    assert other.lease() == Poll(7)
    polls.finish(Poll(7, since=9.0), 60.0)
    polls.fail(7, "Late.", 60.0)
    assert polls.list_polls() == [Poll(7), Poll(8)], "what came late counts for nothing"


def test_a_poll_ends_an_experiment_that_can_draw_no_more(team: Team, studio: FakeStudio) -> None:
    experiments = team.poller.scope.experiments
    experiments.begin(7)
    team.poll()
    assert experiments.is_running(7)
    for task in studio.tasks:
        studio.annotate(task, [])
    team.poll()
    assert not experiments.is_running(7)


def left(team: Team) -> int | None:
    """Return how many tasks the dashboard says are left."""
    (poll,) = team.polls.list_polls()
    return poll.tasks_left


def test_deleted_tasks_are_not_left(team: Team, studio: FakeStudio) -> None:
    assert left(team) == 5
    del studio.tasks[4], studio.tasks[5]
    team.poll()
    assert left(team) == 3


def test_what_a_setting_of_the_project_leaves_is_counted_though_no_task_has_changed(
    team: Team, studio: FakeStudio
) -> None:
    studio.annotate(1, [])
    for _ in range(4):  # until no change can become visible late
        team.poll()
    assert left(team) == 4
    studio.overlap = 2
    team.poll(600)
    assert left(team) == 5
