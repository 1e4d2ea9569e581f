"""The command `clearclip-backend dataset`, on an exported file and on a project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from backend.cli.dataset import dataset
from tests.backend.dataset.exported_tasks import (
    CONFIG,
    SIZE_HW,
    annotation,
    brush_region,
    picture_bytes,
    rectangle,
    task,
)
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked

SKY = brush_region(rectangle(0, 0, 20, 60), "sky")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(dataset, [str(each) for each in arguments])


@pytest.fixture
def exported(tmp_path: Path) -> list[str]:
    (tmp_path / "config.xml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "photos/cars").mkdir(parents=True)
    (tmp_path / "photos/cars/a b.png").write_bytes(picture_bytes(1))
    source = "/data/local-files/?d=other/cars/a%20b.png"
    tasks = [task(1, source, [annotation(1, [SKY])]), task(2, "/data/upload/7/gone.png", [])]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    return [
        *("--export", str(tmp_path / "tasks.json"), "--to", str(tmp_path / "set")),
        *("--label-config", str(tmp_path / "config.xml")),
        *("--picture-folder", str(tmp_path / "photos")),
    ]


def test_an_exported_file_becomes_a_data_set_without_network(
    exported: list[str], tmp_path: Path
) -> None:
    done = run(*exported, "--format", "coco", "--format", "yolo")
    assert done.exit_code == 0, done.output
    assert "1 picture (1 train) with 1 region; 2 tasks read, 1 without" in done.output
    assert (tmp_path / "set/images/a b.png").read_bytes() == picture_bytes(1)
    assert (tmp_path / "set/annotations/instances_train.json").is_file()
    assert (tmp_path / "set/data.yaml").is_file()


def test_what_is_skipped_is_told_and_the_status_says_so(
    exported: list[str], tmp_path: Path
) -> None:
    (tmp_path / "photos/cars/a b.png").unlink()
    done = run(*exported)
    assert done.exit_code == 1
    assert 'Task 1: There is no file for "/data/local-files/' in done.output
    told = json.loads((tmp_path / "set/report.json").read_text())
    assert [each["task"] for each in told["skipped"]] == [1]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--project", 7), "either --project or --export"),
        (("--view", 7), "--view only together with --project"),
        (("--split", "80/30"), "make 100"),
        (("--near-duplicates", "0.9"), "together with --split"),
        (("--annotations", "best"), "ground-truth"),
        (("--map", "House"), "OLD=NEW"),
        (("--map", "House=Building"), "names no label of the labeling config"),
        (("--pictures", "copy", "--format", "bmp"), "bmp"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    exported: list[str], more: tuple[Any, ...], sentence: str, tmp_path: Path
) -> None:
    done = run(*exported, *more)
    assert done.exit_code != 0
    assert sentence in done.output
    assert not (tmp_path / "set").exists()


def test_a_task_whose_annotations_are_too_large_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 200_000)

    def files(asked: Asked) -> Answer | None:
        return Answer(body=picture_bytes(1)) if asked.path.endswith(".png") else None

    studio = FakeStudio(CONFIG, {}, fault=files)
    for name, text in (("a", "x" * 200_000), ("b", "")):
        number = studio.create({"image": f"/data/upload/7/{name}.png"})
        studio.annotate(number, [SKY | {"meta": {"text": text}}])
    with studio.served() as server:
        done = run(
            *("--project", 7, "--to", tmp_path / "set", "--label-studio-url", server.url),
            *("--label-studio-api-key", TOKEN, "--allowed-hosts", "127.0.0.1"),
        )
    assert done.exit_code == 1
    assert "1 picture " in done.output
    assert f"Task 1: Label Studio at {server.url} sends more than 0 MB" in done.output


def test_a_project_becomes_a_data_set(tmp_path: Path) -> None:
    pictures = {f"/data/upload/7/{n}.png": picture_bytes(n) for n in range(1, 5)}

    def files(asked: Asked) -> Answer | None:
        found = pictures.get(asked.path)
        return None if found is None else Answer(body=found)

    studio = FakeStudio(CONFIG, {}, fault=files, views={3: [2]})
    for source in pictures:
        studio.create({"image": source})
    kept = SKY | {"origin": "prediction"}
    prediction = studio.add(1, "clip 1", result=[kept])
    studio.annotate(1, [kept], parent_prediction=prediction, completed_by=4)
    studio.annotate(2, [SKY])
    studio.add(3, "clip 2", result=[kept])
    with studio.served() as server:
        server_url = server.url
        common = ["--project", 7, "--label-studio-url", server_url, "--allowed-hosts", "127.0.0.1"]
        common += ["--label-studio-api-key", TOKEN]

        def told(folder: str, *more: Any) -> dict[str, Any]:
            done = run(*common, "--to", tmp_path / folder, *more)
            assert done.exit_code == 0, done.output
            lines = (tmp_path / folder / "pictures.jsonl").read_text().splitlines()
            return {each["image"]: each["regions"] for each in map(json.loads, lines)}

        first = told("all")
        assert sorted(first) == ["1.png", "2.png"]
        assert first["1.png"][0]["model_version"] == "clip 1"
        assert first["1.png"][0]["annotator"] == 4
        with Image.open(tmp_path / "all/masks/1.png") as mask:
            assert np.array_equal(np.asarray(mask) == 0, rectangle(0, 0, 20, 60))
            assert mask.size == SIZE_HW[::-1]
        assert sorted(told("reviewed", "--view", 3)) == ["2.png"]
        with_predictions = told("some", "--with-predictions")
        assert with_predictions["3.png"][0] == {
            "label": "sky",
            "origin": "prediction",
            "model_version": "clip 2",
            "annotation": None,
            "annotator": None,
        }
        studio.annotate(4, [])
        assert sorted(told("all")) == ["1.png", "2.png", "4.png"]
