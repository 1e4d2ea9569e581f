"""Archives are made of what a stand-in for Label Studio's API has."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.database.database import Database
from backend.dataset.archives.archive_maker import ArchiveFiles, ArchiveMaker
from backend.dataset.archives.archive_request import ArchiveRequest
from backend.dataset.archives.archive_store import ArchiveStore
from backend.dataset.splits import Split
from backend.errors import ModelUnavailable, StudioUnreachable
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import RGBArray
from backend.settings import Settings
from tests.backend.dataset.exported_tasks import CONFIG, brush_region, picture_bytes, rectangle
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked

MASK = rectangle(5, 5, 20, 30)
DAY_S = 86_400


class Clock:
    passed_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.passed_s


class Describer:
    """Finds all pictures alike, or has no model."""

    model = "m"
    fails = False

    def describe(self, rgb: RGBArray) -> bytes:
        if self.fails:
            raise ModelUnavailable("There is no model.")
        return (np.ones(4, np.float16) / 2).tobytes()


class World:
    """A project of three tasks, the last without a picture, and a maker."""

    def __init__(self, folder: Path, studio: FakeStudio, url: str, **limits: Any) -> None:
        self.studio = studio
        self.settings = Settings(
            model_dir=folder, label_studio_url=url, label_studio_api_key=TOKEN, **limits
        )
        self.clock = Clock()
        self.store = ArchiveStore(Database(f"sqlite:///{folder}/shared.db", self.clock))
        self.files = ArchiveFiles(self.settings)
        self.stopping = threading.Event()
        self.describer = Describer()
        self.maker = self.new_maker()

    def new_maker(self) -> ArchiveMaker:
        client = LabelStudioClient.from_settings(self.settings, retry_for_s=0)
        assert client is not None
        return ArchiveMaker(
            self.store,
            self.files,
            client,
            lambda source, task: self.studio.files[source],
            self.describer,
            self.settings,
            "a",
            self.stopping,
        )

    def left(self) -> list[str]:
        return [path.name for path in self.files.root.rglob("*") if path.is_file()]


@pytest.fixture
def studio() -> FakeStudio:
    made = FakeStudio(CONFIG, {n: {"image": f"/data/upload/7/{n}.png"} for n in (1, 2, 3)})
    made.made[3] = 1.0
    for number in (1, 2):
        made.files[f"/data/upload/7/{number}.png"] = picture_bytes(number)
        made.annotate(number, [brush_region(MASK, "road")])
    return made


@pytest.fixture
def world(tmp_path: Path, studio: FakeStudio) -> Iterator[World]:
    with studio.served() as server:
        yield World(tmp_path, studio, server.url)


def test_an_archive_holds_what_was_asked_for(world: World) -> None:
    asked = world.store.request(ArchiveRequest(7, formats=("index-png", "coco")))
    assert world.maker.make_next()
    assert not world.maker.make_next()
    done = world.store.get(asked.id)
    assert (done.state, done.done, done.total) == ("done", 3, 3)
    assert (done.report["pictures"], done.report["unlabelled"]) == (2, 1)
    assert done.size_bytes == world.files.path(done).stat().st_size
    assert world.left() == ["dataset.zip"], "the folder of the work is gone"
    with zipfile.ZipFile(world.files.path(done)) as archive:
        names = set(archive.namelist())
        assert {"images/1.png", "masks/2.png", "annotations/instances_train.json"} <= names
        assert json.loads(archive.read("report.json"))["pictures"] == 2
        with Image.open(io.BytesIO(archive.read("masks/1.png"))) as mask:
            np.testing.assert_array_equal(np.asarray(mask) == 1, MASK)


def test_a_project_that_is_not_there_has_failed_with_a_sentence(world: World) -> None:
    asked = world.store.request(ArchiveRequest(8))
    assert world.maker.make_next()
    failed = world.store.get(asked.id)
    assert failed.state == "failed"
    assert "404" in failed.reason or "no project" in failed.reason
    assert world.left() == []


def test_a_set_over_the_limit_has_failed(tmp_path: Path, studio: FakeStudio) -> None:
    studio.files["/data/upload/7/1.png"] = picture_bytes(1, (700, 800))
    studio.annotations.clear()
    studio.annotate(1, [brush_region(np.ones((700, 800), np.bool_), "road")])
    with studio.served() as server:
        world = World(tmp_path, studio, server.url, dataset_mb=1)
        asked = world.store.request(ArchiveRequest(7))
        assert world.maker.make_next()
    assert "more than DATASET_MB=1" in world.store.get(asked.id).reason
    assert world.left() == []


def test_an_outage_releases_the_archive_for_later(world: World) -> None:
    asked = world.store.request(ArchiveRequest(7))
    world.studio.fault = lambda _: Answer(503)
    with pytest.raises(StudioUnreachable):
        world.maker.make_next()
    assert world.store.get(asked.id).state == "queued"
    world.studio.fault = lambda _: None
    assert world.maker.make_next()
    assert world.store.get(asked.id).state == "done"


def test_an_unexpected_error_ends_it_and_the_next_has_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.store.request(ArchiveRequest(7))
    second = world.store.request(ArchiveRequest(7, formats=("yolo",)))
    with monkeypatch.context() as broken:
        broken.setattr(world.maker, "_export", lambda _: 1 / 0)
        assert world.maker.make_next()
    assert "the log of the backend" in world.store.get(first.id).reason
    assert world.maker.make_next()
    assert world.store.get(second.id).state == "done"


def test_a_stop_releases_the_archive(world: World) -> None:
    asked = world.store.request(ArchiveRequest(7))
    world.stopping.set()
    assert world.maker.make_next()
    assert world.store.get(asked.id).state == "queued"


def test_a_deleted_archive_is_given_up_with_its_files(world: World) -> None:
    asked = world.store.request(ArchiveRequest(7))

    def delete(asked_of: Asked) -> Answer | None:
        if "/annotations" in asked_of.path and world.store.list_archives():
            world.store.delete(asked.id)
        return None

    world.studio.fault = delete
    assert world.maker.make_next()
    assert world.store.list_archives() == []
    assert world.left() == []


def test_old_archives_and_forgotten_folders_are_removed(world: World) -> None:
    world.store.request(ArchiveRequest(7))
    world.maker.make_next()
    forgotten, fresh = world.files.root / "forgotten", world.files.root / "fresh"
    forgotten.mkdir()
    fresh.mkdir()
    os.utime(forgotten, (time.time() - 9 * DAY_S,) * 2)
    world.clock.passed_s = 7.5 * DAY_S
    assert world.store.list_archives(), "not looked at before its time"
    assert not world.new_maker().make_next()
    assert world.store.list_archives() == []
    assert [path.name for path in world.files.root.iterdir()] == ["fresh"]


def test_near_duplicates_are_in_one_part(world: World) -> None:
    split = Split((50, 50))
    for number in range(4, 12):  # of which chance alone puts some into each part
        world.studio.create({"image": f"/data/upload/7/{number}.png"})
        world.studio.files[f"/data/upload/7/{number}.png"] = picture_bytes(number)
        world.studio.annotate(number, [brush_region(MASK, "road")])
    for least_cosine, shares in ((None, 2), (0.98, 1)):
        asked = world.store.request(ArchiveRequest(7, split=split, least_cosine=least_cosine))
        assert world.maker.make_next()
        parts = world.store.get(asked.id).report["parts"]
        assert sum(count > 0 for count in parts.values()) == shares


def test_without_a_model_the_next_ones_have_their_turn(world: World) -> None:
    world.describer.fails = True
    asked = world.store.request(ArchiveRequest(7, split=Split((50, 50)), least_cosine=0.98))
    assert world.maker.make_next()
    done = world.store.get(asked.id)
    assert (done.state, done.reason) == (
        "failed",
        "Near-duplicates need the model. There is no model.",
    )


def test_a_model_that_stops_with_the_backend_is_waited_for(world: World) -> None:
    asked = world.store.request(ArchiveRequest(7, split=Split((50, 50)), least_cosine=0.98))

    def stop(rgb: RGBArray) -> bytes:
        world.stopping.set()
        raise ModelUnavailable("The backend shuts down.")

    world.describer.describe = stop  # type: ignore[method-assign]
    assert world.maker.make_next()
    assert world.store.get(asked.id).state == "queued"
