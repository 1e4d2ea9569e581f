"""The headers of security are on every answer, whatever it says."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from tests.backend.web.requests_to_app import RED, make_app, predict_body

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


@pytest.mark.parametrize("settings", [{}, {"basic_auth_user": "ann", "basic_auth_pass": "secret"}])
def test_every_route_has_them_whatever_it_answers(settings: dict[str, str]) -> None:
    app = make_app(**settings)
    client = app.test_client()
    statuses = set()
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "1", rule.rule)
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            for accept in ("application/json", "text/html"):
                response = client.open(path, method=method, headers={"Accept": accept})
                statuses.add(response.status_code)
                assert {name: response.headers.getlist(name) for name in HEADERS} == {
                    name: [value] for name, value in HEADERS.items()
                }
    assert statuses > ({401} if settings else {400, 404, 405})
    assert client.get("/nope").headers["X-Frame-Options"] == "DENY"


def test_an_unexpected_error_has_them(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.web.ml_backend.parse_predict", lambda *_: 1 / 0)
    response = client.post("/predict", json=predict_body(RED))
    assert response.status_code == 500
    assert HEADERS.items() <= dict(response.headers).items()
