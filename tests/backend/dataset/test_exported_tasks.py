"""Data sets of a file that Label Studio has exported, without a server."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from backend.cli.dataset import dataset
from backend.dataset.exported_tasks import ExportedTasks, find_tasks
from backend.dataset.formats.writers import WRITERS
from backend.errors import DatasetError
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

SKY, ROAD = rectangle(0, 0, 20, 60), rectangle(15, 0, 40, 60)
PAINTED = brush_region(ROAD, "road")


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


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "broken",
    [b'{"x": NaN}', b'"a\x00b"', rb'"\ud83d"', b'"\xff"', DEEP, b"-"],
    ids=["NaN", "NUL", "half an emoji", "no UTF-8", "deep", "no JSON"],
)
def test_a_task_that_is_no_json_costs_itself(drawn: Bench, tmp_path: Path, broken: bytes) -> None:
    path = write(drawn)
    rows = [json.dumps(each).encode() for each in json.loads(path.read_text())]
    rows[1] = rows[1][:-1] + b', "meta": ' + broken + b"}"
    path.write_bytes(b"\xef\xbb\xbf[" + b",\n ".join(rows) + b"]\n")
    done = run(path, tmp_path / "own")
    assert "Task 2: It is broken" in done.output
    told = [json.loads(line) for line in (tmp_path / "own/pictures.jsonl").open()]
    assert [each["task"] for each in told] == [1, 3]


def test_the_first_task_may_be_the_broken_one(drawn: Bench, tmp_path: Path) -> None:
    path = write(drawn)
    path.write_text(path.read_text().replace('"id": 1,', '"id": 1, "x": NaN,', 1))
    done = run(path, tmp_path / "own")
    assert "2 pictures " in done.output
    assert "Task 1: It is broken" in done.output


def test_tasks_are_found_wherever_a_chunk_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": '}"\\', "b": [{}, "{"]}, {}, {"\\": {"ü{": "\\\\"}}]
    text = json.dumps(rows, ensure_ascii=False).encode()
    for size in range(1, len(text) + 1):
        monkeypatch.setattr("backend.dataset.exported_tasks._CHUNK_BYTES", size)
        found = [json.loads(text[a:b]) for a, b in find_tasks(io.BytesIO(text))]
        assert found == rows


def test_a_file_that_is_cut_off_is_refused(drawn: Bench) -> None:
    path = write(drawn)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="cut off behind its task 2"):
        ExportedTasks(path)


def test_a_pipe_is_no_export(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DatasetError, match="is no file"):
        ExportedTasks(tmp_path / "pipe.json")


def test_the_memory_is_that_of_a_task_and_not_of_the_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.draw("a.png", brush_region(SKY, "sky"))
    row = json.dumps(bench.tasks[0] | {"meta": "x" * (1 << 18)})
    path = bench.pictures / "large.json"
    path.write_text(f"[{', '.join([row] * 64)}]")
    monkeypatch.setattr("backend.dataset.exported_tasks._CHUNK_BYTES", 1 << 16)
    tracemalloc.start()
    tasks = ExportedTasks(path)
    read = [each.read().task.id for each in tasks.references()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(read), path.stat().st_size > 16 << 20) == (64, True)
    assert peak < 4 << 20


def test_predictions_alone_say_the_labels(bench: Bench, tmp_path: Path) -> None:
    bench.draw("a.png")
    predicted = {"model_version": "m", "result": [brush_region(SKY, "sky")]}
    bench.tasks[0] |= {"annotations": [], "predictions": [predicted]}
    assert run(write(bench), tmp_path / "own", "--with-predictions").exit_code == 0
    assert np.array_equal(np.array(masks(tmp_path / "own")["a.png"]) == "sky", SKY)
    assert "have no brush" in run(write(bench), tmp_path / "own").output


def test_it_is_said_that_predictions_may_be_taken(bench: Bench) -> None:
    bench.draw("a.png")
    bench.tasks[0] |= {"annotations": [], "predictions": [{"id": 4, "result": [PAINTED]}]}
    with pytest.raises(DatasetError, match="It has predictions: --with-predictions takes these"):
        ExportedTasks(write(bench)).label_config()


def test_tasks_may_have_predictions_alone(bench: Bench) -> None:
    """As those that were made to be imported."""
    bench.draw("a.png")
    del bench.tasks[0]["annotations"]
    bench.tasks[0]["predictions"] = [{"id": 4, "model_version": "m", "result": [PAINTED]}]
    tasks = ExportedTasks(write(bench), with_predictions=True)
    (record,) = (each.read() for each in tasks.references())
    assert record.prediction == ("m", [PAINTED])
    assert '<Label value="road"/>' in tasks.label_config()


def test_predictions_may_be_ids_alone(drawn: Bench) -> None:
    for each in drawn.tasks:
        each["predictions"] = [4, 5]
    tasks = ExportedTasks(write(drawn), with_predictions=True)
    assert all(each.read().annotations for each in tasks.references())


def test_predictions_that_are_wanted_and_ids_alone_are_told(bench: Bench, tmp_path: Path) -> None:
    bench.draw("a.png", PAINTED)
    bench.draw("b.png")
    bench.tasks[1] |= {"annotations": [], "predictions": [4]}
    done = run(write(bench), tmp_path / "set", "--with-predictions")
    assert done.exit_code == 1
    assert "Task 2: The file has the ids of its predictions alone" in done.output


@pytest.mark.parametrize("address", ["C:\\cars\\a.png", "/data/local-files/?d=cars%5Ca.png"])
def test_addresses_of_windows_are_files_of_the_folder(
    bench: Bench, tmp_path: Path, address: str
) -> None:
    """Of two files of one name, the one in the folder of the same name is meant."""
    bench.tasks = [task(1, address, [annotation(1, [PAINTED])])]
    for seed, folder in enumerate(("cars", "boats")):
        (bench.pictures / "photos" / folder).mkdir(parents=True)
        (bench.pictures / "photos" / folder / "a.png").write_bytes(picture_bytes(seed))
    done = run(write(bench), tmp_path / "set")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "set/images/a.png").read_bytes() == picture_bytes(0)


@pytest.mark.parametrize("second", [(), ("--format", "yolo"), ("--pictures", "none")])
def test_a_set_beside_the_pictures_is_written_again(drawn: Bench, second: tuple[str, ...]) -> None:
    """The original names are those of the copies in the set, and of the label maps there."""
    path = write(drawn)
    for file in drawn.pictures.glob("9b*"):
        file.unlink()
    first = run(path, drawn.pictures / "set", *second)
    assert first.exit_code == 0, first.output
    for folder in ("set", "other"):
        again = run(path, drawn.pictures / folder)
        assert "3 pictures " in again.output
        copied = (drawn.pictures / folder / "images/straße_0.png").read_bytes()
        assert copied == picture_bytes(1), "and no label map"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the path and bytes of each file of a set but its report, which has the time."""
    files = (each for each in folder.rglob("*") if each.is_file() and each.name != "report.json")
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


