"""The application: its log of requests, and what it starts."""

import logging

import pytest
from flask.testing import FlaskClient

from backend.telemetry.logs import facts_of
from tests.backend.web.browser import RED, predict_body


def test_a_request_is_one_line_with_its_id(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, client: FlaskClient
) -> None:
    def keep(record: logging.LogRecord) -> bool:
        record.facts = facts_of(record)
        return True

    monkeypatch.setattr(caplog.handler, "filters", [keep])
    caplog.set_level(logging.INFO, "backend")
    caplog.clear()
    response = client.post("/predict", json=predict_body(RED, {"id": 2, "data": {}}))
    *tasks, last = (record.__dict__ for record in caplog.records)
    assert last["message"] == "POST /predict: 200"
    for each in (*tasks, last):
        assert each["facts"]["request"] == response.headers["X-Request-ID"]
    assert sorted(each["facts"]["task"] for each in tasks) == [1, 2]
    assert last["facts"]["ms"] >= 0
    assert "task" not in last["facts"]


def test_the_id_of_a_request_may_be_given(client: FlaskClient) -> None:
    given = client.get("/health", headers={"X-Request-ID": "proxy-7.1"})
    assert given.headers["X-Request-ID"] == "proxy-7.1"
    for bad in ("a b", "x" * 65, "é", '"', "a;b"):
        made = client.get("/health", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert (made != bad, len(made)) == (True, 12)


def test_who_watches_fills_no_log(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    caplog.set_level(logging.INFO, "backend")
    for path in ("/health", "/ready", "/status", "/metrics", "/", "/jobs"):
        assert client.get(path).status_code == 200
    assert caplog.records == []
    client.get("/nowhere")
    assert len(caplog.records) == 1
