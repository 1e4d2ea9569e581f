"""The page of the acceptance gate: what people see and ask, and the same for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from backend.feedback.annotation_store import AnnotationStore
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.feedback.gate.gate_scene import (
    AUDIT_SHARE,
    AUDITED,
    PASSING,
    VERSION,
    correct,
    correct_many,
    unannotated_studio,
)
from tests.backend.web.pages.browser import PEOPLE, Dashboard, Page, dashboard_and_services

GATE = "/projects/7/gate"
LISTED = PASSING - AUDITED


@pytest.fixture
def studio() -> FakeStudio:
    return unannotated_studio()


@pytest.fixture
def dashboard(studio: FakeStudio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    with studio.served() as server:
        dashboard, services = dashboard_and_services(
            monkeypatch,
            label_studio_url=server.url,
            label_studio_api_key=TOKEN,
            gate_audit_share=AUDIT_SHARE,
        )
        dashboard.run_next = services.gate_runs.run_next  # type: ignore[attr-defined]
        yield dashboard


@pytest.fixture
def annotations(dashboard: Dashboard) -> AnnotationStore:
    return AnnotationStore(dashboard.store.database, "me")


def ask(dashboard: Dashboard, action: str) -> Page:
    """Press a button, and let it be done."""
    response = dashboard.post(f"{GATE}/{action}", {"version": VERSION})
    assert response.status_code == 303
    assert dashboard.run_next()  # type: ignore[attr-defined]
    return dashboard.page(response.headers["Location"])


def buttons(page: Page) -> set[str | None]:
    return {each.get("id") for each in page.all("button")}


def test_without_corrections_the_page_says_what_is_missing(dashboard: Dashboard) -> None:
    page = dashboard.page(GATE)
    assert "There are too few corrected pictures yet." in page.text
    assert "made anew at 200 corrected tasks" in page.text
    assert buttons(page) == set()


def test_people_find_show_accept_and_withdraw(
    dashboard: Dashboard, studio: FakeStudio, annotations: AnnotationStore
) -> None:
    correct_many(annotations)
    page = dashboard.page(GATE)
    assert "at least 95 % need no change at all, with a confidence of 95 %" in page.text
    assert buttons(page) == {"find"}
    page = ask(dashboard, "find")
    assert f"Passed: {len(LISTED)} tasks. To be audited: {len(AUDITED)} more." in page.text
    assert buttons(page) == {"find", "show", "accept"}
    links = {each["href"] for each in page.all("a")}
    assert any(str(link).endswith(f"task={min(LISTED)}") for link in links)
    ask(dashboard, "show")
    assert len(studio.tabs) == 2
    assert not studio.annotations, "nothing without asking"
    page = ask(dashboard, "accept")
    assert f"{len(LISTED)} tasks annotated by the gate, 0 left" in page.text
    assert {each["task"] for each in studio.annotations.values()} == LISTED
    for annotation in studio.annotations.values():
        annotation["lead_time"] = None
    page = ask(dashboard, "withdraw")
    assert not studio.annotations
    assert "accept" in buttons(page)


def test_what_is_accepted_can_be_withdrawn_when_the_corrections_are_gone(
    dashboard: Dashboard, studio: FakeStudio, annotations: AnnotationStore
) -> None:
    correct_many(annotations)
    for action in ("find", "accept"):
        ask(dashboard, action)
    annotations.mark(7, range(1_000_001, 1_000_401))
    for pending in annotations.lease(400):
        assert annotations.discard(pending)
    for annotation in studio.annotations.values():
        annotation["lead_time"] = None
    assert "withdraw" in buttons(dashboard.page(GATE))
    ask(dashboard, "withdraw")
    assert not studio.annotations


def test_a_program_has_the_same_figures(dashboard: Dashboard, annotations: AnnotationStore) -> None:
    client = dashboard.client
    assert client.post(f"{GATE}/accept", json={}).status_code == 409
    assert json.loads(client.get(GATE).data)["promise"] is None, "it is not open"
    correct_many(annotations)
    told = json.loads(client.get(GATE).data)
    assert told == json.loads(client.get(f"{GATE}.json").data)
    assert (told["state"], told["version"], told["run"]) == ("open", VERSION, None)
    assert "at least 95 %" in told["promise"]
    assert told["gate"]["changed"] <= 0.05 * told["gate"]["passed"]
    assert [each["label"] for each in told["gate"]["labels"]] == ["red"]
    assert client.post(f"{GATE}/find", json={"version": VERSION}).status_code == 202
    assert client.post(f"{GATE}/find", json={}).status_code == 429, "one at a time"
    assert dashboard.run_next()  # type: ignore[attr-defined]
    told = json.loads(client.get(GATE).data)
    assert set(told["task_ids"]["listed"]) == LISTED
    assert told["run"]["state"] == "done"


def test_a_closed_gate_says_so_and_is_opened_by_a_person(
    dashboard: Dashboard, annotations: AnnotationStore
) -> None:
    correct_many(annotations)
    ask(dashboard, "find")
    for task in sorted(AUDITED)[:9]:
        correct(annotations, task, 0.9, kept=False, created=time.time())
    page = dashboard.page(GATE)
    assert "Its audit has closed it" in page.text
    assert "9 of 9 audited tasks did." in page.text
    assert "accept" not in buttons(page)
    found = ask(dashboard, "find")  # the annotated ones are gone from the lists, not from the audit
    assert "9 of 9 audited tasks did." in found.text
    with dashboard.store.database.write() as connection:  # as where the gate was made anew since
        connection.execute(text("UPDATE gates SET since = since + 1000"))
    page = dashboard.page(GATE)
    assert "Its audit has closed it" in page.text
    assert "audited tasks did" not in page.text
    assert "clearclip_gates_closed 1.0" in dashboard.client.get("/metrics").text
    refused = dashboard.post(f"{GATE}/accept", {"version": VERSION})
    assert refused.status_code == 409
    assert "lets nothing pass" in Page(refused).text
    assert dashboard.post(f"{GATE}/reopen", {"version": VERSION}).status_code == 303
    assert "clearclip_gates_closed 0.0" in dashboard.client.get("/metrics").text


@pytest.mark.parametrize("body", [{"version": 3}, {"task": 1}])
def test_bodies_with_something_else_are_refused(dashboard: Dashboard, body: Any) -> None:
    assert dashboard.client.post(f"{GATE}/find", json=body).status_code == 400


def test_a_version_that_nobody_has_corrected_is_refused(dashboard: Dashboard) -> None:
    for version in ("other", "\0"):
        response = dashboard.client.get(GATE, query_string={"version": version})
        assert response.status_code == 400


def test_forms_of_other_sites_are_refused(dashboard: Dashboard) -> None:
    response = dashboard.post(f"{GATE}/accept", None, Origin="http://evil.example")
    assert response.status_code == 403


def test_who_watches_a_run_is_told_where_it_is_not_known(
    dashboard: Dashboard, annotations: AnnotationStore
) -> None:
    correct_many(annotations)
    response = dashboard.post(f"{GATE}/find", {"version": VERSION})
    next_ = dashboard.page(response.headers["Location"]).next_page
    assert next_.endswith("&watching=1")
    restarted = Dashboard()
    told = restarted.page(next_)
    assert "does not know what was at work here" in told.text
    assert "another backend behind this address" in told.text, "which may be at it for hours"
    assert not told.next_page
    assert (
        "does not know what was at work here"
        not in restarted.page(response.headers["Location"]).text
    )
    assert dashboard.run_next()  # type: ignore[attr-defined]
    over = dashboard.client.get(next_, headers=PEOPLE)
    assert (over.status_code, over.headers["Location"]) == (303, response.headers["Location"])