@pytest.mark.parametrize("chosen", WRITERS.names())
def test_each_format_is_the_same_again_and_in_another_folder_and_each_persons_own(
    drawn: Bench, chosen: str
) -> None:
    """All sets lie beside the pictures, where the next run looks for these."""
    for each in drawn.tasks:
        first = each["annotations"][0]["result"]
        each["annotations"].append(annotation(each["id"] + 10, [PAINTED, *first], person=2))
    path = write(drawn)

    def made(name: str, person: int) -> dict[str, bytes]:
        given = ("--export", path, "--to", drawn.pictures / name, "--annotations", person)
        form = ("--overlays",) if chosen == "overlays" else ("--format", chosen)
        words = [str(each) for each in (*given, *form, "--pictures", "copy")]
        done = CliRunner().invoke(dataset, words, env={"LABEL_STUDIO_URL": ""})
        assert "3 pictures " in done.output, done.output
        return contents(drawn.pictures / name)

    one = made("set", 1)
    assert made("set", 1) == one, "the second run"
    assert made("other", 1) == one, "the second folder"
    another = made("second person", 2)
    assert another != one
    assert made("set", 2) == another, "the second person in the folder of the first"


def test_one_address_in_two_tasks_is_one_file(drawn: Bench, tmp_path: Path) -> None:
    drawn.tasks[1]["data"] = drawn.tasks[0]["data"]
    for file in drawn.pictures.glob("9b*"):
        file.unlink()
    assert run(write(drawn), tmp_path / "own").exit_code == 0


def test_lists_of_pictures_are_found_by_their_original_names(bench: Bench, tmp_path: Path) -> None:
    pages = [f"/data/upload/7/9b45e06{n}-page {n}.png" for n in range(2)]
    for n in range(2):
        bench.add(f"page {n}.png", picture_bytes(n))
    each = task(1, "", [annotation(1, [brush_region(SKY, "sky", item_index=1)])])
    bench.tasks = [each | {"data": {"pages": pages}}]
    done = run(write(bench), tmp_path / "own")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "own/images/page 1.png").read_bytes() == picture_bytes(1)


def test_it_is_said_how_to_do_without_pictures(drawn: Bench, tmp_path: Path) -> None:
    for file in drawn.pictures.glob("*.png"):
        file.unlink()
    path = write(drawn)
    hint = "3 pictures not found: name their folder by --picture-folder, or leave pictures out by"
    assert hint in run(path, tmp_path / "own").output
    assert hint not in run(path, tmp_path / "parts", "--split", "50/50").output, "these read them"
    drawn.tasks.pop()  # without a region, and so without a size
    assert run(write(drawn), tmp_path / "none", "--pictures", "none").exit_code == 0
