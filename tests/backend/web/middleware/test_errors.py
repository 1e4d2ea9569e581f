"""Every failure is one sentence, in JSON."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.backend.fakes.colour_segmenter import (
    brush_config,
)
from tests.backend.web.requests_to_app import RED, error_of, failing_engine, make_app, predict_body


def test_unknown_routes_and_methods_are_json_too(client: FlaskClient) -> None:
    assert client.get("/nope").status_code == 404
    assert client.get("/predict").status_code == 405
    error_of(client.get("/nope"))


def test_an_unexpected_error_shows_no_traceback(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.web.ml_backend.routes.parse_predict", lambda *_: 1 / 0)
    response = client.post("/predict", json=predict_body(RED))
    assert response.status_code == 500
    assert error_of(response) == "Unexpected ZeroDivisionError: see the backend's log."


def test_a_reason_phrase_is_one_line_of_ascii() -> None:
    client = make_app(failing_engine("a\nb\r\nSet-Cookie: é " + "x" * 999)).test_client()
    response = client.post("/setup", json={"schema": brush_config("red")})
    assert response.status.startswith("503 a b Set-Cookie: ? x")
    assert len(response.status) < 400
