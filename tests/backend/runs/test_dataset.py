"""Data sets are made of what a stand-in for Label Studio's API has."""

import io
import json
import os
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from backend.database.database import Database
from backend.dataset import exporter as exporter_module
from backend.dataset.dataset_options import ON_THE_PAGE
from backend.dataset.dataset_report import Change, ClassCount
from backend.errors import BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.runs import runner as runner_module
from backend.runs.dataset import DATASETS, AskedDataset, file_of, folder_of, move_into_zip
from backend.runs.run_store import Run, RunStore
from backend.runs.runner import Runner
from backend.settings import Settings
from clearclip_core import RGBArray
from tests.backend.dataset.drawn_tasks import CONFIG, brush_region, picture_bytes, rectangle
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.runs.samples import run_parts
from tests.backend.web.browser import Dashboard, Page

MASK = rectangle(5, 5, 20, 30)
DAY_S = 86_400


class Describer:
    """Finds all pictures alike, or each like itself alone."""

    features: dict[bytes, int] | None = None

    def describe(self, rgb: RGBArray) -> bytes:
        known = self.features
        number = 0 if known is None else known.setdefault(rgb.tobytes(), len(known))
        return np.eye(16, dtype=np.float16)[number].tobytes()


class World:
    """A project of three tasks, the last without a picture, and a backend that exports it."""

    def __init__(self, folder: Path, studio: FakeStudio, url: str, **limits: Any) -> None:
        self.studio = studio
        reach = {"label_studio_url": url, "label_studio_api_key": TOKEN}
        self.settings = Settings(model_dir=folder, **reach, **limits)
        self.store = RunStore(Database(f"sqlite:///{folder}/shared.db"), "a")
        self.stopping = threading.Event()
        client = LabelStudioClient.from_settings(self.settings, retry_for_s=0)
        images = SimpleNamespace(read_file=lambda source, task: self.studio.files[source])
        images.telling = lambda begin: images
        parts: Any = run_parts(client=client, images=images, engine=0, settings=self.settings)
        self.runner = Runner([DATASETS], self.store, parts, self.stopping)

    def export(self, **asked: Any) -> Run:
        run = self.store.request(DATASETS, 7, AskedDataset(**asked))
        assert self.runner.run_next()
        return self.store.get(DATASETS, 7, run.id)

    def report(self, run: Run) -> Any:
        report = self.store.report(DATASETS, run)
        assert report is not None, run.reason
        return report

    def left(self) -> list[str]:
        root = self.settings.model_dir / "datasets"
        files = (path for path in root.glob("[0-9]*/**/*") if path.is_file())
        return [path.name for path in files]


@pytest.fixture(autouse=True)
def describer(monkeypatch: pytest.MonkeyPatch) -> Describer:
    made = Describer()
    monkeypatch.setattr(exporter_module, "describe_image", made.describe)
    monkeypatch.setattr(runner_module, "_NOTE_EVERY_S", 0.0)
    return made


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


def test_a_file_holds_what_was_asked_for(world: World) -> None:
    done = world.export(formats=("index-png", "coco"))
    assert (done.state, done.total) == ("done", 2)
    report = world.report(done)
    assert (report.pictures, report.unlabelled) == (2, 1)
    path = file_of(world.settings, done)
    assert report.size_bytes == path.stat().st_size
    assert world.left() == ["dataset.zip"], "the folder of the work is gone"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        assert {"images/1.png", "masks/2.png", "annotations/instances_train.json"} <= names
        assert json.loads(archive.read("report.json"))["pictures"] == 2
        with Image.open(io.BytesIO(archive.read("masks/1.png"))) as mask:
            np.testing.assert_array_equal(np.asarray(mask) == 1, MASK)


def test_a_set_over_the_limit_has_failed(tmp_path: Path, studio: FakeStudio) -> None:
    studio.files["/data/upload/7/1.png"] = picture_bytes(1, (700, 800))
    studio.annotations.clear()
    studio.annotate(1, [brush_region(np.ones((700, 800), np.bool_), "road")])
    with studio.served() as server:
        world = World(tmp_path, studio, server.url, dataset_mb=1)
        failed = world.export()
    assert "more than DATASET_MB=1" in failed.reason
    assert world.left() == []


def test_one_that_is_cancelled_or_deleted_is_given_up_with_its_files(world: World) -> None:
    for end in (world.store.cancel, world.store.delete):

        def act(asked: Asked, end: Any = end) -> Answer | None:
            runs = world.store.runs(DATASETS, 7)
            if "fields=all" in asked.path and runs and not runs[0].is_over:
                end(runs[0])
            return None

        world.studio.fault = act
        world.store.request(DATASETS, 7, AskedDataset())
        assert world.runner.run_next()
        assert not [*(world.settings.model_dir / "datasets").glob("*")]
    assert [run.state for run in world.store.runs(DATASETS, 7)] == ["cancelled"]


