"""Which projects there are, against a stand-in for Label Studio's API.

The real one: `tests/e2e/test_dashboard.py`.
"""

from __future__ import annotations

import pytest

from backend.errors import StudioUnreachable
from backend.jobs.connection_watch import ProjectTitles
from backend.label_studio.client import LabelStudioClient
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer


@pytest.fixture
def studio() -> FakeStudio:
    titles = {7: "streets at night", 9: "Kitchens", 8: "Streets", 12: ""}
    return FakeStudio(brush_config("red"), {}, titles=titles)


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


def test_a_project_is_gone_where_the_titles_lack_it(server: LocalServer, clock: Clock) -> None:
    titles = made(server, clock)
    assert not titles.is_gone(99), "nothing is known yet"
    titles.check()
    assert titles.is_gone(99)
    assert not titles.is_gone(7)


@pytest.mark.parametrize("count", [100, 250])
def test_titles_are_read_of_more_projects_than_label_studio_lists_at_once(
    studio: FakeStudio, server: LocalServer, clock: Clock, count: int
) -> None:
    studio.titles = {each: f"Project of {each}" for each in range(7, 7 + count)}
    titles = made(server, clock)
    titles.check()
    assert len(titles.choices()) == count
    assert not any(titles.is_gone(each) for each in studio.titles)
    assert titles.is_gone(7 + count)
    assert len(server.asked) == -(-count // 100)


def test_of_more_projects_than_titles_are_read_none_is_called_gone(
    studio: FakeStudio, server: LocalServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.connection_watch.MOST_TITLES", 4)
    titles = made(server, clock)
    titles.check()
    assert not titles.is_gone(99)
