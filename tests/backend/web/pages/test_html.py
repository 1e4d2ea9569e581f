"""Nothing of other sites comes onto a page."""

from __future__ import annotations

import re

from backend.runs.kinds import KINDS
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.web.pages.browser import PEOPLE, Dashboard, Page, started


def test_the_page_needs_nothing_from_elsewhere(dashboard: Dashboard) -> None:
    """Air-gapped: no script, style, font or picture comes from a server, not even this one."""
    started(dashboard, done=1, total=2)
    for path in ("/", "/?part=1", "/projects/7?job=1"):
        page = dashboard.page(path)
        for tag, attributes in page.elements:
            assert "src" not in attributes, tag
            assert "style" not in attributes, tag
            assert not any(name.startswith("on") for name in attributes), tag
            if tag == "link":
                assert attributes["href"] == "data:,"
        assert "@import" not in page.text
        assert "url(" not in page.text


def test_the_policy_lets_only_the_pages_own_script_run(dashboard: Dashboard) -> None:
    first, second = (dashboard.client.get("/", headers=PEOPLE) for _ in range(2))
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    page = Page(first)
    assert {element["nonce"] for element in page.all("script") + page.all("style")} == {nonce}
    assert nonce not in second.headers["Content-Security-Policy"]
    assert first.headers["Cache-Control"] == "no-store"


def test_each_page_of_a_project_leads_to_its_others_and_back(dashboard: Dashboard) -> None:
    pages = ("report", "learning", *(kind.name for kind in KINDS))
    addresses = {f"/projects/7/{page}" for page in pages}
    for address in addresses:
        links = dashboard.page(address).links
        assert addresses - {address} | {"/", "/projects/7"} <= {*links}
        assert address not in links, "nobody goes where one is"


def test_what_comes_from_outside_is_text(dashboard: Dashboard) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    setup = {"schema": brush_config("red"), "hostname": "javascript:alert(1)", "access_token": ""}
    dashboard.client.post("/setup", json=setup)
    body = {"tasks": [{"id": evil, "data": {evil: evil}}], "label_config": brush_config("red")}
    dashboard.client.post("/predict", json=body)
    job = started(dashboard)
    dashboard.store.advance(job, "worker", failures=[(1, evil)], version=evil)
    dashboard.store.finish(job, "worker", reason=evil)
    refused = dashboard.post("/jobs", {"project": "7", evil: "1"})
    for page in (
        dashboard.page(),
        dashboard.page("/?part=1"),
        dashboard.page("/projects/7?job=1"),
        Page(refused),
    ):
        assert "alert(1)" in page.text
        assert page.all("img") == []
        assert all(script.get("nonce") for script in page.all("script"))
        assert all(link.startswith(("http://studio:8080", "/", "#")) for link in page.links)
