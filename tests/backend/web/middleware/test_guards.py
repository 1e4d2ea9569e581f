"""Other sites steer nothing through a browser, under whatever name, and behind a proxy too."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.backend.web.browser import PEOPLE, Dashboard, Page, error_of, make_app, started

LOCKED = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}


HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
HEADERS |= {"Cache-Control": "no-store"}

#: What is answered without a password.
OPEN = ("/health", "/ready", "/webhook", "/page.css", "/page.js")


def answers(app: Flask, **options: Any) -> Iterator[tuple[str, str, int]]:
    """The path, the method and the status of each answer, which has the headers of security."""
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<any\(([\w-]+)[^>]*>", r"\1", rule.rule)
        path = re.sub("<[^>]+>", "1", path)
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            response = client.open(path, method=method, **options)
            if response.mimetype == "text/css":  # the same for everybody, so that browsers keep it
                continue
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


def test_all_but_four_ask_for_the_password() -> None:
    app = make_app(basic_auth_user="ann", basic_auth_pass="secret")
    for path, method, status in answers(app):
        assert (status == 401) == (path not in OPEN), (path, method)
    client = app.test_client()
    for path in ("/health/", "//health", "/health/../", "/HEALTH", "/health;x", "/x", "/webhook/"):
        assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    ("is_own", "headers"),
    [
        (False, {"Origin": "null"}),
        (False, {"Origin": "http://localhost.evil.example"}),
        (False, {"Origin": "http://localhost:8080"}),
        (False, {"Origin": "http://["}),
        (False, {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}),
        (False, {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}),
        (True, {"Origin": "http://localhost"}),
        (True, {"Origin": "https://localhost"}),  # a proxy before it speaks TLS
        (True, {"Sec-Fetch-Site": "same-origin", "Origin": "https://clearclip.example.com"}),
        (True, {"Sec-Fetch-Site": "none"}),
        (True, {}),  # no browser
    ],
)
def test_others_steer_no_jobs(dashboard: Dashboard, is_own: bool, headers: dict[str, str]) -> None:
    job = started(dashboard)
    for path in (f"/jobs/{job}/cancel", "/jobs"):
        for data in ({"project": "8"}, b'{"project": 8}'):
            status = dashboard.client.post(path, headers=headers, data=data).status_code
            assert (status != 403) == is_own
    found = {each.project: each.state for each in dashboard.store.list_jobs()}
    assert found == ({7: "cancelled", 8: "queued"} if is_own else {7: "running"})


@pytest.mark.parametrize(
    ("name", "settings", "status"),
    [
        ("localhost:9090", {}, 200),
        ("127.0.0.1:9090", {}, 200),
        ("[::1]:9090", {}, 200),
        ("backend", {}, 200),
        ("BACKEND.internal:9090", {}, 200),
        ("evil.example", {}, 403),
        ("127.0.0.1.evil.example", {}, 403),
        ("evil.example.", {}, 403),
        ("evil。example", {}, 403),
        ("a.b@localhost", {}, 403),
        ("evilinternal.org", {}, 403),
        ("clearclip.lab.example:9090", {"server_names": "clearclip.lab.example, *.b.c"}, 200),
        ("Gpu.Lab.example", {"server_names": "*.lab.example"}, 200),
        ("clearclip.example.com", LOCKED, 200),
        ("clearclip.example.com", LOCKED | {"server_names": "a.example"}, 403),
    ],
)
def test_it_answers_under_its_own_names(name: str, settings: dict[str, str], status: int) -> None:
    """The name of a page, too: another site may have pointed one of its own here."""
    client = make_app(**settings).test_client()
    answer = client.get("/health", headers={"Host": name})
    assert answer.status_code == status
    if status == 403:
        form = {"Host": name, "Origin": f"http://{name}"}
        assert client.post("/jobs", data={"project": "8"}, headers=form).status_code == 403
    if status == 403 and name == "evil.example":
        assert "does not know the name evil.example: name it in SERVER_NAMES" in error_of(answer)


#: What a proxy sends along that serves https://host.example/clearclip/.
FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "host.example"}
FORWARDED |= {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/clearclip"}
STUDIO = {"label_studio_url": "http://studio:8080", "label_studio_api_key": "ab" * 20}


def proxied(**settings: Any) -> FlaskClient:
    named = {"trusted_proxies": 1, "server_names": "host.example"}
    return make_app(**{**named, **settings}).test_client()


@pytest.mark.parametrize(
    "path", ["/", "/projects/7/report", "/projects/7/learning", "/projects/7?job=1"]
)
def test_all_links_and_forms_of_the_pages_have_the_prefix(path: str) -> None:
    client = proxied(**STUDIO)
    assert client.post("/jobs", json={"project": 7}).status_code == 201
    answer = client.get(path, headers=FORWARDED | PEOPLE)
    assert answer.status_code == 200
    page = Page(answer)
    links = [each.get("href") for each in page.all("a")]
    links += [each.get("action") for each in page.all("form")]
    own = [link for link in links if link and not link.startswith(("http", "data:", "#", "?"))]
    assert own
    assert [link for link in own if not link.startswith("/clearclip/")] == []


@pytest.mark.parametrize(("host", "status"), [("host.example", 303), ("evil.example", 403)])
def test_a_form_of_the_page_is_not_taken_for_another_sites(host: str, status: int) -> None:
    headers = FORWARDED | PEOPLE | {"Origin": f"https://{host}"}
    answer = proxied(**STUDIO).post("/jobs", data={"project": "7"}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("trusted", "addresses"),
    [
        (1, "203.0.113.9"),
        (1, "192.0.2.{number}, 203.0.113.9"),  # the one that the proxy has seen counts
        (0, "203.0.113.{number}"),  # anybody may send this header
    ],
)
def test_passwords_are_counted_by_the_address_of_the_client(trusted: int, addresses: str) -> None:
    client = proxied(trusted_proxies=trusted, **LOCKED)
    for number in range(12):
        headers = FORWARDED | {"X-Forwarded-For": addresses.format(number=number)}
        last = client.get("/status", headers=headers, auth=("ann", f"wrong{number}"))
    assert last.status_code == 429
    other = FORWARDED | {"X-Forwarded-For": "198.51.100.7"}
    answer = client.get("/status", headers=other, auth=("ann", "secret"))
    assert answer.status_code == (200 if trusted else 429)


def test_the_prefix_of_anybody_is_not_believed() -> None:
    answer = proxied(trusted_proxies=0).get("/", headers=FORWARDED | PEOPLE)
    assert "/clearclip" not in answer.text
