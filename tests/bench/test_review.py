"""Seconds a picture on the review page and in Label Studio's editor, on the same drawn tasks.

Nobody looks at the pictures: it is what the programs themselves take, and people's time is the
same beside both. A picture counts once it can be seen with its masks, and each is accepted.
"""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from backend.label_studio.requests import Task
from backend.services import Services
from backend.settings import Settings
from clearclip_core import SCENE_LABELS, render_scene
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import decode_rgb
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.browser import Dashboard
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


PHOTOS, BROWSER_THREADS = 40, 6


def test_forty_photographs_of_the_first_page(report: Report, tmp_path: Path) -> None:
    """Of 12 megapixels with nine masks each, once predicted, as a browser asks for them."""
    scene = render_scene(seed=30_000, size_hw=(3000, 4000))
    grain = np.random.default_rng(0).normal(0, 8, scene.image.shape)  # as a camera's: 3 to 4 MB
    photo = (scene.image + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=90)
    shown = np.unique(scene.label_map[scene.label_map >= 0]).tolist()
    masks = [
        brush_region(scene.label_map == index, SCENE_LABELS[index], to_name="image")
        for index in shown
    ]
    assert len(masks) == 9

    paths = {number: f"/data/upload/7/{number}.jpg" for number in range(1, PHOTOS + 1)}
    label_studio = FakeStudio(
        brush_config(*SCENE_LABELS),
        {number: {"image": path} for number, path in paths.items()},
        files=dict.fromkeys(paths.values(), file.getvalue()),
    )
    for task in paths:
        label_studio.add(task, "elsewhere", 1.0, masks)

    with label_studio.served() as server, colour_engine() as engine:
        given: dict[str, Any] = {
            "label_studio_url": server.url,
            "label_studio_api_key": TOKEN,
            "model_dir": tmp_path / "models",
            "database_url": f"sqlite:///{tmp_path}/review.db",
        }

        def backend() -> Dashboard:
            """Start a backend, as after a restart: it has nothing in memory."""
            return Dashboard(engine, **given)

        before_s, before_cpu_s = _forty(backend(), label_studio)
        images = Services(Settings(**given)).images
        for number, path in paths.items():  # what a job does with each, and encodes it then
            images.read_to_predict(path, Task(number, 7, {}))
        after_s, after_cpu_s = _forty(backend(), label_studio)

    begin = time.process_time()
    for _ in range(PHOTOS):
        with open_image(io.BytesIO(file.getvalue())) as image:
            decode_rgb(image, 480)
    decoding_s = time.process_time() - begin
    report.add(
        f"review: {PHOTOS} small pictures of 12 MP with nine masks, {BROWSER_THREADS} at once",
        "≤ 1 s once predicted",
        f"{after_s:.2f} s",
        f"processor time {after_cpu_s:.2f} s; without copies {before_s:.2f} s, processor time "
        f"{before_cpu_s:.2f} s, of which {decoding_s:.2f} s decode their files at an eighth",
    )
    assert after_cpu_s <= decoding_s


def _forty(lead: Dashboard, label_studio: FakeStudio) -> tuple[float, float]:
    """Load the page, then its pictures; return their seconds and processor time."""
    lead.page("/projects/7/review")
    addresses = [
        f"/projects/7/review/{each['task']}/{each['id']}" for each in label_studio.predictions
    ]
    begin, begin_cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(BROWSER_THREADS) as browser:
        answers = [*browser.map(lambda url: lead.app.test_client().get(url), addresses)]
    assert {each.mimetype for each in answers} == {"image/jpeg"}
    return time.perf_counter() - begin, time.process_time() - begin_cpu


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
