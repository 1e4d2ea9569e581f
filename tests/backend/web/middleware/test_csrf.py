"""Pages of other sites steer nothing through a browser."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.backend.web.pages.browser import Dashboard, started


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "ftp://localhost"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_a_page_of_another_site_changes_nothing(
    dashboard: Dashboard, headers: dict[str, str]
) -> None:
    job = started(dashboard)
    for method, path in (
        ("POST", "/jobs"),
        ("POST", f"/jobs/{job}/cancel"),
        ("POST", f"/jobs/{job}/pause"),
        ("DELETE", f"/jobs/{job}"),
        ("POST", "/setup"),
        ("POST", "/predict"),
        ("POST", "/webhook"),
    ):
        for body in ({"data": {"project": "8"}}, {"data": b'{"project": 8}'}):
            response = dashboard.client.open(path, method=method, headers=headers, **body)
            assert response.status_code == 403
    (only,) = dashboard.store.list_jobs()
    assert (only.id, only.state) == (job, "running")


def test_no_route_that_changes_something_is_forgotten(dashboard: Dashboard) -> None:
    """Whatever routes there are: each is asked in each of its methods that are not safe."""
    asked = 0
    for rule in dashboard.app.url_map.iter_rules():
        path = re.sub(r"<any\(([\w-]+)[^>]*>", r"\1", rule.rule)
        for method in (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}:
            response = dashboard.client.open(
                re.sub("<[^>]+>", "1", path),
                method=method,
                headers={"Origin": "http://evil.example"},
            )
            assert response.status_code == 403, (method, path)
            asked += 1
    assert asked > 15


def _posted(name: str, scheme: str = "http", **settings: Any) -> int:
    """The status of what a page of this backend posts, at a name that a browser found it by."""
    headers = {"Host": name, "Origin": f"{scheme}://{name}"}
    client = Dashboard(**settings).client
    basic = ("ann", "secret") if "basic_auth_user" in settings else None
    return client.post("/jobs", data={"project": "8"}, headers=headers, auth=basic).status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_name_that_another_site_has_pointed_here_is_refused(host: str) -> None:
    assert _posted("evil.example:9090", host=host) == 403
    assert _posted("localhost.evil.example", host=host) == 403


@pytest.mark.parametrize(
    "name", ["127.0.0.1:9090", "localhost:9090", "[::1]:9090", "192.168.1.7", "localhost"]
)
def test_names_that_nobody_elsewhere_points_anywhere(name: str) -> None:
    assert _posted(name) == 303


def test_names_where_another_site_gains_nothing_by_them() -> None:
    assert _posted("gpu.lab.example", host="0.0.0.0", server_names="*.lab.example") == 303
    assert _posted("clearclip.example.com", "https") == 303  # behind a proxy that speaks TLS
    locked = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}
    assert _posted("clearclip.example.com", **locked) == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # a proxy before it speaks TLS
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://clearclip.example.com"},
        {"Sec-Fetch-Site": "none"},
        {},  # no browser
    ],
)
def test_its_own_page_and_programs_do(dashboard: Dashboard, headers: dict[str, str]) -> None:
    response = dashboard.client.post("/jobs", data={"project": "8"}, headers=headers)
    assert response.status_code == 303
