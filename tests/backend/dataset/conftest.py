"""Fixtures: exported tasks for data sets; a Label Studio with pictures, and a folder of masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.dataset.import_options import ImportOptions
from backend.dataset.mask_import import MaskImporter
from backend.label_studio.client import LabelStudioClient
from backend.services import Services
from backend.settings import load_settings
from tests.backend.dataset.exported_tasks import Bench, annotation, picture_bytes, task
from tests.backend.dataset.label_map_folder import CONFIG, VALUES, picture, put
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def one_task(bench: Bench) -> Callable[..., Bench]:
    """A project of one task with these regions."""

    def make(*regions: dict[str, Any]) -> Bench:
        bench.tasks = [task(1, bench.add("a.png", picture_bytes(1)), [annotation(1, [*regions])])]
        return bench

    return make


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


@pytest.fixture
def importer(server: LocalServer, client: LabelStudioClient) -> Callable[..., MaskImporter]:
    """Make an importer with options into project 7."""

    def make(version: str = "masks set", **options: Any) -> MaskImporter:
        settings = load_settings(label_studio_url=server.url, label_studio_api_key=TOKEN)
        images = Services(settings).images
        return MaskImporter(client, images, 7, ImportOptions(version, **options))

    return make
