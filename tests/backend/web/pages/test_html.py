"""Pages: their headers, and errors for people and for programs."""

import re

from tests.backend.web.browser import (
    PEOPLE,
    Dashboard,
    Page,
)


def test_the_policy_lets_only_the_pages_own_script_run(dashboard: Dashboard) -> None:
    first, second = (dashboard.client.get("/", headers=PEOPLE) for _ in range(2))
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    page = Page(first)
    own = page.all("script") + [each for each in page.all("link") if "nonce" in each]
    assert {element["nonce"] for element in own} == {nonce}
    assert nonce not in second.headers["Content-Security-Policy"]
    assert first.headers["Cache-Control"] == "no-store"


def test_what_is_not_there_is_a_page_for_people(dashboard: Dashboard) -> None:
    response = dashboard.client.get("/nowhere", headers=PEOPLE)
    assert response.status_code == 404
    assert "Not found" in Page(response).text


def test_what_is_not_there_is_json_for_programs(dashboard: Dashboard) -> None:
    response = dashboard.client.get("/nowhere")
    assert response.status_code == 404
    assert list(response.get_json()) == ["error"]
