"""What is answered before the application is there, and once it could not be made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.test import Client

from backend.settings import Settings
from backend.web.middleware.headers import SECURITY_HEADERS
from backend.web.starting_app import StartingApp

SETTINGS = Settings(model="demo")


def true_app() -> Flask:
    app = Flask("true")
    app.add_url_rule("/health", "health", lambda: "true health")
    app.add_url_rule("/setup", "setup", lambda: "true setup", methods=["POST"])
    return app


@pytest.fixture
def may_end() -> threading.Event:
    return threading.Event()


def starting(may_end: threading.Event, make: Callable[[], Any], **more: Any) -> StartingApp:
    def wait_and_make() -> Any:
        assert may_end.wait(60)
        return make()

    app = StartingApp(wait_and_make, SETTINGS.model_copy(update=more))
    app.start()
    return app


def test_health_is_up_at_once_and_the_rest_waits_in_line(may_end: threading.Event) -> None:
    app = starting(may_end, true_app)
    client = Client(app)
    health = client.get("/health")
    assert health.get_json() == {"status": "UP", "model": "demo", "state": "loading"}
    assert SECURITY_HEADERS.items() <= dict(health.headers).items()
    for path in ("/ready", "/metrics"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.get_json() == {"error": "The backend is starting: try again in a moment."}
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(Client(app).post, "/setup") for _ in range(3)]
        assert app.is_starting
        assert not any(each.done() for each in waiting)
        may_end.set()
        assert [each.result(60).text for each in waiting] == ["true setup"] * 3
    assert not app.is_starting
    assert client.get("/health").text == "true health"


def test_nobody_waits_longer_than_a_prediction_may_take(may_end: threading.Event) -> None:
    client = Client(starting(may_end, true_app, predict_deadline_s=0.01))
    answer = client.post("/setup")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    may_end.set()


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/", "/setup", "/nothing"])
def test_under_an_unknown_name_nobody_is_told_anything(may_end: threading.Event, path: str) -> None:
    client = Client(starting(may_end, true_app, server_names="*.lab.example"))
    answer = client.get(path, headers={"Host": "evil.example"})
    sentence = (
        "This backend does not know the name evil.example: name it in SERVER_NAMES, or use an "
        "address."
    )
    assert answer.status == f"403 {sentence}"
    assert answer.get_json() == {"error": sentence}
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    assert client.get("/health", headers={"Host": "gpu.lab.example"}).status_code == 200
    may_end.set()


def test_a_failure_is_told_under_no_unknown_name(may_end: threading.Event) -> None:
    def fail() -> Any:
        raise ValueError("MODEL: there is none.")

    app = starting(may_end, fail)
    may_end.set()
    app.wait()
    assert Client(app).post("/setup", headers={"Host": "evil.example"}).status_code == 403


def test_a_trusted_proxy_says_the_name_before_and_after(may_end: threading.Event) -> None:
    def echo() -> Flask:
        app = Flask("echo")
        app.add_url_rule("/where", "where", lambda: f"{request.host} {request.root_path}")
        return app

    app = starting(may_end, echo, trusted_proxies=1, server_names="label.lab.example")
    client, inside = Client(app), {"Host": "backend:9090", "X-Forwarded-Prefix": "/clearclip"}
    evil = client.get("/health", headers=inside | {"X-Forwarded-Host": "evil.example"})
    assert evil.status_code == 403
    with ThreadPoolExecutor(1) as pool:
        ours = inside | {"X-Forwarded-Host": "label.lab.example"}
        waiting = pool.submit(Client(app).get, "/where", headers=ours)
        may_end.set()
        assert waiting.result(60).text == "label.lab.example /clearclip"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("MODEL: there is none."), "MODEL: there is none."),
        (ImportError("secret path"), "Unexpected ImportError: see the backend's log."),
    ],
)
def test_a_failure_is_said_in_a_sentence(
    may_end: threading.Event, error: Exception, sentence: str
) -> None:
    def fail() -> Any:
        raise error

    app = starting(may_end, fail)
    may_end.set()
    app.wait()
    assert app.failure == sentence
    answer = Client(app).post("/setup")
    assert answer.status == f"503 {sentence}"
    assert answer.get_json() == {"error": sentence}
