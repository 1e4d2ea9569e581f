"""Basic auth as browsers and as Label Studio write it."""

from __future__ import annotations

import base64
import re

import pytest
import requests

from backend.settings import load_settings
from backend.web.middleware.auth import BasicAuth
from tests.backend.web.requests_to_app import RED, make_app, predict_body


def by_requests(user: str, password: str) -> str:
    """What `requests`, and with it Label Studio, sends."""
    prepared = requests.Request("GET", "http://x", auth=(user, password)).prepare()
    return str(prepared.headers["Authorization"])


@pytest.mark.parametrize("password", ["secret", "pass word", "a:b:c", "größe", "日本"])
def test_the_right_password_in_both_encodings(password: str) -> None:
    auth = BasicAuth("ann", password)
    utf_8 = "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()
    assert auth.header == utf_8
    assert auth.accepts(utf_8)
    assert auth.accepts(utf_8.replace("Basic", "basic"))
    if password != "日本":  # no latin letters, and so nothing that Label Studio could send
        assert auth.accepts(by_requests("ann", password))


@pytest.mark.parametrize(
    "authorization",
    [
        *("", "Basic", "Basic ", "Basic !!", "Basic é", "Bearer x", "Basic YW5u"),
        by_requests("ann", "wrong"),
        by_requests("bob", "secret"),
        by_requests("ann", "secret").replace("Basic", "Bearer"),
        by_requests("ann", "secret ") + "=",
        "ann:secret",
    ],
)
def test_all_else_is_refused(authorization: str) -> None:
    assert not BasicAuth("ann", "secret").accepts(authorization)


def test_it_comes_with_both_settings_and_hides_the_password() -> None:
    assert BasicAuth.from_settings(load_settings()) is None
    auth = BasicAuth.from_settings(load_settings(basic_auth_user="ann", basic_auth_pass="secret"))
    assert auth == BasicAuth("ann", "secret")
    assert "secret" not in repr(auth)
    with pytest.raises(ValueError, match="hold something"):
        BasicAuth("ann", "")


def test_basic_auth_guards_every_route_but_two() -> None:
    client = make_app(basic_auth_user="ann", basic_auth_pass="p:ä").test_client()
    right = {"Authorization": "Basic " + base64.b64encode("ann:p:ä".encode()).decode()}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ann:no").decode()}
    assert client.get("/health").status_code == 200
    assert client.post("/webhook", json={}).status_code == 200
    for headers in ({}, wrong, {"Authorization": "Bearer x"}, {"Authorization": "Basic !!"}):
        for path in ("/setup", "/predict", "/versions", "/jobs", "/jobs/1/pause"):
            response = client.post(path, json=predict_body(RED), headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith("Basic")
        assert client.get("/", headers=headers).status_code == 401
    assert client.get("/", headers=right).status_code == 200
    assert client.post("/predict", json=predict_body(RED), headers=right).status_code == 200


def test_no_other_route_is_forgotten() -> None:
    """Whatever routes there are: each is asked in each of its methods, and some that are none."""
    app = make_app(basic_auth_user="ann", basic_auth_pass="secret")
    client = app.test_client()
    asked = 0
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "1", rule.rule)
        for method in {"GET", "POST", "OPTIONS", "DELETE", *(rule.methods or ())}:
            if path not in ("/health", "/webhook"):
                assert client.open(path, method=method).status_code == 401
                asked += 1
    assert asked > 20
    for path in ("/health/", "//health", "/health/../", "/HEALTH", "/health;x", "/x", "/webhook/"):
        assert client.get(path).status_code == 401
    assert client.get("/health").status_code == 200
