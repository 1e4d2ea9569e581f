"""Pages in Chromium: their sizes and pictures, and the editor with the image's pixels."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Error, Locator, Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.masks import Mask
from tests.e2e.servers import get

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SIZE, DESK, PHONE = (1440, 900), (1280, 900), (390, 844)


def visit(page: Page, url: str) -> None:
    """Open a page, though the one before renews itself at that moment, which ends the visit.

    Once more where a busy Label Studio has not told the backend in time what the page is to show.
    """
    for left in reversed(range(5)):
        try:
            page.goto(url)
            if not left or not page.get_by_text("Label Studio has not answered within").count():
                return
        except Error as error:
            if "interrupted by another navigation" not in str(error) or not left:
                raise
        page.wait_for_timeout(500)


def press(button: Locator) -> None:
    """Press what sends a form, and wait until the backend has done what it asks for."""
    with button.page.expect_response(lambda answer: answer.request.method == "POST"):
        button.click()


def resize(page: Page, size: tuple[int, int]) -> None:
    """Make the window (width, height) px; nothing may lie beside it."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def check_accessibility(page: Page) -> None:
    """Let axe-core look at a page in light and dark colours, on a desk and on a phone."""
    for scheme, size in (("light", SIZE), ("dark", PHONE)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        resize(page, size)
        found = Axe().run(page).response["violations"]
        told = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
        assert told == [], (page.url, scheme)
    page.emulate_media(color_scheme="no-preference")
    resize(page, SIZE)


def keep_picture(page: Page, name: str, folder: Path, size: tuple[int, int]) -> None:
    """Take a picture of a page for the docs, only where it is asked for; then look at it closer."""
    resize(page, size)
    path = IMAGES if os.environ.get("TAKE_PICTURE") else folder
    (path / name).write_bytes(settled(page))
    check_accessibility(page)


def keep_part(part: Locator, name: str, folder: Path, size: tuple[int, int]) -> None:
    """Take a picture of a part of a page that is not scrolled, as `keep_picture` does."""
    page = part.page
    resize(page, size)
    path = (IMAGES if os.environ.get("TAKE_PICTURE") else folder) / name
    settled(page, path=path, clip=part.bounding_box(), full_page=True)
    resize(page, PHONE)
    resize(page, SIZE)


def keep_editor_picture(page: Page, name: str, folder: Path) -> None:
    """Take a picture of the editor without the list of tasks, as `keep_picture` does."""
    canvas: Any = page.locator(".konvajs-content").bounding_box()
    left, top = canvas["x"] - 14, canvas["y"] - 56
    path = (IMAGES if os.environ.get("TAKE_PICTURE") else folder) / name
    clip = {"x": left, "y": top, "width": SIZE[0] - left, "height": SIZE[1] - top}
    settled(page, path=path, clip=clip)


@contextmanager
def no_complaints(page: Page, backend_url: str, expected: str = "\0") -> Iterator[None]:
    """Fail where a page of the backend has an error, or its console one without a text."""
    found: list[str] = []

    def note(said: object) -> None:
        if page.url.startswith(backend_url) and expected not in str(said):
            found.append(str(said))

    page.on("pageerror", note)
    page.on("console", lambda said: said.type == "error" and note(f"{said.text} {said.location}"))
    yield
    assert found == []


def make_view(page: Page, studio: LabelStudioProcess, project: int, title: str) -> list[int]:
    """Make the view of the page that is open, look at its tab, and return its tasks."""

    def views() -> list[int]:
        listed = get(studio, f"/api/dm/views?project={project}").json()
        return [each["id"] for each in listed if each["data"]["title"] == title]

    button = page.get_by_role("button", name="Make a view")
    page.once("dialog", lambda question: question.dismiss())
    button.click()
    assert views() == [], "nobody said yes"
    page.once("dialog", lambda question: question.accept())
    press(button)
    (view,) = views()
    shown = get(studio, f"/api/tasks?view={view}&project={project}").json()["tasks"]
    open_tab(page, studio.url, project, view)
    return sorted(each["id"] for each in shown)


def switch(page: Page, name: str, on: bool) -> None:
    """Turn a switch below the editor on or off, once it is there."""
    toggle = page.locator(f"[data-testid=bottombar-{name}-toggle]")
    toggle.wait_for(state="attached")
    if toggle.is_checked() != on:
        toggle.click(force=True)
        expect(toggle).to_be_checked(checked=on)


def open_task(page: Page, studio: LabelStudioProcess, project: int, task: int) -> None:
    visit(page, f"{studio.url}/projects/{project}/data?task={task}")
    page.wait_for_selector(".konvajs-content canvas")
    page.wait_for_function("window.Htx?.annotationStore?.selected?.regions?.length > 0")
    page.wait_for_timeout(500)  # the masks are decoded and drawn after they are listed
    settled(page)


def settled(page: Page, **options: Any) -> bytes:
    """Take screenshots until two in a row are equal, and return the last."""
    before, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        page.wait_for_timeout(200)
        shot = page.screenshot(animations="disabled", **options)
        if shot == before:
            return shot
        before = shot
    raise AssertionError("The page does not come to rest.")


def open_tab(page: Page, studio_url: str, project: int, view: int) -> None:
    visit(page, f"{studio_url}/projects/{project}/data?tab={view}")
    expect(page.get_by_text("Label All Tasks")).to_be_visible()


def deepest_point(mask: Mask) -> tuple[int, int]:
    """Return row and column of the mask's pixel farthest from its outside and the image's edge."""
    framed = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row) - 1, int(column) - 1


