"""Every failure is one sentence and one line of the log; a browser gets a page with it."""

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.label_studio import connection
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.web.browser import PEOPLE, RED, Page, error_of, make_app, predict_body


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/jobs/999", 404, "There is no job 999."),
        ("/nope", 404, "Not Found: GET /nope"),
        ("/predict", 405, "Method Not Allowed: GET /predict"),
    ],
)
def test_a_program_gets_json_and_a_person_a_page_that_leads_back(
    client: FlaskClient, path: str, status: int, sentence: str
) -> None:
    told, shown = client.get(path), client.get(path, headers=PEOPLE)
    assert (told.status_code, shown.status_code) == (status, status)
    assert error_of(told) == sentence
    page = Page(shown)
    assert sentence in page.text
    assert [link["href"] for link in page.all("a")] == ["/"]


def test_what_a_busy_label_studio_has_not_told_is_503_for_programs_and_asked_again_by_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "PAGE_WAIT_S", 0.5)
    over = threading.Event()
    with LocalServer(lambda _: Answer(500 if over.wait(60) else 504)) as busy:
        client = make_app(label_studio_url=busy.url, label_studio_api_key=TOKEN).test_client()
        told = client.get("/projects/7")
        shown = client.get("/projects/7", headers=PEOPLE)
        over.set()
    assert (told.status_code, told.headers["Retry-After"]) == (503, "5")
    assert "Label Studio at" in Page(shown).text
    assert "is busy" in Page(shown).text
    assert b"location.reload()" in shown.data


def test_a_database_that_another_program_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backend.database.database._LOCK_TIMEOUT_S", 0.1)
    studio = {"label_studio_url": "http://studio.internal", "label_studio_api_key": "0" * 40}
    file = tmp_path / "a.db"
    client = make_app(database_url=f"sqlite:///{file}", **studio).test_client()
    assert client.post("/jobs", json={"project": 7}).status_code == 201
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        response = client.post("/jobs", json={"project": 8})
        other.execute("ROLLBACK")
    assert response.status_code == 503
    said = "The database cannot be used now (database is locked): try again once that is over."
    assert error_of(response) == said
    assert int(response.headers["Retry-After"]) > 0
    assert not any(record.exc_info for record in caplog.records)
    assert client.post("/jobs", json={"project": 8}).status_code == 201


def test_refusals_and_crashes_are_one_line_each_and_show_no_traceback(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.clear()
    caplog.set_level(logging.INFO, "backend")
    client.post("/predict", data=b"{")
    monkeypatch.setattr("backend.web.ml_backend.parse_predict", lambda *_: 1 / 0)
    response: Any = client.post("/predict", json=predict_body(RED))
    assert response.status_code == 500
    assert error_of(response) == "Unexpected ZeroDivisionError: see the backend's log."
    assert response.headers["X-Frame-Options"] == "DENY"
    refused, crashed = caplog.records
    assert refused.levelname == "WARNING"
    assert refused.getMessage().startswith("POST /predict: 400, Expected a body of JSON")
    assert (crashed.levelname, crashed.getMessage()) == ("ERROR", "POST /predict: 500")
    assert crashed.exc_info
