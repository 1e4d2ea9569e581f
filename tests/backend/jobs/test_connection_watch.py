"""Whether the token is accepted, and projects, by a stand-in; e2e/test_dashboard: the real one."""

import pytest

from backend.errors import StudioUnreachable
from backend.jobs.connection_watch import ConnectionWatch
from backend.label_studio.client import LabelStudioClient
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer


@pytest.fixture
def studio() -> FakeStudio:
    titles = {7: "streets at night", 9: "Kitchens", 8: "Streets", 12: ""}
    return FakeStudio(brush_config("red"), {}, titles=titles)


@pytest.fixture
def watch(server: LocalServer, clock: Clock) -> ConnectionWatch:
    return ConnectionWatch(LabelStudioClient(server.url, TOKEN, retry_for_s=0), clock)


def count_asked(server: LocalServer, path: str) -> int:
    return sum(each.path.startswith(path) for each in server.asked)


def test_a_token_is_tried_every_five_minutes_and_said_once_where_it_is_refused(
    watch: ConnectionWatch,
    studio: FakeStudio,
    server: LocalServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(60):
        watch.check()
        clock.now += 10
    assert watch.trouble == ""
    assert count_asked(server, "/api/current-user/whoami") == 2
    studio.fault = lambda _: Answer(503)
    watch.check()
    assert "HTTP 503" in watch.trouble
    assert "token" not in watch.trouble
    assert "ERROR" not in caplog.text, "it may be starting, as with Compose"
    clock.now += 31
    studio.fault, studio.token = (lambda _: None), "cd" * 20
    for _ in range(4):
        watch.check()
        clock.now += 31
    assert "refuses the token of this backend (HTTP 401)" in watch.trouble
    assert "Set LABEL_STUDIO_API_KEY" in watch.trouble
    told = [each.levelname for each in caplog.records if "refuses the token" in each.message]
    assert told == ["ERROR"]
    assert TOKEN not in caplog.text
    studio.token = TOKEN
    watch.check()
    assert watch.trouble == ""


def test_a_project_that_is_new_has_its_title_at_once(
    watch: ConnectionWatch, studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    watch.check()
    studio.titles[13] = "Fields"
    assert watch.project_name(13) == "Fields (13)"
    asked = count_asked(server, "/api/projects/")
    assert watch.project_name(14) == "Project 14"
    assert count_asked(server, "/api/projects/") == asked, "not for each name of a page"
    clock.now += 60
    studio.fault = lambda _: Answer(503)
    assert watch.project_name(14) == "Project 14"


def test_without_a_token_nothing_is_tried() -> None:
    watch = ConnectionWatch(None)
    watch.check()
    assert (watch.trouble, watch.project_choices()) == ("", [])


def test_projects_are_named_by_title_and_number(
    watch: ConnectionWatch, studio: FakeStudio, clock: Clock
) -> None:
    studio.fault = lambda _: Answer(401)
    watch.check()
    assert watch.project_name(7) == "Project 7", "nothing waits for Label Studio"
    clock.now += 60
    studio.fault = lambda _: Answer(503)
    with pytest.raises(StudioUnreachable):
        watch.check()
    assert (watch.project_choices(), watch.is_gone(99)) == ([], False)
    clock.now += 60
    studio.fault = lambda _: None
    watch.check()
    assert watch.project_name(7) == "streets at night (7)"
    assert (watch.project_name(12), watch.project_name(99)) == ("Project 12", "Project 99")
    assert watch.project_choices() == [
        (12, "Project 12"),
        (9, "Kitchens (9)"),
        (8, "Streets (8)"),
        (7, "streets at night (7)"),
    ]


def test_titles_are_read_again_only_while_somebody_looks(
    watch: ConnectionWatch, studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    watch.check()
    assert count_asked(server, "/api/projects") == 1, "at the start"
    clock.now += 3600
    watch.check()
    assert count_asked(server, "/api/projects") == 1
    studio.titles[7] = "Renamed"
    assert watch.project_name(7) == "streets at night (7)"
    watch.check()
    assert (watch.project_name(7), count_asked(server, "/api/projects")) == ("Renamed (7)", 2)
    watch.check()
    assert count_asked(server, "/api/projects") == 2, "not at each look"


@pytest.mark.parametrize(("count", "most"), [(100, 1000), (250, 1000), (250, 250)])
def test_titles_of_more_than_a_page_are_read_and_of_too_many_none_is_called_gone(
    watch: ConnectionWatch,
    studio: FakeStudio,
    server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    most: int,
) -> None:
    monkeypatch.setattr("backend.jobs.connection_watch.MOST_TITLES", most)
    studio.titles = {each: f"Project of {each}" for each in range(7, 7 + count)}
    watch.check()
    assert len(watch.project_choices()) == count
    assert not any(watch.is_gone(each) for each in studio.titles)
    assert watch.is_gone(7 + count) == (count < most)
    assert count_asked(server, "/api/projects") == -(-count // 100)