class Canvas:
    """The image in the editor: positions and colours of its pixels on the screen."""

    def __init__(self, page: Page, size_hw: tuple[int, ...]) -> None:
        self.page = page
        self.box: Any = page.locator(".konvajs-content").bounding_box()
        width, height, zoom, left, top = page.evaluate(
            """() => {
                const image = Htx.annotationStore.selected.names.get("image");
                return [image.stageWidth, image.stageHeight, image.zoomScale,
                        image.zoomingPositionX, image.zoomingPositionY];
            }"""
        )
        self.xs = (np.arange(size_hw[1]) + 0.5) / size_hw[1] * width * zoom + left  # of columns
        self.ys = (np.arange(size_hw[0]) + 0.5) / size_hw[0] * height * zoom + top  # of rows

    def read_pixels(self) -> tuple[npt.NDArray[np.int64], Mask]:
        """Return (H, W, 3) colours of the image's pixels on the screen, and (H, W) bool visible."""
        shot = np.asarray(Image.open(io.BytesIO(settled(self.page, clip=self.box))))[..., :3]
        xs, ys = np.meshgrid(self.xs.astype(int), self.ys.astype(int))
        height, width = shot.shape[:2]
        in_sight = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
        return shot[ys.clip(0, height - 1), xs.clip(0, width - 1)].astype(np.int64), in_sight

    def on_screen(self, row: int, column: int) -> tuple[float, float]:
        return self.box["x"] + float(self.xs[column]), self.box["y"] + float(self.ys[row])


def drag(page: Page, start: tuple[float, float], by: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0], start[1] + by[1], steps=8)
    page.mouse.up()
    page.wait_for_timeout(300)


def submit(page: Page, task: int) -> None:
    """Submit the annotation that is open, and wait until Label Studio has stored it."""
    with page.expect_response(lambda answer: f"/api/tasks/{task}/annotations" in answer.url):
        page.click("[data-testid=bottombar-submit-button]")


def erase_a_little(page: Page, label: str, mask: Mask) -> tuple[int, int]:
    """Erase a stroke in the middle of a region; return the row and column it goes through."""
    middle = deepest_point(mask)
    x, y = Canvas(page, mask.shape).on_screen(*middle)
    page.locator("[class*=outliner-item]").filter(has_text=label).first.click()
    page.click("[aria-label=eraser]")
    drag(page, (x - 15, y), (30, 0))
    return middle
