"""People and programs ask for the tasks to correct next, see them, and have a view of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backend.database.database import Database
from backend.services import Services
from backend.settings import Settings
from backend.task_order.next_tasks import NextTask, NextTasks
from backend.task_order.next_tasks_store import NextTasksStore
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.pages.browser import HERE, Dashboard, Page, dashboard_and_services
from tests.backend.wording.scene_project import CONFIG

NEXT = "/projects/7/next-tasks"
EVIL = "<script>alert(1)</script>"
REPORT = NextTasks(
    *(2, (NextTask(4, "data:image/jpeg,a"), NextTask(3, "data:image/jpeg,b"))),
    *(4321, 12, 9, 5, 75.0),
    left_out={9: EVIL},
    left_out_count=7,
)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {3: {}, 4: {}})


@pytest.fixture
def dashboard(studio: FakeStudio) -> Iterator[Dashboard]:
    with studio.served() as server:
        yield Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)


@pytest.fixture
def store() -> NextTasksStore:
    return NextTasksStore(Database.from_settings(Settings()))


def test_the_page_shows_the_tasks_what_they_were_chosen_of_and_what_is_passed_over(
    dashboard: Dashboard, store: NextTasksStore
) -> None:
    page = dashboard.page(NEXT)
    assert page.all("figure") == []
    assert "for 20 tasks at most 400 pictures, for 100 at most 1" in page.text
    store.keep(7, REPORT)
    page = dashboard.page(NEXT)
    assert [each["id"] for each in page.all("figure")] == ["task-4", "task-3"]
    assert [each["src"] for each in page.all("img")] == ["data:image/jpeg,a", "data:image/jpeg,b"]
    text = " ".join(page.text.split())
    assert "of 4 321 tasks without an annotation or a draft: 12" in text
    assert "12 pictures looked at in 75 s, 9 near-duplicates passed over, 7 left out" in text
    assert "compared with 5 corrected pictures too" in text
    assert "The first 1 of 7 tasks." in text
    assert EVIL in text
    assert not [each for each in page.all("p") if each.get("id") == "shortage"]
    links = [each["href"] or "" for each in page.all("a")]
    assert any(link.endswith("/projects/7/data?task=3") for link in links)
    (count,) = [each for each in page.all("input") if each.get("name") == "count"]
    assert count["value"] == "2"


def test_the_page_says_why_there_are_fewer_and_what_they_were_not_compared_with(
    dashboard: Dashboard, store: NextTasksStore
) -> None:
    store.keep(7, replace(REPORT, asked=20, examples=0))
    text = " ".join(dashboard.page(NEXT).text.split())
    assert "tried, which is the most for 20 tasks. Ask again for others." in text
    assert "has learned from no picture yet" in text
    store.keep(7, NextTasks(20, (), 0, 0, 0, 0, 1.0))
    page = dashboard.page(NEXT)
    assert "Each task of the project has an annotation or a draft." in page.text
    assert "Label Tasks As Displayed" not in page.text


def test_a_program_has_the_same(dashboard: Dashboard, store: NextTasksStore) -> None:
    client = dashboard.client
    asked = client.post(NEXT, json={"count": 5})
    assert asked.status_code == 202
    told = json.loads(asked.data)
    assert (told["run"]["state"], told["run"]["count"], told["report"]) == ("queued", 5, None)
    store.keep(7, REPORT)
    told = json.loads(client.get(f"{NEXT}.json").data)
    assert told == json.loads(client.get(NEXT).data)
    assert told["report"] == REPORT.to_json(pictures=False), "while a choice waits"
    assert json.loads(client.post(f"{NEXT}/cancel").data)["run"]["ending"] is True


def test_tasks_are_chosen_by_the_worker_and_kept_for_all_processes(
    studio: FakeStudio, monkeypatch: pytest.MonkeyPatch, store: NextTasksStore
) -> None:
    with studio.served() as server:
        keys = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        dashboard, services = dashboard_and_services(monkeypatch, **keys)
        assert dashboard.post(NEXT, {"count": "5"}).status_code == 303
        with services.engine:
            assert services.next_tasks_runs.run_next()
        last = store.last(7)
        assert last is not None
        assert (last.report.asked, last.report.unlabeled, last.report.left_out_count) == (5, 2, 2)
        assert "There are no more" in Dashboard(**keys).page(NEXT).text


def test_the_worker_of_a_server_makes_choices() -> None:
    services = Services(Settings(label_studio_url="http://studio:8080", label_studio_api_key=TOKEN))  # type: ignore[arg-type]
    rounds = services.worker(services.predictor())._rounds
    assert services.next_tasks_runs.run_next in rounds.values()


@pytest.mark.parametrize("count", ["0", "101", "many", "1234567890"])
def test_a_refused_form_keeps_what_was_typed(dashboard: Dashboard, count: str) -> None:
    refused = dashboard.post(NEXT, {"count": count})
    assert refused.status_code == 400
    page = Page(refused)
    assert 'Expected "count" to be' in page.text
    (field,) = [each for each in page.all("input") if each.get("name") == "count"]
    assert field["value"] == count
    assert dashboard.client.post(NEXT, json={"count": count}).status_code == 400
    assert json.loads(dashboard.client.get(NEXT).data)["run"] is None


def test_a_choice_at_work_shows_how_far_it_is_and_is_cancelled(
    dashboard: Dashboard, store: NextTasksStore
) -> None:
    store.keep(7, REPORT)
    assert dashboard.post(NEXT, {"count": "5"}).status_code == 303
    page = dashboard.page(NEXT)
    assert page.next_page == f"{NEXT}?watching=1"
    assert page.all("img") == []
    assert [each for each in page.all("input") if each.get("name") == "count"] == []
    busy = dashboard.post(NEXT, {"count": "6"})
    assert busy.status_code == 429
    assert dashboard.post(f"{NEXT}/cancel").status_code == 303
    assert "It is being cancelled." in dashboard.page(NEXT).text


def test_a_view_lists_the_tasks(
    dashboard: Dashboard, store: NextTasksStore, studio: FakeStudio
) -> None:
    view = f"{NEXT}/view"
    refused = dashboard.post(view)
    assert refused.status_code == 400
    assert b"No tasks were chosen yet." in refused.data
    store.keep(7, replace(REPORT, tasks=()))
    assert dashboard.client.post(view).status_code == 400
    store.keep(7, REPORT)
    assert dashboard.post(view).status_code == 303
    (made,) = studio.tabs.values()
    assert made["title"] == "Next tasks"
    assert made["filters"]["items"] == [
        {
            "filter": "filter:tasks:id",
            "operator": "in",
            "type": "Number",
            "value": {"min": 3, "max": 4},
        }
    ]


def test_another_site_may_not_ask(dashboard: Dashboard) -> None:
    for path in ("", "/view", "/cancel"):
        asked = dashboard.post(f"{NEXT}{path}", {"count": "5"}, Origin="http://evil.example")
        assert asked.status_code == 403


def test_without_a_token_the_page_says_what_is_missing() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    assert "LABEL_STUDIO_API_KEY" in dashboard.page(NEXT).text
    asked = dashboard.client.post(NEXT, headers=HERE)
    assert asked.status_code == 400
    assert "LABEL_STUDIO_API_KEY" in json.loads(asked.data)["error"]


def test_who_watches_a_choice_is_told_where_it_is_not_known(dashboard: Dashboard) -> None:
    assert dashboard.post(NEXT, {"count": "5"}).status_code == 303
    next_ = dashboard.page(NEXT).next_page
    assert "does not know what was at work here" not in dashboard.page(next_).text
    restarted = Dashboard()
    assert "does not know what was at work here" in restarted.page(next_).text
    assert "does not know what was at work here" not in restarted.page(NEXT).text
