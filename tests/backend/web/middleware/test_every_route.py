"""Whatever routes there are: each is asked in each of its methods, and none forgets a guard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.backend.web.requests_to_app import make_app

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def answers(app: Flask, **options: Any) -> Iterator[tuple[str, str, int]]:
    """The path, the method and the status of each answer, which has the headers of security."""
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<any\(([\w-]+)[^>]*>", r"\1", rule.rule)
        path = re.sub("<[^>]+>", "1", path)
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            response = client.open(path, method=method, **options)
            found = {name: response.headers.getlist(name) for name in HEADERS}
            assert found == {name: [value] for name, value in HEADERS.items()}
            yield path, method, response.status_code


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_every_answer_has_the_headers_of_security(accept: str) -> None:
    statuses = {status for *_, status in answers(make_app(), headers={"Accept": accept})}
    assert statuses >= {200, 400, 404, 405}


def test_under_an_unknown_name_nobody_gets_anything() -> None:
    asked = list(answers(make_app(), headers={"Host": "evil.example"}))
    assert len(asked) > 100
    assert [each for each in asked if each[2] != 403] == []


def test_a_page_of_another_site_changes_nothing() -> None:
    for path, method, status in answers(make_app(), headers={"Origin": "http://evil.example"}):
        is_safe = method in ("GET", "HEAD", "OPTIONS")
        assert (status == 403) != is_safe, (path, method)


def test_all_but_two_ask_for_the_password() -> None:
    app = make_app(basic_auth_user="ann", basic_auth_pass="secret")
    for path, method, status in answers(app):
        assert (status == 401) == (path not in ("/health", "/webhook")), (path, method)
    client = app.test_client()
    for path in ("/health/", "//health", "/health/../", "/HEALTH", "/health;x", "/x", "/webhook/"):
        assert client.get(path).status_code == 401
