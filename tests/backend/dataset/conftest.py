"""A stand-in for Label Studio with pictures, and a folder of label maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.dataset.import_options import ImportOptions
from backend.dataset.mask_import import MaskImporter
from backend.label_studio.client import LabelStudioClient
from backend.services import Services
from backend.settings import load_settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer

CONFIG = """<View><Image name="img" value="$image"/>
  <BrushLabels name="mask" toName="img"><Label value="Sky"/>
    <Label value="Traffic Light" alias="tl"/></BrushLabels>
  <PolygonLabels name="outline" toName="img"><Label value="Sky"/><Label value="Car"/>
  </PolygonLabels></View>"""

#: 0: Sky; 1: Traffic Light; 255: nothing.
VALUES = np.full((40, 60), 255, np.uint8)
VALUES[:10] = 0
VALUES[20:30, 5:15] = VALUES[20:30, 30:40] = 1


def picture(size_hw: tuple[int, int] = (40, 60), orientation: int = 1) -> bytes:
    """A JPEG whose stored pixels have a size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", size_hw[::-1]).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture
def studio() -> FakeStudio:
    """Three tasks with uploaded pictures `a.jpg`, `b.jpg` and `c.jpg`."""
    paths = {task: f"/data/upload/7/0000000{task}-{name}.jpg" for task, name in enumerate("abc", 1)}
    studio = FakeStudio(CONFIG, {task: {"image": path} for task, path in paths.items()})
    studio.files = dict.fromkeys(paths.values(), picture())
    return studio


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


@pytest.fixture
def client(server: LocalServer) -> LabelStudioClient:
    return LabelStudioClient(server.url, TOKEN, retry_for_s=20, first_pause_s=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Label maps of `a` and `b`."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "names.txt").write_text("sky\ntraffic_light\n")
    for name in "ab":
        put(folder, name, VALUES)
    return folder


def put(folder: Path, name: str, values: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(values).save(folder / f"{name}.png")


@pytest.fixture
def importer(server: LocalServer, client: LabelStudioClient) -> Callable[..., MaskImporter]:
    """Make an importer with options into project 7."""

    def make(version: str = "masks set", **options: Any) -> MaskImporter:
        settings = load_settings(label_studio_url=server.url, label_studio_api_key=TOKEN)
        images = Services(settings).images
        return MaskImporter(client, images, 7, ImportOptions(version, **options))

    return make
