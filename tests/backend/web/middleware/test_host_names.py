"""Under a name that another site may have pointed here nobody gets anything."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.backend.web.requests_to_app import error_of, make_app

PATHS = ["/health", "/status", "/metrics", "/", "/ready", "/jobs", "/openapi.json", "/nothing"]
LOCKED = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}


def status(name: str, path: str = "/health", **settings: Any) -> int:
    app = make_app(**settings)
    return app.test_client().get(path, headers={"Host": name}).status_code


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
def test_an_unknown_name_gets_nothing(path: str, listen: str) -> None:
    client = make_app(host=listen).test_client()
    response = client.get(path, headers={"Host": "evil.example:9090"})
    assert response.status_code == 403
    assert "evil.example" in error_of(response)
    assert "SERVER_NAMES" in error_of(response)


def test_no_route_is_forgotten() -> None:
    app = make_app()
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<any\(([\w-]+)[^>]*>", r"\1", rule.rule)
        path = re.sub("<[^>]+>", "1", path)
        for method in rule.methods or ():
            response = client.open(path, method=method, headers={"Host": "evil.example"})
            assert response.status_code == 403, (method, path)


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "localhost:9090", "127.0.0.1:9090", "[::1]:9090", "192.168.1.7", "backend"),
        *(
            "backend:9090",
            "BACKEND.internal:9090",
            "host.docker.internal",
            "gpu.local",
            "x.localhost",
        ),
        "backend.default.svc.cluster.local:9090",
    ],
)
def test_names_that_nobody_elsewhere_owns(name: str) -> None:
    assert status(name) == 200


@pytest.mark.parametrize(
    "name",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example."),
        *("evil。example", "a.b@localhost"),
        *("internal.evil.example", "lab.example.evil.example", "lab.example", "evilinternal.org"),
    ],
)
def test_names_that_another_site_may_own(name: str) -> None:
    assert status(name, server_names="*.lab.example") == 403


def test_names_of_the_settings() -> None:
    names = {"server_names": "clearclip.lab.example, *.team.example"}
    assert status("clearclip.lab.example:9090", **names) == 200
    assert status("Gpu.Team.example", **names) == 200
    assert status("gpu.lab.example", **names) == 403


def test_with_a_password_names_are_free_until_some_are_named() -> None:
    assert status("clearclip.example.com", **LOCKED) == 200
    assert status("clearclip.example.com", server_names="a.example", **LOCKED) == 403
    assert status("clearclip.example.com", "/status", **LOCKED) == 401
