"""What people confirm as right leaves the list of label errors, until it is changed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from backend.database.database import Database
from backend.runs.label_errors import LABEL_ERRORS, ConfirmedAnnotations, LabelErrors
from backend.runs.run import AskedNothing
from backend.runs.run_store import RunStore
from backend.settings import Settings
from tests.backend.runs import samples
from tests.backend.runs.samples import SUSPICION
from tests.backend.web.browser import Dashboard, Page

ERRORS = "/projects/7/label-errors"


def keep(report: LabelErrors = samples.LABEL_ERRORS) -> None:
    store = RunStore(Database.from_settings(Settings()))
    store.add_done(LABEL_ERRORS, 7, AskedNothing(), report, 1.0)


def ids(page: Page) -> list[str | None]:
    return [each.get("id") for each in page.all("article")]


def test_what_is_confirmed_leaves_the_list_and_comes_back(dashboard: Dashboard) -> None:
    keep()
    assert ids(dashboard.page(ERRORS)) == ["annotation-12-1", "annotation-13-2"]
    answered = dashboard.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "5.25"})
    assert answered.status_code == 303
    page = dashboard.page(ERRORS)
    assert ids(page) == ["annotation-13-1"]
    assert "Confirmed as right" in page.text
    dashboard.post(f"{ERRORS}/take-back", {"annotation": "12"})
    assert ids(dashboard.page(ERRORS)) == ["annotation-12-1", "annotation-13-2"]


def test_an_annotation_of_several_pictures_is_confirmed_as_a_whole(dashboard: Dashboard) -> None:
    pages = [msgspec.structs.replace(SUSPICION, item_index=index) for index in (0, 2)]
    keep(msgspec.structs.replace(samples.LABEL_ERRORS, suspicions=(*pages,)))
    page = dashboard.page(ERRORS)
    assert ids(page) == ["annotation-12-1", "annotation-12-2"]
    assert page.text.count("The whole annotation is right") == 2
    dashboard.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "5.25"})
    assert "None is left." in dashboard.page(ERRORS).text


def test_long_lists_are_cut_and_counted(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep()
    assert "The first 1 of 7 tasks." in dashboard.page(ERRORS).text
    monkeypatch.setattr("backend.web.pages.runs._MOST_CONFIRMED", 3)
    confirmed = ConfirmedAnnotations(Database.from_settings(Settings()))
    confirmed.confirm(7, 12, 5.25)
    for number in range(20, 25):
        confirmed.confirm(7, number, number + 0.5)
    told = json.loads(dashboard.client.get(ERRORS).data)
    assert [each["annotation"] for each in told["confirmed"]] == [12, 24, 23]
    assert told["confirmed_count"] == 6
    assert "Shown are 3 of 6" in dashboard.page(ERRORS).text


def test_a_version_that_was_not_compared_is_not_confirmed(dashboard: Dashboard) -> None:
    for body in ({"annotation": 12, "updated": 4.0}, {"annotation": 14, "updated": 5.25}, {}):
        assert dashboard.client.post(f"{ERRORS}/confirm", json=body).status_code == 400
    keep()
    refused = dashboard.post(f"{ERRORS}/confirm", {"annotation": "12", "updated": "4"})
    assert refused.status_code == 400
    assert "load the page again" in Page(refused).text
    for updated in ("soon", [5.25], 10**400, float("inf"), float("nan"), "nan"):
        wrong = {"annotation": 12, "updated": updated}
        refused = dashboard.client.post(f"{ERRORS}/confirm", json=wrong)
        assert refused.status_code == 400
    assert json.loads(dashboard.client.get(ERRORS).data)["confirmed"] == []


def test_clicks_at_the_same_time_do_not_fail(url: str) -> None:
    stores = [ConfirmedAnnotations(Database(url)) for _ in range(4)]
    assert stores[0].of(7) == {}
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(lambda store: store.confirm(7, 12, 5.25), stores * 10))
    assert stores[0].of(7) == {12: 5.25}
    other = msgspec.structs.replace(samples.LABEL_ERRORS, suspicions=(SUSPICION,))
    assert other.without({12: 6.0}) == other, "another version of it"
