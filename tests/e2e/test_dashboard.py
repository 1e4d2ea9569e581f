"""The backend's own page, in Chromium, beside the real Label Studio."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.editor import DESK, IMAGES, PHONE, SIZE, keep_picture, no_complaints, resize
from tests.e2e.masks import brush_region
from tests.e2e.servers import get

pytestmark = pytest.mark.timeout(300)

LABELS = ["sky", "grass", "tree", "house"]

NewProject = Callable[..., int]


@pytest.fixture
def console(page: Page, backend_url: str) -> Iterator[Page]:
    """Open the dashboard on a wide screen in light colours; errors of Chromium fail the test."""
    resize(page, DESK)
    page.goto(backend_url)
    expect(page.get_by_text("Ready")).to_be_visible(timeout=60_000)
    with no_complaints(page, backend_url, "Failed to load resource"):
        yield page
    page.emulate_media(color_scheme="no-preference")
    resize(page, SIZE)


def prelabel(console: Page, project: int) -> int:
    """Press the button on the project's page, and return the number of the job."""
    dashboard = console.url
    console.goto(urljoin(dashboard, f"/projects/{project}"))
    console.locator("#prelabel").get_by_role("button").click()
    console.wait_for_url("**?job=*")
    job = int(console.url.rpartition("=")[2])
    expect(console.locator("#job")).to_contain_text(f"job {job}: tasks without annotations")
    console.goto(dashboard)
    return job


def stored(studio: LabelStudioProcess, project: int) -> int:
    """Return the number of predictions that Label Studio has of a project."""
    return len(list(studio.client.predictions.list(project=project)))


def test_a_project_is_prelabeled_from_the_page_and_that_is_taken_back(
    console: Page, studio: LabelStudioProcess, new_project: NewProject
) -> None:
    project = new_project(LABELS, seeds=list(range(700, 712)))
    job = prelabel(console, project)
    console.evaluate("window.loadedOnce = true")
    row = console.locator(f"#job-{job}")
    expect(row).to_contain_text("done", timeout=120_000)
    expect(row).to_contain_text("12 predicted of 12")
    assert console.evaluate("window.loadedOnce"), "it has renewed itself, and was not loaded again"
    assert stored(studio, project) == 12
    console.goto(urljoin(console.url, f"/projects/{project}"))
    said = "12 of 12 tasks left to correct have masks of the version in use"
    expect(console.locator("#prelabel")).to_contain_text(said)
    expect(console.locator("#correct")).to_contain_text("0 of 12 tasks done, 12 left")
    resize(console, PHONE)
    resize(console, DESK)
    console.get_by_role("link", name="Dashboard", exact=True).click()
    expect(row.get_by_role("button")).to_have_text(["Withdraw"])
    console.once("dialog", lambda question: question.accept())
    row.get_by_role("button").click()
    withdrawal = console.locator(f"#job-{job + 1}")
    expect(withdrawal).to_contain_text("12 of 12 predictions deleted", timeout=120_000)
    assert stored(studio, project) == 0


def test_the_focus_stays_when_the_page_renews_itself(
    console: Page, studio: LabelStudioProcess, new_project: NewProject
) -> None:
    project = new_project(["sky"], seeds=[])
    studio.client.tasks.create(project=project, data={"image": "/data/upload/1/gone.png"})
    job = prelabel(console, project)
    row = console.locator(f"#job-{job}")
    failed = row.get_by_role("link", name="1 failed")
    expect(failed).to_be_visible(timeout=60_000)
    failed.focus()
    row.evaluate("each => each.dataset.before = 'the next look'")  # so that it is drawn anew
    console.evaluate("refresh()")
    expect(console.locator("[data-before]")).to_have_count(0)
    expect(failed).to_be_focused()


def test_a_job_is_paused_resumed_and_cancelled_from_the_page(
    console: Page, studio: LabelStudioProcess, new_project: NewProject
) -> None:
    project = new_project(LABELS, seeds=list(range(720, 780)))
    job = prelabel(console, project)
    row = console.locator(f"#job-{job}")
    row.get_by_role("button", name="Pause").click()
    expect(console.get_by_role("status").first).to_contain_text(f"Job {job} is paused.")
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("running", timeout=60_000)
    console.once("dialog", lambda question: question.dismiss())
    row.get_by_role("button", name="Cancel").click()
    expect(row).not_to_contain_text("cancelled")
    console.once("dialog", lambda question: question.accept())
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("cancelled")
    assert stored(studio, project) < 60


