"""People and programs see where annotators disagree, measure it anew, and have a view of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backend.agreement.agreement_report import (
    AgreementReport,
    AnnotatorFigures,
    Confusion,
    Dispute,
    DisputedLabel,
    LabelFigures,
)
from backend.agreement.agreement_store import AgreementStore
from backend.database.database import Database
from backend.settings import Settings
from tests.backend.agreement.shared_project import CONFIG
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.pages.browser import HERE, Dashboard, dashboard_and_services

AGREEMENT = "/projects/7/agreement"
EVIL = "<script>alert(1)</script>"
FIRST = Dispute(3, None, 2, 0.125, (DisputedLabel(EVIL, 0.5, None, 0.125),), "data:image/jpeg,a")
SECOND = replace(FIRST, task=4, item_index=1, people=3, disputed=0.0625, picture="")
REPORT = AgreementReport(
    *(40, 41, 85, 75.0, 0.0312),
    labels=(
        LabelFigures(EVIL, 9, 0.75, 0.875, 0.6543, 0.01),
        LabelFigures("tree", 10, 0.25, None, None, 0.02),
    ),
    confusions=(Confusion(EVIL, "tree", 0.125), Confusion("tree", "", 0.0625)),
    annotators=(AnnotatorFigures(5, EVIL, 40, 0.8125, 0.9), AnnotatorFigures(6, "", 2, 0.5, 0.25)),
    disputes=(FIRST, SECOND),
    dispute_count=400,
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
def store() -> AgreementStore:
    return AgreementStore(Database.from_settings(Settings()))


def test_the_page_shows_all_figures_and_how_many_pictures_they_are_of(
    dashboard: Dashboard, store: AgreementStore
) -> None:
    assert dashboard.page(AGREEMENT).all("article") == []
    store.keep(7, REPORT)
    page = dashboard.page(AGREEMENT)
    assert [each["id"] for each in page.all("article")] == ["picture-1", "picture-2"]
    assert [each["src"] for each in page.all("img")] == [FIRST.picture]
    text = " ".join(page.text.split())
    assert "People do not agree on 3.1 % of a picture's pixels, on average over 41" in text
    assert f"{EVIL}9 few75.0 %87.5 %1.0 %0.65" in text
    assert "tree1025.0 %–2.0 %–" in text
    assert f"{EVIL}tree12.5 % treenothing6.2 %" in text
    assert f"{EVIL}4081.2 %90.0 %" in text
    assert "User 62 few50.0 %25.0 %" in text
    assert "The picture cannot be read." in text
    assert "The first 2 of 400 pictures" in text
    assert "The first 1 of 7 tasks." in text
    links = [each["href"] or "" for each in page.all("a")]
    assert any(link.endswith("/projects/7/data?task=3") for link in links)


def test_nothing_to_compare_yet_is_said_without_figures_and_is_no_failure(
    studio: FakeStudio,
) -> None:
    with studio.served() as server:
        keys = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        with pytest.MonkeyPatch.context() as monkeypatch:
            dashboard, services = dashboard_and_services(monkeypatch, **keys)
        assert dashboard.post(AGREEMENT).status_code == 303
        assert services.agreement_runs.run_next()
        page = dashboard.page(AGREEMENT)
        assert "There is nothing to compare yet" in page.text
        assert "failed" not in page.text
        assert "None: all have painted the same" not in page.text
        assert [each for each in page.all("section") if each.get("id") == "labels"] == []
        told = json.loads(dashboard.client.get(f"{AGREEMENT}.json").data)
        assert (told["run"]["state"], told["run"]["reason"]) == ("done", "")
        assert (told["report"]["pictures"], told["report"]["disputed"]) == (0, None)
        refused = dashboard.client.post(f"{AGREEMENT}/view")
        assert refused.status_code == 400
        assert "nothing to compare yet" in json.loads(refused.data)["error"]


def test_a_program_has_the_same(dashboard: Dashboard, store: AgreementStore) -> None:
    client = dashboard.client
    asked = client.post(AGREEMENT)
    assert asked.status_code == 202
    assert json.loads(asked.data)["run"]["state"] == "queued"
    assert json.loads(asked.data)["report"] is None
    store.keep(7, REPORT)
    told = json.loads(client.get(f"{AGREEMENT}.json").data)
    assert told == json.loads(client.get(AGREEMENT).data)
    assert told["report"] == REPORT.to_json(pictures=False)


def test_pictures_are_left_out_while_a_measurement_waits_and_of_answers_to_actions(
    dashboard: Dashboard, store: AgreementStore
) -> None:
    store.keep(7, REPORT)
    view = json.loads(dashboard.client.post(f"{AGREEMENT}/view").data)
    assert "picture" not in view["report"]["disputes"][0]
    told = json.loads(dashboard.client.get(f"{AGREEMENT}.json").data)
    assert told["report"]["disputes"][0]["picture"] == FIRST.picture
    assert dashboard.post(AGREEMENT).status_code == 303
    page = dashboard.page(AGREEMENT)
    assert page.all("img") == []
    assert "when the new one is over" in page.text
    assert "cannot be read" not in page.text


def test_a_view_lists_the_disputed_tasks(
    dashboard: Dashboard, store: AgreementStore, studio: FakeStudio
) -> None:
    view = f"{AGREEMENT}/view"
    refused = dashboard.post(view)
    assert refused.status_code == 400
    assert b"not measured yet" in refused.data
    store.keep(7, replace(REPORT, disputes=()))
    assert dashboard.client.post(view).status_code == 400
    store.keep(7, REPORT)
    assert dashboard.post(view).status_code == 303
    (made,) = studio.tabs.values()
    assert made["title"] == "Disputed"
    assert made["filters"]["items"] == [
        {
            "filter": "filter:tasks:id",
            "operator": "in",
            "type": "Number",
            "value": {"min": 3, "max": 4},
        }
    ]


def test_another_site_may_not_ask(dashboard: Dashboard) -> None:
    for path in ("", "/view"):
        asked = dashboard.post(f"{AGREEMENT}{path}", None, Origin="http://evil.example")
        assert asked.status_code == 403


def test_without_a_token_the_page_says_what_is_missing() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    assert "LABEL_STUDIO_API_KEY" in dashboard.page(AGREEMENT).text
    assert dashboard.client.post(AGREEMENT, headers=HERE).status_code == 400


def test_who_watches_a_measurement_is_told_where_it_is_not_known(
    dashboard: Dashboard,
) -> None:
    assert dashboard.post(AGREEMENT).status_code == 303
    next_ = dashboard.page(AGREEMENT).next_page
    assert next_ == f"{AGREEMENT}?watching=1"
    assert "does not know what was at work here" not in dashboard.page(next_).text
    restarted = Dashboard()
    assert "does not know what was at work here" in restarted.page(next_).text
    assert "does not know what was at work here" not in restarted.page(AGREEMENT).text
