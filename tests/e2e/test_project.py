"""A lead goes from words to a data set on the page of a project, with the real Label Studio."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import render_scene
from tests.e2e.editor import DESK, PHONE, resize
from tests.e2e.masks import scene_regions

pytestmark = pytest.mark.timeout(300)

LABELS = ["sky", "grass", "tree", "house"]
SEEDS = [10_000_731, 10_000_732, 10_000_733]


def test_the_next_step_is_marked_until_the_data_set_is_there(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    project = new_project(LABELS, seeds=SEEDS)
    demo.connect(studio, project, backend_url)
    address = f"{backend_url}/projects/{project}"

    def step(name: str, *said: str) -> None:
        """Wait until a step is the next one."""
        next_one = page.locator(".steps > div").filter(has=page.get_by_text("next", exact=True))
        expect(next_one).to_have_attribute("id", name)
        for each in said:
            expect(next_one).to_contain_text(each)

    page.goto(address)
    step("words", "not checked")
    page.get_by_role("link", name="Check words").click()
    page.get_by_role("button", name="Check words").click()
    expect(page.locator("#responses")).to_be_visible(timeout=120_000)
    page.goto(address)
    step("prelabel", "0 of 3 tasks")
    page.get_by_role("button", name="Prelabel").click()
    step("correct", "0 of 3 tasks done")
    expect(page.locator("#prelabel")).to_contain_text("3 of 3 tasks", timeout=120_000)
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    for task, seed in zip(tasks, SEEDS, strict=True):
        # Of a project's first annotation Label Studio's summary counts the last region alone.
        renamed = {} if seed == SEEDS[0] else {"sky": "Himmel"}
        result = scene_regions(render_scene(seed).label_map, LABELS, renamed)
        studio.post(f"/api/tasks/{task}/annotations/", json={"result": result, "lead_time": 30})
    page.goto(address)
    resize(page, PHONE)
    resize(page, DESK)
    while page.locator("#export b").inner_text() != "3":
        page.wait_for_timeout(2000)  # they are read every 2 seconds
        page.reload()
    expect(page.locator("#look")).to_contain_text('alias="Himmel"')
    page.locator("#export").get_by_role("link").click()
    page.get_by_role("button", name="Export data set").click()
    expect(page.get_by_role("link", name="Download")).to_be_visible(timeout=60_000)
    page.goto(address)
    expect(page.locator("#export")).to_contain_text("done")
