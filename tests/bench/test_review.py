"""Seconds a picture on the review page and in Label Studio's editor, on the same drawn tasks.

Nobody looks at the pictures: it is what the programs themselves take, and people's time is the
same beside both. A picture counts once it can be seen with its masks, and each is accepted.
"""

import time
from collections.abc import Callable

import pytest
import requests
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from tests.bench.conftest import Report
from tests.e2e.conftest import (  # noqa: F401 -- fixtures
    backend_url,
    demo_run,
    new_project,
    page,
    studio,
    studio_command,
)
from tests.e2e.editor import DESK, resize

TASKS, IN_EDITOR = 200, 12
IS_SHOWN = "[...document.querySelectorAll('#page .card img')].every(each => each.complete)"


@pytest.mark.timeout(1800)
def test_a_page_of_forty_and_the_editor(
    report: Report,
    page: Page,  # noqa: F811
    studio: LabelStudioProcess,  # noqa: F811
    backend_url: str,  # noqa: F811
    new_project: Callable[..., int],  # noqa: F811
) -> None:
    seeds = list(range(30_000, 30_000 + TASKS))
    project = new_project(["sky", "grass", "tree", "house"], seeds=seeds)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    report.add(*measure(page, studio, backend_url, project))


def measure(page: Page, studio: LabelStudioProcess, backend_url: str, project: int) -> list[str]:  # noqa: F811
    """Accept tasks in the editor and the others on the page; return a row of the report."""
    in_editor_s = _in_editor(page, studio, project)
    resize(page, DESK)
    begin = time.perf_counter()
    page.goto(f"{backend_url}/projects/{project}/review")
    _wait_for_pictures(page)
    first_s, pages_s, judged = time.perf_counter() - begin, [0.0], 0
    while cards := page.locator("#page .card").count():
        page.wait_for_timeout(15_000)  # a person looks; the page after it is made meanwhile
        made = page.locator("#page").get_attribute("data-since")
        begin = time.perf_counter()
        for _ in range(cards):
            page.keyboard.press("g")
        page.keyboard.press("Enter")
        expect(page.locator(f'#page[data-since="{made}"]')).to_have_count(0)
        _wait_for_pictures(page)
        pages_s.append(time.perf_counter() - begin)
        judged += cards
    begin = time.perf_counter()
    while _accepted(backend_url, project) < 0.8 * judged:
        time.sleep(1)
    written_s, each_s = time.perf_counter() - begin, sum(pages_s) / judged
    assert in_editor_s >= 3 * each_s
    return [
        f"review: {judged} drawn pictures by keys, beside {IN_EDITOR} in the editor",
        "5 times as fast (3)",
        f"{in_editor_s / each_s:.0f} times as fast",
        f"{1000 * each_s:.0f} and {1000 * in_editor_s:.0f} ms a picture; the first page "
        f"{first_s:.1f} s, the slowest of the others {max(pages_s):.1f} s; the last annotations "
        f"were written and read {written_s:.0f} s after the last page",
    ]


def _wait_for_pictures(page: Page) -> None:  # noqa: F811
    while not page.evaluate(IS_SHOWN):  # `wait_for_function` is refused by the page's policy
        page.wait_for_timeout(50)


def _in_editor(page: Page, studio: LabelStudioProcess, project: int) -> float:  # noqa: F811
    """Accept some tasks in Label Studio's own stream; return seconds a task, the first apart."""
    page.goto(f"{studio.url}/projects/{project}/data?labeling=1")
    times_s, before = [], 0
    for _ in range(IN_EDITOR):
        begin = time.perf_counter()
        page.wait_for_function(
            f"window.Htx?.task?.id && Htx.task.id !== {before} "
            "&& Htx.annotationStore?.selected?.regions?.length > 0"
        )
        before = page.evaluate("Htx.task.id")
        page.click("[data-testid=bottombar-submit-button]")
        times_s.append(time.perf_counter() - begin)
    return sum(times_s[1:]) / (len(times_s) - 1)


def _accepted(url: str, project: int) -> int:
    told = requests.get(f"{url}/projects/{project}/report.json", timeout=60).json()
    return int(told["annotations"]["reviewed"])