def test_files_of_old_data_sets_are_removed_by_the_next(world: World) -> None:
    young, old = world.export(), world.export(formats=("coco",))
    os.utime(folder_of(world.settings, old), (time.time() - 7.5 * DAY_S,) * 2)
    world.export()
    assert folder_of(world.settings, young).exists()
    assert not folder_of(world.settings, old).exists()


def add_pictures(world: World) -> None:
    """Add eight annotated pictures; chance alone puts some into each part."""
    for number in range(4, 12):
        world.studio.create({"image": f"/data/upload/7/{number}.png"})
        world.studio.files[f"/data/upload/7/{number}.png"] = picture_bytes(number)
        world.studio.annotate(number, [brush_region(MASK, "road")])


def test_near_duplicates_are_in_one_part(world: World) -> None:
    add_pictures(world)
    for least, shares in ((None, 2), (0.98, 1)):
        report = world.report(world.export(split="50/50", near_duplicates=least, resplit=True))
        assert sum(count > 0 for count in report.parts.values()) == shares
    assert any("10 of 10 pictures belong together" in each for each in report.notes)


def test_pictures_stay_in_their_parts_from_file_to_file(world: World, describer: Describer) -> None:
    """Also where a new picture is near to several, and was annotated before them."""

    def parts(**asked: Any) -> dict[int, str]:
        run = world.export(split="50/50", near_duplicates=0.98, **asked)
        with zipfile.ZipFile(file_of(world.settings, run)) as archive:
            rows = map(json.loads, archive.read("pictures.jsonl").splitlines())
            return {row["task"]: row["part"] for row in rows}

    describer.features = {}  # each picture has its own
    add_pictures(world)
    before = parts()
    assert len(set(before.values())) == 2
    describer.features = None  # all pictures are alike
    assert parts() == before
    world.export(split="60/40", resplit=True)
    assert parts() == before, "the file between was divided otherwise"
    files, world.studio.files = world.studio.files, dict.fromkeys(world.studio.files, b"")
    failed = world.export(split="50/50", near_duplicates=0.98)
    assert "nothing is written, and earlier sets stay" in failed.reason
    world.studio.files = files
    for file in world.settings.model_dir.rglob("*.zip"):
        file.unlink()
    assert parts() == before, "a file that is gone does not move them"


@pytest.mark.parametrize("is_newest", [True, False])
def test_the_newest_set_says_where_pictures_are(world: World, is_newest: bool) -> None:
    """What is remembered is turned round, and counts where it is newer than the file."""

    def parts() -> dict[int, str]:
        run = world.export(split="50/50")
        with zipfile.ZipFile(file_of(world.settings, run)) as archive:
            rows = map(json.loads, archive.read("pictures.jsonl").splitlines())
            return {row["task"]: row["part"] for row in rows}

    before = parts()
    (known,) = (world.settings.model_dir / "datasets").glob("known-*")
    rows = (known / "pictures.jsonl").read_text()
    swapped = rows.replace('"train"', '"?"')
    swapped = swapped.replace('"val"', '"train"').replace('"?"', '"val"')
    (known / "pictures.jsonl").write_text(swapped)
    os.utime(known, (time.time() + (60 if is_newest else -60),) * 2)
    turned = {task: {"train": "val", "val": "train"}[part] for task, part in before.items()}
    assert parts() == (turned if is_newest else before)


def test_a_set_says_what_is_in_it_and_what_has_changed_since_the_last(world: World) -> None:
    assert world.report(world.export(split="50/50")).changes is None
    world.studio.annotate(2, [brush_region(MASK, "sky")])
    add_pictures(world)
    report = world.report(world.export(formats=("coco",)))
    assert report.changes.pictures == Change(new=8, corrected=1)
    road, sky = Change(new=8, corrected=1), Change(corrected=1)
    assert report.changes.classes == {"road": road, "sky": sky}
    assert report.classes["sky"] == {"train": ClassCount(1, 1, 100)}
    assert list(report.classes) == ["sky", "road"]


def test_notes_of_the_page_name_no_option_of_the_command(world: World) -> None:
    add_pictures(world)
    world.studio.annotate(1, [brush_region(MASK, "lane")])
    report = world.report(world.export(formats=("index-png", "yolo"), split="50/50"))
    told = " ".join([*report.notes, *report.left_out.values()])
    assert "Nearly the same" in told
    assert "“Class of unpainted pixels”" in told
    assert "--" not in told


