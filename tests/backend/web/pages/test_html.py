"""Nothing of other sites comes onto a page."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes

from backend.runs.kinds import KINDS
from backend.web.pages import html
from tests.backend.fakes.colour_segmenter import (
    brush_config,
)
from tests.backend.web.pages.browser import PEOPLE, Dashboard, Page, started

TEMPLATES = Path(html.__file__).parent / "templates"


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
        links = {link["href"] for link in dashboard.page(address).all("a")}
        assert addresses - {address} | {"/", "/projects/7"} <= links
        assert address not in links, "nobody goes where one is"


#: What the callers of these macros have done, with a question or without.
ASKED = {
    "turn": {"pause": False, "resume": False, "cancel": True, "withdraw": True},
    "steer": {
        "step": False,
        "pin": False,
        "unpin": False,
        "rollback": True,
        "reset": True,
        "use": True,
        "keep-words": False,
        "learn-label": False,
    },
}


def test_each_button_asks_before_what_cannot_be_undone() -> None:
    found: dict[str, dict[str, bool]] = {name: {} for name in ASKED}
    for template in TEMPLATES.glob("*.html"):
        tree = jinja2.Environment().parse(template.read_text())
        macros = {macro.name: macro for macro in tree.find_all(nodes.Macro) if macro.name in ASKED}
        for call in tree.find_all(nodes.Call):
            if not isinstance(call.node, nodes.Name) or call.node.name not in macros:
                continue
            names = [argument.name for argument in macros[call.node.name].args]
            given = dict(zip(names, call.args, strict=False))
            given |= {keyword.key: keyword.value for keyword in call.kwargs}
            verb = next(given[name] for name in ("verb", "name", "turn", "action") if name in given)
            assert isinstance(verb, nodes.Const)
            found[call.node.name][verb.value] = given.get("question") is not None
    assert found == ASKED


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_malformed_host_is_answered_with_a_page(dashboard: Dashboard, host: str) -> None:
    """Flask knows no routes then, and makes no address of one."""
    answer = dashboard.client.get("/nowhere", headers={**PEOPLE, "Host": host})
    assert 400 <= answer.status_code < 500
    page = Page(answer)
    assert [link["href"] for link in page.all("a")] == ["/"]
    assert "This did not work" in page.text or "Not found" in page.text


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
        for link in page.all("a"):
            assert str(link["href"]).startswith(("http://studio:8080", "/", "#"))
