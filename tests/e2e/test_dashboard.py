"""The backend's own page, in Chromium, beside the real Label Studio."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.editor import (
    DESK,
    IMAGES,
    PHONE,
    SIZE,
    check_accessibility,
    no_complaints,
    resize,
    visit,
)
from tests.e2e.servers import sdk

LABELS = ["sky", "grass", "tree", "house"]

NewProject = Callable[..., int]


@pytest.fixture
def console(page: Page, backend_url: str) -> Iterator[Page]:
    """Open the dashboard on a wide screen in light colours; errors of Chromium fail the test."""
    resize(page, DESK)
    visit(page, backend_url)
    expect(page.get_by_text("Ready")).to_be_visible()
    with no_complaints(page, backend_url, "Failed to load resource"):
        yield page
    page.emulate_media(color_scheme="no-preference")
    resize(page, SIZE)


def prelabel(console: Page, project: int) -> int:
    """Press the button on the project's page, and return the number of the job."""
    dashboard = console.url
    visit(console, urljoin(dashboard, f"/projects/{project}"))
    console.locator("#prelabel").get_by_role("button").click()
    console.wait_for_url("**?job=*")
    job = int(console.url.rpartition("=")[2])
    expect(console.locator("#job")).to_contain_text(f"job {job}: tasks without annotations")
    visit(console, dashboard)
    return job


def unfold(console: Page, name: str) -> None:
    console.locator(f"#{name} > summary").click()


def predicted(studio: LabelStudioProcess, project: int) -> list[int]:
    return sorted(each.task for each in sdk(studio).predictions.list(project=project))


def test_a_project_is_prelabeled_from_the_page_and_that_is_taken_back(
    console: Page, studio: LabelStudioProcess, new_project: NewProject
) -> None:
    """Where somebody has begun, the prediction stays."""
    project = new_project(LABELS, seeds=list(range(700, 706)))
    job = prelabel(console, project)
    console.evaluate("window.loadedOnce = true")
    row = console.locator(f"#job-{job}")
    expect(row).to_contain_text("done", timeout=120_000)
    expect(row).to_contain_text("6 predicted of 6")
    assert console.evaluate("window.loadedOnce"), "it has renewed itself, and was not loaded again"
    unfold(console, "jobs-over")
    annotated, drafted, *rest = predicted(studio, project)
    assert len(rest) == 4
    sdk(studio).annotations.create(id=annotated, result=[])
    studio.post(f"/api/tasks/{drafted}/drafts", json={"result": []})
    check_accessibility(console)
    resize(console, DESK)
    expect(row.get_by_role("button")).to_have_text(["Withdraw"])
    console.once("dialog", lambda question: question.dismiss())
    row.get_by_role("button").click()
    console.once("dialog", lambda question: question.accept())
    row.get_by_role("button").click()
    withdrawal = console.locator(f"#job-{job + 1}")
    expect(withdrawal).to_contain_text("4 of 6 predictions deleted · 2 kept", timeout=120_000)
    assert predicted(studio, project) == [annotated, drafted]


def test_an_error_leads_to_the_task_in_label_studio_and_the_focus_stays_while_pages_renew(
    console: Page, studio: LabelStudioProcess, new_project: NewProject
) -> None:
    project = new_project(LABELS, seeds=[790])
    sdk(studio).tasks.create(project=project, data={"image": "/data/upload/1/gone.png"})
    task = max(task.id for task in sdk(studio).tasks.list(project=project))
    job = prelabel(console, project)
    row = console.locator(f"#job-{job}")
    expect(row).to_contain_text("done", timeout=120_000)
    unfold(console, "jobs-over")
    failed = row.get_by_role("link", name="1 failed")
    expect(failed).to_be_visible()
    failed.focus()
    row.evaluate("each => each.dataset.before = 'the next look'")  # so that it is drawn anew
    console.evaluate("refresh()")
    expect(console.locator("[data-before]")).to_have_count(0)
    expect(failed).to_be_focused()
    line = console.locator("#errors tr").filter(has_text=f"Task {task}").first
    expect(line).to_contain_text("/data/upload/1/gone.png")
    title = "Streets at night, part two: the old town's squares"
    sdk(studio).projects.update(id=project, title=title)
    expect(line).to_contain_text(title)
    others, fold = console.locator("#others"), console.locator("#unserved")
    expect(others).to_contain_text(f"({new_project(LABELS, seeds=[791])})")
    fold.locator("summary").click()
    for typed, drawn_anew in (("sky, tree", False), ("", True)):
        fold.get_by_label("Labels").fill(typed)
        others.evaluate("e => { e.dataset.before = 'a look'; document.activeElement.blur(); }")
        console.evaluate("refresh()")
        expect(console.locator("#others[data-before]")).to_have_count(0 if drawn_anew else 1)
        expect(fold.get_by_label("Labels")).to_have_value(typed)
        expect(fold.get_by_label("Labels")).to_be_visible()
    resize(console, PHONE)
    failed.click()
    console.locator("#job").get_by_role("link", name=f"Task {task}", exact=True).click()
    console.wait_for_url(f"{studio.url}/projects/{project}/data?task={task}*")


@pytest.mark.thorough
def test_the_readmes_picture_of_the_page(
    console: Page, studio: LabelStudioProcess, new_project: NewProject, tmp_path: Path
) -> None:
    """Take the page on a wide and a narrow screen, light and dark; one is kept on request."""
    project = new_project(LABELS, seeds=list(range(800, 840)))
    sdk(studio).tasks.create(project=project, data={"image": "/data/upload/1/gone.png"})
    job = prelabel(console, project)
    expect(console.locator(f"#job-{job} progress")).to_be_visible()
    console.wait_for_timeout(4000)
    backgrounds = {}
    for size in (DESK, PHONE):
        for scheme in ("dark", "light"):
            console.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            resize(console, size)
            path = tmp_path / f"{scheme}-{size[0]}.png"
            console.screenshot(path=path, full_page=True, animations="disabled")
            shot = np.asarray(Image.open(path).convert("RGB"))
            backgrounds[scheme] = int(shot[2, 2].mean())
            assert shot.std() > 5
    assert backgrounds["dark"] < 60 < 200 < backgrounds["light"]
    if os.environ.get("TAKE_PICTURE"):
        resize(console, DESK)
        console.screenshot(path=IMAGES / "dashboard.png", animations="disabled")
