"""Every failure is one sentence, in JSON; a browser gets a page with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.backend.web.pages.browser import PEOPLE, Page
from tests.backend.web.requests_to_app import RED, error_of, make_app, predict_body


def test_unknown_routes_and_methods_are_json_too(client: FlaskClient) -> None:
    assert client.get("/nope").status_code == 404
    assert client.get("/predict").status_code == 405
    error_of(client.get("/nope"))


def test_a_person_gets_a_page_that_leads_back(client: FlaskClient) -> None:
    told = {"/jobs/999": "There is no job 999.", "/nope": "Not Found: GET /nope"}
    for path, sentence in told.items():
        response = client.get(path, headers=PEOPLE)
        assert response.status_code == 404
        page = Page(response)
        assert sentence in page.text
        assert "/" in [link["href"] for link in page.all("a")]
        assert error_of(client.get(path)) == sentence


def test_an_unexpected_error_shows_no_traceback(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.web.ml_backend.parse_predict", lambda *_: 1 / 0)
    response = client.post("/predict", json=predict_body(RED))
    assert response.status_code == 500
    assert error_of(response) == "Unexpected ZeroDivisionError: see the backend's log."


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
    said = "The database is locked by another program: try again once that is over."
    assert error_of(response) == said
    assert int(response.headers["Retry-After"]) > 0
    assert not any(record.exc_info for record in caplog.records)
    assert client.post("/jobs", json={"project": 8}).status_code == 201
