"""Tasks of a project, read through a stand-in for Label Studio's API."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from backend.cli.dataset import dataset
from backend.dataset.tasks import ExportedTasks, ProjectTasks, TaskRecord
from backend.errors import DatasetError
from backend.label_studio.client import LabelStudioClient
from tests.backend.dataset.drawn_tasks import (
    Bench,
    annotation,
    bitmask_region,
    brush_region,
    picture_bytes,
    rectangle,
    region,
    task,
)
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer

REGION = {"id": "r", "type": "brushlabels"}


@pytest.fixture
def studio() -> FakeStudio:
    """Task 1 has two predictions, and task 2 an annotation that began with its prediction."""
    studio = FakeStudio("<View/>", {})
    for _ in range(2):
        studio.create({"image": "/a.png"})
    studio.add(1, "clip 1", result=[REGION, REGION])
    studio.add(1, "clip 2", result=[REGION])
    studio.annotate(2, [REGION], parent_prediction=studio.add(2, "clip 1", result=[REGION]))
    return studio


def read(server: LocalServer, with_predictions: bool) -> dict[int, TaskRecord]:
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    tasks = ProjectTasks(client, 7, None, with_predictions)
    return {each.id: each.read() for each in tasks.references()}


def test_the_newest_prediction_counts_where_nobody_has_annotated(server: LocalServer) -> None:
    first, second = read(server, True).values()
    assert (first.prediction, first.annotations) == (("clip 2", [REGION]), ())
    assert (second.prediction, second.versions) == (None, {3: "clip 1"})
    assert [each.prediction for each in second.annotations] == [3]
    assert list(read(server, False)) == [2]


def test_a_prediction_gone_by_then_is_none(server: LocalServer, studio: FakeStudio) -> None:
    def forget(asked: object) -> None:
        if "fields=all" in str(asked):
            studio.predictions = [each for each in studio.predictions if each["task"] != 1]

    studio.fault = forget
    assert read(server, True)[1].prediction is None


@pytest.mark.parametrize("view", [None, 3])
def test_only_annotated_tasks_are_asked_for_and_by_pages(
    server: LocalServer, studio: FakeStudio, view: int | None
) -> None:
    for _ in range(40):
        studio.annotate(studio.create({"image": "/a.png"}), [REGION])
    annotated = {each["task"] for each in studio.annotations.values()}
    studio.tasks |= {task: {"image": "/a.png"} for task in range(1000, 3000)}
    studio.annotate(1000, [REGION], was_cancelled=True)
    studio.views[3] = [*sorted(annotated, reverse=True), 1000, 1001]
    asked = len(server.asked)
    tasks = ProjectTasks(LabelStudioClient(server.url, TOKEN, retry_for_s=0), 7, view)
    found = {each.id: each.read() for each in tasks.references()}
    assert list(found) == sorted(annotated)
    assert sum(len(each.annotations) for each in found.values()) == 41
    assert tasks.unread == (2 if view else 2001)
    assert len(server.asked) - asked <= 6


SKY, ROAD = rectangle(0, 0, 20, 60), rectangle(15, 0, 40, 60)


def write(bench: Bench, **project: Any) -> Path:
    path = bench.pictures / "project-7-at-2026-12-01.json"
    path.write_text(json.dumps([each | {"project": 7} | project for each in bench.tasks]))
    return path


def run(path: Path, folder: Path, *more: Any) -> Result:
    given = ["--export", path, "--to", folder, "--format", "coco", "--format", "index-png", *more]
    return CliRunner().invoke(dataset, [str(each) for each in given], env={"LABEL_STUDIO_URL": ""})


def masks(folder: Path) -> dict[str, list[list[str]]]:
    """Name of a picture -> the class of each pixel."""
    classes = json.loads((folder / "classes.json").read_text())["classes"]
    names = np.array([each["name"] for each in classes] + [""] * (256 - len(classes)))
    files = (folder / "masks").iterdir()
    return {file.name: names[np.asarray(Image.open(file))].tolist() for file in files}


@pytest.fixture
def drawn(bench: Bench) -> Bench:
    """Pictures whose files have lost what Label Studio puts before their names."""
    square = {"points": [[50, 50], [100, 50], [100, 100], [50, 100]], "closed": True}
    tree = region("polygonlabels", "poly", "tree", value=square)
    for n, regions in enumerate(
        ([brush_region(SKY, "sky"), tree], [bitmask_region(ROAD, "c")], [])
    ):
        bench.draw(f"9b45e06{n}-straße_{n}.png", *regions)
        bench.add(f"straße {n}.png", picture_bytes(n + 1))
    return bench


def test_an_export_is_the_data_set_of_its_project(drawn: Bench, tmp_path: Path) -> None:
    drawn.done(formats=("coco", "index-png"))
    for file in drawn.pictures.glob("9b*"):
        file.unlink()
    assert run(write(drawn), tmp_path / "own").exit_code == 0
    found, expected = masks(tmp_path / "own"), masks(drawn.folder)
    car = [["c" if name == "car" else name for name in row] for row in expected["straße_1.png"]]
    assert found == expected | {"straße_1.png": car}, "an export does not know what an alias is of"
    assert (tmp_path / "own/images/straße_0.png").read_bytes() == picture_bytes(1)


def test_no_server_no_model_and_no_torch_is_needed(drawn: Bench, tmp_path: Path) -> None:
    code = (
        "import sys; from backend.cli.dataset import dataset\n"
        "try: dataset(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'open_clip', 'flask'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", code, "--export", write(drawn), "--to", tmp_path / "own"]
    done = subprocess.run(command, check=False, capture_output=True, env={}, text=True)
    assert done.returncode == 0, done.stderr


def test_one_file_of_several_uploads_is_not_guessed(drawn: Bench, tmp_path: Path) -> None:
    drawn.tasks[1]["data"]["image"] = "/data/upload/7/00000000-straße_0.png"
    for file in drawn.pictures.glob("9b*"):
        file.unlink()
    done = run(write(drawn), tmp_path / "own")
    assert done.exit_code == 1
    assert "1 picture " in done.output
    assert "Task 1: " in done.output
    assert "Task 2: " in done.output


def test_tools_beside_labels_and_predictions(bench: Bench, tmp_path: Path) -> None:
    sky = brush_region(SKY, "sky")
    shape = sky | {"type": "brush", "value": {k: sky["value"][k] for k in ("format", "rle")}}
    pair = [shape, shape | {"type": "labels", "from_name": "label"}]
    pair[1]["value"] = shape["value"] | {"labels": ["sky"]}
    bench.draw("a.png", *pair)
    bench.draw("b.png")
    bench.tasks[1] |= {"annotations": [], "predictions": [{"model_version": "m", "result": pair}]}
    assert run(write(bench), tmp_path / "own").exit_code == 0
    assert list(masks(tmp_path / "own")) == ["a.png"]
    assert np.array_equal(np.array(masks(tmp_path / "own")["a.png"]) == "sky", SKY)
    assert run(write(bench), tmp_path / "own", "--with-predictions").exit_code == 0
    assert set(masks(tmp_path / "own")) == {"a.png", "b.png"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,image\n1,a.png", "as JSON, not as JSON-MIN"),
        ("[]", "has no tasks"),
        ('[{"id": 1, "image": "/a.png", "tag": []}]', "as JSON, not as JSON-MIN"),
        ('{"images": [], "annotations": []}', "as JSON, not as JSON-MIN"),
    ],
)
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.json").write_text(text)
    done = run(tmp_path / "a.json", tmp_path / "own")
    assert done.exit_code == 1
    assert reason in done.output


def test_what_the_file_does_not_say_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    bench.draw("a.png", brush_region(SKY, "sky"))
    bench.tasks[0]["data"] |= {"rear": "/b.png"}
    with pytest.raises(DatasetError, match=r'the pictures of "img": image, rear.*--config'):
        ExportedTasks(write(bench)).label_config()
    bench.tasks = [task(1, "/a.png", [annotation(1, [])])]
    with pytest.raises(DatasetError, match="have no brush"):
        ExportedTasks(write(bench)).label_config()


def test_a_broken_task_costs_itself(drawn: Bench, tmp_path: Path) -> None:
    drawn.tasks[1]["annotations"] = [{"id": "x", "completed_by": {"id": 4}, "result": 7}]
    drawn.tasks[0]["annotations"][0]["completed_by"] = {"id": 4, "email": "a@b.c"}
    done = run(write(drawn), tmp_path / "own")
    assert done.exit_code == 1
    assert "Task 2: It is broken: export" in done.output
    told = [json.loads(line) for line in (tmp_path / "own/pictures.jsonl").open()]
    assert [each["task"] for each in told] == [1, 3]
    assert told[0]["regions"][0]["annotator"] == 4
