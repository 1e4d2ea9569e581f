"""A request is one line in the log, under its id."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.telemetry.logs import Facts
from tests.backend.web.requests_to_app import RED, make_app, predict_body


def test_a_request_is_one_line_with_its_id(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caplog.handler, "filters", [Facts()])
    caplog.set_level(logging.INFO, "backend")
    client = make_app().test_client()
    caplog.clear()
    response = client.post("/predict", json=predict_body(RED, {"id": 2, "data": {}}))
    records: list[Any] = caplog.records
    assert [record.getMessage().partition(":")[0] for record in records[-1:]] == ["POST /predict"]
    assert {record.facts["request"] for record in records} == {response.headers["X-Request-ID"]}
    assert sorted(record.facts["task"] for record in records[:-1]) == [1, 2]
    assert records[-1].facts["ms"] >= 0
    assert "task" not in records[-1].facts


def test_the_id_of_a_request_may_be_given(client: FlaskClient) -> None:
    given = client.get("/health", headers={"X-Request-ID": "proxy-7.1"})
    assert given.headers["X-Request-ID"] == "proxy-7.1"
    for bad in ("a b", "x" * 65, "é", '"', "a;b"):
        made = client.get("/health", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert made != bad
        assert len(made) == 12


def test_refusals_and_crashes_are_one_line_each(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.clear()
    caplog.set_level(logging.INFO, "backend")
    client.post("/predict", data=b"{")
    monkeypatch.setattr("backend.web.ml_backend.parse_predict", lambda *_: 1 / 0)
    client.post("/predict", json=predict_body(RED))
    refused, crashed = caplog.records
    assert refused.levelname == "WARNING"
    assert refused.getMessage().startswith("POST /predict: 400, Expected a body of JSON")
    assert (crashed.levelname, crashed.getMessage()) == ("ERROR", "POST /predict: 500")
    assert crashed.exc_info


def test_who_watches_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    client = make_app().test_client()
    caplog.clear()
    caplog.set_level(logging.INFO, "backend")
    for path in ("/health", "/ready", "/status", "/metrics", "/", "/jobs"):
        assert client.get(path).status_code == 200
    assert caplog.records == []
    client.get("/nowhere")
    assert len(caplog.records) == 1
