"""Which projects there are, against a stand-in for Label Studio's API.

The real one: `tests/e2e/test_dashboard.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import StudioUnreachable
from backend.jobs.project_titles import ProjectTitles
from backend.label_studio.client import LabelStudioClient
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer
from tests.backend.jobs.served_backend import Backend, wait_for


@pytest.fixture
def studio() -> FakeStudio:
    titles = {7: "streets at night", 9: "Kitchens", 8: "Streets", 12: ""}
    return FakeStudio(brush_config("red"), {}, titles=titles)


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def made(server: LocalServer, clock: Clock) -> ProjectTitles:
    return ProjectTitles(LabelStudioClient(server.url, TOKEN, retry_for_s=0), clock)


def test_projects_are_named_by_title_and_number(server: LocalServer, clock: Clock) -> None:
    titles = made(server, clock)
    assert titles.name(7) == "Project 7", "nothing waits for Label Studio"
    assert titles.choices() == []
    titles.check()
    assert titles.name(7) == "streets at night (7)"
    assert (titles.name(12), titles.name(99)) == ("Project 12", "Project 99")
    assert titles.choices() == [
        (12, "Project 12"),
        (9, "Kitchens (9)"),
        (8, "Streets (8)"),
        (7, "streets at night (7)"),
    ]


def hasty(server: LocalServer, clock: Clock) -> ProjectTitles:
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    return ProjectTitles(client, clock, hasty_client=client)


def test_the_first_page_of_a_project_has_its_title(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    titles = hasty(server, clock)
    assert titles.name(7) == "streets at night (7)", "before anybody has read them"
    assert [titles.name(each) for each in (8, 9, 12)] == [
        "Streets (8)",
        "Kitchens (9)",
        "Project 12",
    ]
    assert len(server.asked) == 1
    clock.now += 5
    studio.titles[13] = "New"
    assert titles.name(13) == "New (13)"
    assert len(server.asked) == 2


def test_pages_wait_for_a_project_that_is_gone_once(server: LocalServer, clock: Clock) -> None:
    titles = hasty(server, clock)
    for _ in range(4):
        clock.now += 3600
        assert titles.name(99) == "Project 99"
    assert len(server.asked) == 1
    for project in (100, 101, 102):
        titles.name(project)
    assert len(server.asked) == 1 + 1, "whoever invents numbers has them read once a second"


def test_a_page_of_many_projects_that_are_gone_waits_for_a_slow_label_studio_once(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    def take_long(_: Asked) -> None:
        clock.now += 2.5

    studio.fault = take_long
    titles = hasty(server, clock)
    assert [titles.name(project) for project in range(100, 120)] == [
        f"Project {project}" for project in range(100, 120)
    ]
    assert len(server.asked) == 1
    studio.titles[13] = "New"
    clock.now += 1
    assert titles.name(13) == "New (13)"


def test_views_of_a_page_of_many_projects_that_are_gone_wait_twice_in_all(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    """While the first view waits for one of them, it cannot tell that the others are gone."""

    def take_long(_: Asked) -> None:
        clock.now += 2.5

    studio.fault = take_long
    titles = hasty(server, clock)
    for _ in range(10):
        for project in range(100, 120):
            clock.now += 0.001
            assert titles.name(project) == f"Project {project}"
        clock.now += 2
    assert len(server.asked) == 2


def test_no_page_waits_where_the_background_has_just_asked_in_vain(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    studio.fault = lambda _: Answer(503)
    titles = hasty(server, clock)
    with pytest.raises(StudioUnreachable):
        titles.check()
    clock.now += 10
    assert titles.name(7) == "Project 7"
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 503])
def test_one_page_waits_in_vain_and_the_next_ones_do_not(
    studio: FakeStudio, server: LocalServer, clock: Clock, status: int
) -> None:
    studio.fault = lambda _: Answer(status)
    titles = hasty(server, clock)
    for project in (7, 8, 7):
        assert titles.name(project) == f"Project {project}"
        clock.now += 10
    assert len(server.asked) == 1
    studio.fault = lambda _: None
    clock.now += 60
    assert titles.name(7) == "streets at night (7)"


def test_pages_that_come_together_ask_once(server: LocalServer, clock: Clock) -> None:
    titles = hasty(server, clock)
    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(titles.name, [7] * 8)} == {"streets at night (7)"}
    assert len(server.asked) == 1


def test_older_titles_that_arrive_later_are_not_kept(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    titles = hasty(server, clock)
    named = []

    def answer_a_page_before(_: Asked) -> None:
        if not named:
            named.append("")
            clock.now += 2
            studio.titles[13] = "New"
            named[0] = titles.name(13)
            del studio.titles[13]  # the first answer is of a time when there was none

    studio.fault = answer_a_page_before
    titles.check()
    assert (named, titles.name(13)) == (["New (13)"], "New (13)")
    assert len(server.asked) == 2


def test_titles_are_read_again_only_while_somebody_looks(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    titles = made(server, clock)
    titles.check()
    assert len(server.asked) == 1, "at the start"
    clock.now += 3600
    titles.check()
    assert len(server.asked) == 1
    studio.titles[7] = "Renamed"
    assert titles.name(7) == "streets at night (7)"
    titles.check()
    assert (titles.name(7), len(server.asked)) == ("Renamed (7)", 2)
    titles.check()
    assert len(server.asked) == 2, "not at each look"


def test_a_project_that_is_new_has_its_title_soon_and_one_that_is_gone_is_not_asked_for(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    titles = made(server, clock)
    titles.check()
    studio.titles[13] = "New"
    for _ in range(4):
        clock.now += 2
        assert titles.name(99) == "Project 99", "which was deleted"
        titles.name(13)
        titles.check()
    assert titles.name(13) == "New (13)"
    assert len(server.asked) == 2, "once for both of them"


@pytest.mark.parametrize("status", [401, 503])
def test_where_they_cannot_be_read_projects_have_numbers(
    studio: FakeStudio, server: LocalServer, clock: Clock, status: int
) -> None:
    studio.fault = lambda _: Answer(status)
    titles = made(server, clock)
    if status == 503:
        with pytest.raises(StudioUnreachable):
            titles.check()
    else:
        titles.check()
    assert titles.name(7) == "Project 7"
    studio.fault = lambda _: None
    clock.now += 60
    titles.check()
    assert titles.name(7) == "streets at night (7)"


def test_a_project_is_gone_where_titles_that_are_newer_than_it_lack_it(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    titles = made(server, clock)
    assert not titles.is_gone(99, 3600), "nothing is known yet"
    titles.check()
    clock.now += 5
    assert titles.is_gone(99, 3600)
    assert not titles.is_gone(7, 3600)
    assert not titles.is_gone(99, 4), "it was made since"
    studio.fault = lambda _: Answer(401)
    clock.now += 60
    titles.check()
    assert not titles.is_gone(99, 64 + 60), "a look that failed tells nothing"
    assert titles.is_gone(99, 3600)


def test_a_project_is_not_gone_where_the_clock_that_dates_it_is_a_minute_slow(
    server: LocalServer, clock: Clock
) -> None:
    """A job is dated by the machine that starts it, which need not be this one."""
    titles = made(server, clock)
    titles.check()
    clock.now += 5
    assert not titles.is_gone(99, 4 + 59), "it was made since, a minute ago by its own clock"
    assert titles.is_gone(99, 5 + 61)


def test_titles_that_are_replaced_meanwhile_do_not_date_the_former_ones(
    studio: FakeStudio, server: LocalServer
) -> None:
    """A project that was made between the two reads would be gone."""
    now = [1000.0]
    meanwhile: list[Callable[[], object]] = []

    def clock() -> float:
        if meanwhile:
            meanwhile.pop()()
        return now[0]

    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    titles = ProjectTitles(client, clock)
    titles.check()
    now[0] = 1300
    studio.titles[13] = "Made at 1100"
    meanwhile.append(titles.check)
    assert titles.name(7) == "streets at night (7)"
    assert not titles.is_gone(13, 200)
    assert not meanwhile
    assert titles.name(13) == "Made at 1100 (13)"


def test_who_asks_whether_a_project_is_gone_has_the_projects_read_again(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    """A client that reads JSON names no project; it had the first answer for ever."""
    titles = made(server, clock)
    titles.check()
    clock.now += 3600
    del studio.titles[9]
    assert not titles.is_gone(9, 7200)
    titles.check()
    assert titles.is_gone(9, 7200)


def test_a_client_that_reads_jobs_alone_is_told_of_a_project_that_goes(
    studio: FakeStudio,
    server: LocalServer,
    make_backend: Callable[..., Backend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.jobs.project_titles._FRESH_FOR_S", 0.0)
    later = time.time() + 3600  # the job was made an hour ago
    monkeypatch.setattr("backend.web.pages.deleted_projects.time.time", lambda: later)
    backend = make_backend()
    backend.store.cancel(backend.store.start_job(9).id)

    def is_gone() -> bool:
        (job,) = backend.client.get("/jobs").get_json()["jobs"]
        return bool(job["project_gone"])

    backend.worker.start()
    wait_for(lambda: any("/api/projects" in asked.path for asked in server.asked))
    assert not is_gone()
    del studio.titles[9]
    wait_for(is_gone)


def test_whoever_asks_whether_a_project_is_known_has_the_titles_read_again(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    """Programs that read JSON would be shown a deleted project until somebody opens a page."""
    titles = made(server, clock)
    titles.check()
    assert titles.knows(9)
    del studio.titles[9]
    clock.now += 60
    titles.check()
    assert not titles.knows(9)


@pytest.mark.parametrize("count", [100, 101, 250])
def test_titles_are_read_of_more_projects_than_label_studio_lists_at_once(
    studio: FakeStudio, server: LocalServer, clock: Clock, count: int
) -> None:
    studio.titles = {each: f"Project of {each}" for each in range(7, 7 + count)}
    titles = made(server, clock)
    titles.check()
    assert len(titles.choices()) == count
    assert not any(titles.is_gone(each, 3600) for each in studio.titles)
    assert titles.is_gone(7 + count, 3600)
    assert len(server.asked) == -(-count // 100)


def test_of_more_projects_than_titles_are_read_none_is_called_gone(
    studio: FakeStudio, server: LocalServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.project_titles.MOST_TITLES", 4)
    titles = made(server, clock)
    titles.check()
    assert not titles.is_gone(99, 3600)
