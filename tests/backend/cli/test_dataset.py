"""The command `clearclip-backend dataset`, on a project."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backend.cli.dataset import dataset
from tests.backend.dataset.drawn_tasks import CONFIG, brush_region, picture_bytes, rectangle
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

SKY = brush_region(rectangle(0, 0, 20, 60), "sky")


def reach(server: LocalServer) -> list[Any]:
    options = ["--project", 7, "--label-studio-url", server.url, "--allowed-hosts", "127.0.0.1"]
    return [*options, "--label-studio-api-key", TOKEN]


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(dataset, [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--split", "80/30"), "make 100"),
        (("--near-duplicates", "0.9"), "together with --split"),
        (("--config", __file__), "together with --export"),
        (("--export", __file__), "either --project or --export"),
        (("--annotations", "best"), "ground-truth"),
        (("--map", "House"), "OLD=NEW"),
        (("--map", "House=Building"), "names no label of the labeling config"),
        (("--pictures", "copy", "--format", "overlays"), "overlays"),
    ],
)
def test_wrong_arguments_are_refused(more: tuple[Any, ...], sentence: str, tmp_path: Path) -> None:
    with FakeStudio(CONFIG, {}).served() as server:
        done = run(*reach(server), "--to", tmp_path / "set", *more)
    assert done.exit_code != 0
    assert sentence in done.output
    assert not (tmp_path / "set").exists()


def test_a_task_too_large_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 200_000)

    def files(asked: Asked) -> Answer | None:
        return Answer(body=picture_bytes(1)) if asked.path.endswith(".png") else None

    studio = FakeStudio(CONFIG, {}, fault=files)
    for name, text in (("a", "x" * 200_000), ("b", "")):
        number = studio.create({"image": f"/data/upload/7/{name}.png"})
        studio.annotate(number, [SKY | {"meta": {"text": text}}])
    with studio.served() as server:
        done = run(*reach(server), "--to", tmp_path / "set")
    assert done.exit_code == 1
    assert "1 picture " in done.output
    said = f"Task 1: Label Studio at {server.url} sends more than 0 MB for /api/tasks/"
    assert said in done.output
    told = json.loads((tmp_path / "set/report.json").read_text())
    assert [each["task"] for each in told["skipped"]] == [1]


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

        def told(folder: str, *more: Any) -> dict[str, Any]:
            done = run(*reach(server), "--to", tmp_path / folder, *more)
            assert done.exit_code == 0, done.output
            lines = (tmp_path / folder / "pictures.jsonl").read_text().splitlines()
            return {each["image"]: each["regions"] for each in map(json.loads, lines)}

        first = told("all")
        assert sorted(first) == ["1.png", "2.png"]
        assert first["1.png"][0]["model_version"] == "clip 1"
        assert first["1.png"][0]["annotator"] == 4
        assert sorted(told("reviewed", "--view", 3)) == ["2.png"]
        with_predictions = told("some", "--with-predictions", "--overlays")
        assert (tmp_path / "some/overlays/3.jpg").is_file() > (tmp_path / "all/overlays").exists()
        predicted = {"label": "sky", "origin": "prediction", "model_version": "clip 2"}
        nobody = {"annotation": None, "annotator": None}
        assert with_predictions["3.png"][0] == predicted | nobody
        assert sorted(told("later", "--since", tmp_path / "all")) == ["1.png", "2.png"]
        report = json.loads((tmp_path / "later/report.json").read_text())
        assert report["changes"]["pictures"] == {"new": 0, "corrected": 0, "gone": 0}
        studio.annotate(4, [])
        assert sorted(told("all")) == ["1.png", "2.png", "4.png"]