def test_an_error_leads_to_the_task_in_label_studio(
    console: Page, studio: LabelStudioProcess, new_project: NewProject
) -> None:
    project = new_project(LABELS, seeds=[790])
    studio.client.tasks.create(project=project, data={"image": "/data/upload/1/gone.png"})
    task = max(task.id for task in studio.client.tasks.list(project=project))
    job = prelabel(console, project)
    expect(console.locator(f"#job-{job}")).to_contain_text("1 failed", timeout=60_000)
    line = console.locator("#errors tr").filter(has_text=f"Task {task}").first
    expect(line).to_contain_text("/data/upload/1/gone.png")
    title = "Streets at night, part two: the old town's squares"
    studio.client.projects.update(id=project, title=title)
    expect(line).to_contain_text(title, timeout=60_000)
    resize(console, PHONE)
    console.locator(f"#job-{job}").get_by_role("link", name="1 failed").click()
    console.locator("#job").get_by_role("link", name=f"Task {task}").click()
    console.wait_for_url(f"{studio.url}/projects/{project}/data?task={task}*")


def test_a_page_of_another_site_cannot_press_the_buttons(
    page: Page, studio: LabelStudioProcess, backend_url: str
) -> None:
    """The request comes from Label Studio's page, as the browser's headers say."""
    page.goto(f"{studio.url}/user/login/")
    with page.expect_response(f"{backend_url}/jobs") as answer:
        page.evaluate(
            """address => {
                const form = document.createElement("form");
                form.method = "post"; form.action = address;
                const project = document.createElement("input");
                project.name = "project"; project.value = "1";
                form.append(project); document.body.append(form); form.submit();
            }""",
            f"{backend_url}/jobs",
        )
    assert answer.value.status == 403


def test_a_data_set_is_exported_from_the_page_and_its_picture(
    console: Page, studio: LabelStudioProcess, new_project: NewProject, tmp_path: Path
) -> None:
    """What was painted is in the file; what cannot be read is told with its reason."""
    project = new_project(LABELS, seeds=[810, 811, 812])
    tasks = sorted(int(task.id) for task in studio.client.tasks.list(project=project))
    answer = get(studio, next(iter(studio.client.tasks.list(project=project))).data["image"])
    width, height = Image.open(io.BytesIO(answer.content)).size
    mask = np.zeros((height, width), np.bool_)
    mask[: height // 3] = True
    for task, size in zip(tasks[:2], ((height, width), (height, width - 1)), strict=True):
        painted = brush_region(mask, "grass")
        painted |= {"original_height": size[0], "original_width": size[1]}
        studio.post(f"/api/tasks/{task}/annotations/", json={"result": [painted]})
    console.goto(urljoin(console.url, f"/projects/{project}/datasets"))
    console.get_by_label("COCO (Detectron2").check()
    console.get_by_label("Split in percent").fill("80/20")
    console.get_by_text("More choices").click()
    console.get_by_label("Keep near-duplicates").fill("0.98")
    console.get_by_role("button", name="Export data set").click()
    link = console.get_by_role("link", name="Download")
    expect(link).to_be_visible(timeout=60_000)
    expect(console.locator(".jobs")).to_contain_text("near-duplicates from 0.98")
    expect(console.locator("#left-out")).to_contain_text(f"Task {tasks[1]}")
    expect(console.locator("#left-out")).to_contain_text(f"drawn on {width - 1}×{height} px")
    with console.expect_download() as started:
        link.click()
    assert started.value.suggested_filename.startswith(f"project-{project}-index-png-coco-")
    with zipfile.ZipFile(started.value.path()) as file:
        (name,) = (each for each in file.namelist() if each.startswith("masks/"))
        with Image.open(io.BytesIO(file.read(name))) as found:
            np.testing.assert_array_equal(np.asarray(found) == LABELS.index("grass"), mask)
        assert {"classes.json", "report.json", "annotations/instances_val.json"} <= {
            *file.namelist()
        }
    keep_picture(console, "dataset.png", tmp_path, (1100, 620))
    console.once("dialog", lambda question: question.accept())
    console.get_by_role("button", name="Delete").click()
    expect(console.locator(".jobs")).to_have_count(0)


@pytest.mark.thorough
def test_the_readmes_picture_of_the_page(
    console: Page, studio: LabelStudioProcess, new_project: NewProject, tmp_path: Path
) -> None:
    """Take the page on a wide and a narrow screen, light and dark; one is kept on request."""
    project = new_project(LABELS, seeds=list(range(800, 840)))
    studio.client.tasks.create(project=project, data={"image": "/data/upload/1/gone.png"})
    job = prelabel(console, project)
    expect(console.locator(f"#job-{job} progress")).to_be_visible(timeout=60_000)
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