def test_the_page_shows_the_masks_and_what_is_alike(world: World, tmp_path: Path) -> None:
    add_pictures(world)
    world.studio.annotate(1, [brush_region(MASK, "sky")])
    world.export(split="50/50")
    dashboard = Dashboard(
        model_dir=tmp_path,
        database_url=world.store.database.url.render_as_string(False),
        label_studio_url=world.settings.label_studio_url,
        label_studio_api_key=TOKEN,
    )
    page = dashboard.page("/projects/7/datasets")
    sources = [str(each["src"]) for each in page.all("img")]
    assert len(sources) > 6 + 1, "six pictures, one of the class, and pairs: all are found alike"
    assert all(source.startswith("data:image/jpeg") for source in sources)
    sections = [each.get("id") for each in page.all("section")]
    assert [name for name in ("shown", "alike", "lacked") if name in sections] == [
        "shown",
        "alike",
        "lacked",
    ]


def test_choices_are_those_of_an_exporter() -> None:
    asked = AskedDataset(formats=("coco", "yolo", "coco"), annotations="5", overlap="score")
    assert asked.options.formats == ("coco", "yolo")
    assert (asked.options.choice.annotator, asked.options.overlap) == (5, "score")
    assert AskedDataset(formats=("parquet",)).options.pictures == "none", "tables hold them"


@pytest.mark.parametrize(
    "wrong",
    [
        {"formats": []},
        {"annotations": "best"},
        {"near_duplicates": 0.9},  # without a split
        {"split": "80/20", "near_duplicates": 1.5},
    ],
)
def test_other_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((BadRequest, msgspec.ValidationError), match=r"^(Expected|Invalid) "):
        msgspec.convert(wrong, AskedDataset)


def test_a_data_set_is_exported_and_deleted_on_the_page(world: World, tmp_path: Path) -> None:
    dashboard = Dashboard(
        model_dir=tmp_path,
        database_url=world.store.database.url.render_as_string(False),
        label_studio_url=world.settings.label_studio_url,
        label_studio_api_key=TOKEN,
    )
    path = "/projects/7/datasets"
    for form in ({"formats": "coco", "split": "50/60"}, {"split": "", "pictures": "true"}):
        refused = dashboard.post(path, form)
        assert refused.status_code == 400
        assert "Expected " in Page(refused).text
    assert dashboard.post(path, {"formats": "coco", "renamed": "lane"}).status_code == 400
    form_page = dashboard.page(f"{path}?renamed=lane").text
    assert "lane=" in form_page
    for words in asdict(ON_THE_PAGE).values():
        assert all(name in form_page for name in re.findall("“(.+?)”", words)), words
    world.studio.annotate(1, [brush_region(MASK, "lane")])
    form = {"formats": ["coco", "yolo"], "annotator": "", "renamed": "lane = road\r\n\r\nold="}
    assert dashboard.post(path, form).status_code == 303
    (run,) = world.store.runs(DATASETS, 7)
    assert dashboard.client.get(f"{path}/{run.id}/file").status_code == 404, "it has no file yet"
    assert world.runner.run_next()
    text = dashboard.page(path).text
    assert "coco, yolo" in text
    assert "Classtrainroad2 pictures, 2 objects" in "".join(text.split("\n")).replace("  ", "")
    assert "lane: road, old: left out" in text
    file = dashboard.client.get(f"{path}/{run.id}/file")
    assert zipfile.ZipFile(io.BytesIO(file.data)).testzip() is None
    assert f"project-7-coco-yolo-{run.id}.zip" in file.headers["Content-Disposition"]
    file_of(world.settings, run).unlink()
    gone = dashboard.client.get(f"{path}/{run.id}/file")
    assert "another backend has made it" in json.loads(gone.data)["error"]
    assert dashboard.post(f"{path}/{run.id}/delete").status_code == 303
    assert world.store.runs(DATASETS, 7) == []
    assert not folder_of(world.settings, run).exists()


def test_visible_files_are_moved_and_read_again(tmp_path: Path) -> None:
    folder, path = tmp_path / "set", tmp_path / "out" / "set.zip"
    contents = {"masks/größe.png": b"\x89" * 50, "classes.json": b"{}" * 500, ".parts/a": b"x"}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    path.parent.mkdir()
    assert move_into_zip(folder, path) == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = {each.filename: each for each in archive.infolist()}
        assert set(found) == {"masks/größe.png", "classes.json"}
        assert archive.read("classes.json") == contents["classes.json"]
        assert found["classes.json"].compress_size < 100
        assert found["masks/größe.png"].compress_type == zipfile.ZIP_STORED
    assert [each.name for each in folder.rglob("*") if each.is_file()] == ["a"], "the hidden file"
