"""The editor in Chromium: open a task, and find the image's pixels on the screen."""

from __future__ import annotations

import io
import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.masks import Mask


def open_task(page: Page, studio: LabelStudioProcess, project: int, task: int) -> None:
    page.goto(f"{studio.url}/projects/{project}/data?task={task}")
    page.wait_for_selector(".konvajs-content canvas")
    page.wait_for_function("window.Htx?.annotationStore?.selected?.regions?.length > 0")
    page.wait_for_timeout(500)  # the masks are decoded and drawn after they are listed
    settled(page)


def settled(page: Page, **options: Any) -> bytes:
    """Take screenshots until two in a row are equal, and return the last."""
    before, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        page.wait_for_timeout(200)
        shot = page.screenshot(animations="disabled", **options)
        if shot == before:
            return shot
        before = shot
    raise AssertionError("The page does not come to rest.")


def open_tab(page: Page, studio_url: str, project: int, view: int) -> None:
    """Open a view of the data manager, and wait for its list of tasks."""
    page.goto(f"{studio_url}/projects/{project}/data?tab={view}")
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
        shot = np.asarray(
            Image.open(io.BytesIO(self.page.screenshot(clip=self.box))).convert("RGB")
        )
        xs, ys = np.meshgrid(self.xs.astype(int), self.ys.astype(int))
        height, width = shot.shape[:2]
        in_sight = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
        return shot[ys.clip(0, height - 1), xs.clip(0, width - 1)].astype(np.int64), in_sight

    def on_screen(self, row: int, column: int) -> tuple[float, float]:
        """Return the position of an image's pixel on the page."""
        return self.box["x"] + float(self.xs[column]), self.box["y"] + float(self.ys[row])
