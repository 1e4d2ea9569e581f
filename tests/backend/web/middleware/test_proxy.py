"""The backend behind a reverse proxy that serves it under a path of its host."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.web.pages.browser import PEOPLE, Page
from tests.backend.web.requests_to_app import make_app

#: What a proxy sends along that serves https://host.example/clearclip/.
HEADERS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "host.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/clearclip",
}
LOCK = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}
STUDIO = {"label_studio_url": "http://studio:8080", "label_studio_api_key": "ab" * 20}


def client(**settings: Any) -> FlaskClient:
    named = {"trusted_proxies": 1, "server_names": "host.example"}
    return make_app(**{**named, **settings}).test_client()


def own_links(page: Page) -> list[str]:
    """The addresses that a page asks this backend for."""
    links = [each.get("href") for each in page.all("a")]
    links += [each.get("action") for each in page.all("form")]
    return [link for link in links if link and not link.startswith(("http", "data:", "#", "?"))]


@pytest.mark.parametrize(
    "path", ["/", "/projects/7/report", "/projects/7/learning", "/projects/7?job=1"]
)
def test_all_links_and_forms_of_the_pages_have_the_prefix(path: str) -> None:
    ours = client(**STUDIO)
    assert ours.post("/jobs", json={"project": 7}).status_code == 201
    answer = ours.get(path, headers=HEADERS | PEOPLE)
    assert answer.status_code == 200
    links = own_links(Page(answer))
    assert links
    assert [link for link in links if not link.startswith("/clearclip/")] == []


def test_a_form_of_the_page_is_not_taken_for_another_sites() -> None:
    ours = client(**STUDIO)
    form = {"project": "7", "filter": "all"}
    origin = {"Origin": "https://host.example"}
    assert ours.post("/jobs", data=form, headers=HEADERS | PEOPLE | origin).status_code == 303
    other = {"Origin": "https://evil.example"}
    assert ours.post("/jobs", data=form, headers=HEADERS | PEOPLE | other).status_code == 403


def test_label_studio_connects_through_the_proxy() -> None:
    body = {"project": "7.1", "schema": brush_config("red")}
    assert client().post("/setup", json=body, headers=HEADERS).status_code == 200
    assert client(**LOCK).get("/health", headers=HEADERS).status_code == 200


def test_passwords_are_counted_by_the_address_of_the_client() -> None:
    ours = client(**LOCK)
    for number in range(12):
        last = ours.get("/status", headers=HEADERS, auth=("ann", f"wrong{number}"))
    assert last.status_code == 429
    other = HEADERS | {"X-Forwarded-For": "198.51.100.7"}
    assert ours.get("/status", headers=other, auth=("ann", "secret")).status_code == 200


def test_the_headers_of_anybody_are_not_believed() -> None:
    for ours in (client(trusted_proxies=0), make_app().test_client()):
        answer = ours.get("/", headers=HEADERS | PEOPLE)
        assert "/clearclip" not in answer.text
    ours = client(trusted_proxies=0, **LOCK)
    for number in range(12):
        spoofed = HEADERS | {"X-Forwarded-For": f"203.0.113.{number}"}
        last = ours.get("/status", headers=spoofed, auth=("ann", f"wrong{number}"))
    assert last.status_code == 429


def test_of_several_addresses_the_one_that_the_proxy_has_seen_counts() -> None:
    ours = client(**LOCK)
    for number in range(12):
        spoofed = HEADERS | {"X-Forwarded-For": f"192.0.2.{number}, 203.0.113.9"}
        last = ours.get("/status", headers=spoofed, auth=("ann", f"wrong{number}"))
    assert last.status_code == 429
