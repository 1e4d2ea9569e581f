"""People and programs see what is suspicious, confirm it, and have a view of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backend.database.database import Database
from backend.feedback.learning.versions import TrainingExample
from backend.label_errors.review_report import ReviewReport, Suspicion
from backend.label_errors.review_store import ReviewStore
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.pages.browser import HERE, Dashboard, Page
from tests.backend.web.pages.test_learning import stores_of
from tests.backend.wording.scene_project import CONFIG

ERRORS = "/projects/7/label-errors"
EVIL = "<script>alert(1)</script>"
FIRST = Suspicion(
    3, 12, 5.25, None, "label", EVIL, "tree", 2.5, True, "data:image/jpeg;base64,AA", "data:b"
)
SECOND = replace(FIRST, task=4, annotation=13, kind="missing", label="", is_set_aside=False)
REPORT = ReviewReport(40, 30, 75.0, (FIRST, SECOND), {9: EVIL}, 1, 13, 9)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {3: {}, 4: {}})


@pytest.fixture
def dashboard(studio: FakeStudio) -> Iterator[Dashboard]:
    with studio.served() as server:
        yield Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)


@pytest.fixture
def store() -> ReviewStore:
    return ReviewStore(Database.from_settings(Settings()))


def ids(page: Page) -> list[str | None]:
    return [each.get("id") for each in page.all("article")]


def test_the_most_suspicious_comes_first_with_both_pictures(
    dashboard: Dashboard, store: ReviewStore
) -> None:
    assert ids(dashboard.page(ERRORS)) == []
    store.keep(7, REPORT)
    page = dashboard.page(ERRORS)
    assert ids(page) == ["annotation-12-1", "annotation-13-2"]
    assert [each["src"] for each in page.all("img")] == [FIRST.preview, FIRST.suggestion] * 2
    assert "Painted “<script>alert(1)</script>”, but it looks like “tree”" in page.text
    assert ": 13 annotations of 9 pictures in 75 s, with scores learned" in page.text
    assert page.text.count("learning sets it aside") == 1
    links = [each["href"] or "" for each in page.all("a")]
    assert any(link.endswith("/projects/7/data?task=3") for link in links)


def test_a_review_from_before_pictures_were_counted_tells_no_number(
    dashboard: Dashboard, store: ReviewStore
) -> None:
    store.keep(7, replace(REPORT, annotations=None, pictures=None))
    page = dashboard.page(ERRORS)
    assert re.search(r"Last review [^:]+: 75 s, with scores learned from", page.text)


def test_what_is_confirmed_leaves_the_list_and_comes_back(
    dashboard: Dashboard, store: ReviewStore
) -> None:
    store.keep(7, REPORT)
    answered = dashboard.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "5.25"})
    assert answered.status_code == 303
    page = dashboard.page(ERRORS)
    assert ids(page) == ["annotation-13-1"]
    assert "Confirmed as right" in page.text
    dashboard.post(f"{ERRORS}/take-back", {"annotation": "12"})
    assert ids(dashboard.page(ERRORS)) == ["annotation-12-1", "annotation-13-2"]


def test_long_lists_are_cut_and_counted(
    dashboard: Dashboard, store: ReviewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep(7, replace(REPORT, left_out_count=400))
    text = dashboard.page(ERRORS).text
    assert "The first 1 of 400 tasks." in text
    assert "Shown are" not in text
    monkeypatch.setattr("backend.web.pages.label_errors._MOST_CONFIRMED", 3)
    store.confirm(7, 12, 5.25)
    for number in range(20, 25):
        store.confirm(7, number, number + 0.5)
    told = json.loads(dashboard.client.get(ERRORS).data)
    assert [each["annotation"] for each in told["confirmed"]] == [12, 24, 23]
    assert told["confirmed_count"] == 6
    assert "Shown are 3 of 6" in dashboard.page(ERRORS).text


def test_an_annotation_of_several_pictures_is_confirmed_as_a_whole(
    dashboard: Dashboard, store: ReviewStore
) -> None:
    pages = [replace(FIRST, item_index=index) for index in (0, 2)]
    store.keep(7, replace(REPORT, suspicions=(*pages, SECOND)))
    page = dashboard.page(ERRORS)
    assert ids(page) == ["annotation-12-1", "annotation-12-2", "annotation-13-3"]
    assert page.text.count("The whole annotation is right") == 2
    assert page.text.count("This is right") == 1
    dashboard.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "5.25"})
    assert ids(dashboard.page(ERRORS)) == ["annotation-13-1"]


def test_a_version_that_was_not_reviewed_is_not_confirmed(
    dashboard: Dashboard, store: ReviewStore
) -> None:
    for body in ({"annotation": 12, "updated": 4.0}, {"annotation": 14, "updated": 5.25}, {}):
        assert dashboard.client.post(f"{ERRORS}/confirm", json=body).status_code == 400
    store.keep(7, REPORT)
    refused = dashboard.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "4"})
    assert refused.status_code == 400
    assert "load the page again" in Page(refused).text
    for updated in ("soon", [5.25], 10**400, float("inf"), float("nan"), "nan"):
        wrong = {"annotation": 12, "updated": updated}
        refused = dashboard.client.post(f"{ERRORS}/confirm", json=wrong)
        assert refused.status_code == 400
        assert "time in seconds" in json.loads(refused.data)["error"]
    assert store.confirmed(7) == {}


def test_learning_trusts_what_is_confirmed(dashboard: Dashboard, store: ReviewStore) -> None:
    store.keep(7, REPORT)
    stores_of().examples.replace(12, 7, [TrainingExample("a", b"", "{}")])
    body = {"annotation": 12, "updated": 5.25}
    for action, trusted in (("confirm", [12]), ("take-back", [])):
        assert dashboard.client.post(f"{ERRORS}/{action}", json=body).status_code == 200
        assert stores_of().examples.trusted(7) == trusted
    other = {"annotation": 13, "updated": 5.25}
    assert dashboard.client.post(f"{ERRORS}/confirm", json=other).status_code == 200
    assert stores_of().examples.trusted(7) == [], "nothing is learned from it"


def test_a_program_has_the_same(dashboard: Dashboard, store: ReviewStore) -> None:
    client = dashboard.client
    asked = client.post(ERRORS)
    assert asked.status_code == 202
    assert json.loads(asked.data)["run"]["state"] == "queued"
    store.keep(7, REPORT)
    told = json.loads(client.get(ERRORS).data)
    assert [each["rank"] for each in told["report"]["suspicions"]] == [1, 2]
    assert told["report"]["suspicions"][0]["kind"] == "label"
    confirmed = client.post(f"{ERRORS}/confirm", json={"annotation": 12, "updated": 5.25})
    left = json.loads(confirmed.data)
    assert [each["annotation"] for each in left["report"]["suspicions"]] == [13]
    assert left["confirmed"] == [{"annotation": 12, "updated": 5.25, "task": None}]
    assert left["confirmed_count"] == 1


def test_pictures_are_left_out_while_a_review_waits_and_of_answers_to_actions(
    dashboard: Dashboard, store: ReviewStore
) -> None:
    store.keep(7, REPORT)
    view = json.loads(dashboard.client.post(f"{ERRORS}/view").data)
    assert "preview" not in view["report"]["suspicions"][0]
    (first, _) = json.loads(dashboard.client.get(ERRORS).data)["report"]["suspicions"]
    assert (first["preview"], first["suggestion"]) == (FIRST.preview, FIRST.suggestion)
    assert "when the new one is over" not in dashboard.page(ERRORS).text
    dashboard.client.post(ERRORS)
    page = dashboard.page(ERRORS)
    assert len(ids(page)) == 2
    assert page.all("img") == []
    assert "when the new one is over" in page.text
    assert "changed while" not in page.text
    (first, _) = json.loads(dashboard.client.get(ERRORS).data)["report"]["suspicions"]
    assert "preview" not in first


def test_a_view_lists_what_is_suspicious_and_is_replaced(
    dashboard: Dashboard, store: ReviewStore, studio: FakeStudio
) -> None:
    view = f"{ERRORS}/view"
    assert dashboard.client.post(view).status_code == 400
    studio.tabs[99] = {"title": "Default"}
    store.keep(7, REPORT)
    assert dashboard.post(view).status_code == 303
    dashboard.client.post(f"{ERRORS}/confirm", json={"annotation": 12, "updated": 5.25})
    assert dashboard.client.post(view).status_code == 200
    default, made = studio.tabs.values()
    assert default == {"title": "Default"}
    assert made["title"] == "Label errors"
    (item,) = made["filters"]["items"]
    assert (item["filter"], item["operator"], item["value"]) == (
        "filter:tasks:annotations_ids",
        "contains",
        "13",
    )


def test_another_site_may_not_ask(dashboard: Dashboard) -> None:
    for path in ("", "/confirm", "/take-back", "/view"):
        asked = dashboard.post(f"{ERRORS}{path}", None, Origin="http://evil.example")
        assert asked.status_code == 403


def test_without_a_token_the_page_says_what_is_missing() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    assert "LABEL_STUDIO_API_KEY" in dashboard.page(ERRORS).text
    assert dashboard.client.post(ERRORS, headers=HERE).status_code == 400


def test_who_watches_a_review_is_told_where_it_is_not_known(dashboard: Dashboard) -> None:
    assert dashboard.post(ERRORS).status_code == 303
    next_ = dashboard.page(ERRORS).next_page
    assert next_ == f"{ERRORS}?watching=1"
    assert "does not know what was at work here" not in dashboard.page(next_).text
    restarted = Dashboard()
    assert "does not know what was at work here" in restarted.page(next_).text
    assert "does not know what was at work here" not in restarted.page(ERRORS).text
