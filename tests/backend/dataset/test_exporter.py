"""Data sets of exported files: what is in them, what is skipped, what a later run does."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.dataset.output_folder import OutputFolder
from backend.dataset.splits import Split
from backend.errors import DatasetError
from backend.label_studio.annotations import AnnotationChoice
from tests.backend.dataset.exported_tasks import (
    NAMES,
    SIZE_HW,
    TWO_IMAGES,
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


def test_every_kind_of_mask_is_in_the_label_map(one_task: Callable[..., Bench]) -> None:
    """The ellipse and the polygon against Pillow's own drawing, up to their edges."""
    bench = one_task(
        brush_region(SKY, "sky"),
        bitmask_region(rectangle(20, 0, 30, 20), "c"),
        region(
            "polygonlabels",
            "poly",
            "tree",
            value={"points": [[50, 50], [100, 50], [100, 100], [50, 100]], "closed": True},
        ),
        region(
            "ellipselabels",
            "round",
            "sign",
            value={"x": 25, "y": 87.5, "radiusX": 10, "radiusY": 10, "rotation": 0},
        ),
        region("keypointlabels", "click", "sky", value={"x": 90, "y": 90, "width": 1}),
        {"id": "t", "type": "choices", "from_name": "q", "to_name": "img", "value": {}},
    )
    report = bench.done()
    assert (report.pictures, report.regions, report.skipped) == (1, 4, [])
    found = bench.mask("a")
    assert (found == 0).tolist() == SKY.tolist()
    assert (found == 2).tolist() == rectangle(20, 0, 30, 20).tolist()
    assert (found == 3).tolist() == rectangle(20, 30, 40, 60).tolist()
    drawn = Image.new("1", (6000, 4000))
    ImageDraw.Draw(drawn).ellipse((900, 3100, 2100, 3900), fill=1)
    centres = np.asarray(drawn)[50::100, 50::100]
    assert np.array_equal(found == 4, centres)
    assert np.count_nonzero(found == 255) == found.size - np.count_nonzero(found < 5)
    with Image.open(bench.folder / "images/a.png") as copied:
        assert copied.size == (60, 40)
    classes = json.loads((bench.folder / "classes.json").read_text())
    assert [each["name"] for each in classes["classes"]] == NAMES
    assert (bench.folder / "splits/train.txt").read_text() == "a\n"


def test_an_annotation_with_too_many_regions_is_skipped(
    one_task: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.region_reader._MOST_AREA_PX", 10_000)
    bench = one_task(*[brush_region(SKY, "sky")] * 5)
    (skipped,) = bench.done().skipped
    assert "It has too many regions for a picture of this size" in str(skipped)


def test_soft_edges_count_from_the_half(one_task: Callable[..., Bench]) -> None:
    bench = one_task(
        brush_region(rectangle(0, 0, 9, 9), "sky", alpha=127),
        brush_region(rectangle(20, 0, 30, 9), "road", alpha=128),
    )
    bench.done()
    assert (bench.mask("a") == 1).tolist() == rectangle(20, 0, 30, 9).tolist()
    assert not (bench.mask("a") == 0).any()


@pytest.mark.parametrize(
    ("overlap", "winner"), [("label-order", 0), ("smallest", 0), ("largest", 1)]
)
def test_overlaps_follow_the_rule(
    one_task: Callable[..., Bench], overlap: str, winner: int
) -> None:
    bench = one_task(brush_region(ROAD, "road"), brush_region(SKY, "sky"))
    bench.done(overlap=overlap)
    assert np.unique(bench.mask("a")[15:20]).tolist() == [winner]
    classes = json.loads((bench.folder / "classes.json").read_text())
    assert classes["overlap"] == overlap
    assert "overlap" in classes["overlap_rule"]


def test_two_images_of_a_task_and_lists_of_images_are_pictures_of_their_own(bench: Bench) -> None:
    pages = [bench.add(f"p{n}.png", picture_bytes(n)) for n in range(2)]
    rear = bench.add("rear.png", picture_bytes(9))
    regions = [
        brush_region(SKY, "sky", item_index=1),
        brush_region(ROAD, "road", to_name="back"),
    ]
    each = task(1, "", [annotation(1, regions)], data={"image": pages, "rear": rear})
    bench.config = TWO_IMAGES.replace('value="$image"', 'valueList="$image"')
    bench.tasks = [each]
    assert bench.done().pictures == 3
    assert not (bench.mask("p0") != 255).any()
    assert (bench.mask("p1") == 0).tolist() == SKY.tolist()
    assert (bench.mask("rear") == 1).tolist() == ROAD.tolist()


def test_a_turned_picture_is_copied_upright(bench: Bench) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture_bytes(1, (60, 40), format="JPEG", exif=exif, quality=95)
    bench.tasks = [
        task(1, bench.add("turned.jpg", lying), [annotation(1, [brush_region(SKY, "sky")])])
    ]
    assert bench.done().skipped == []
    with Image.open(bench.folder / "images/turned.png") as copied:
        assert copied.size == (60, 40)
        assert copied.getexif().get(0x0112, 1) == 1
        with Image.open(io.BytesIO(lying)) as stored:
            turned = np.rot90(np.asarray(stored), -1)
        assert np.array_equal(np.asarray(copied), turned)
    assert bench.mask("turned").shape == (40, 60)


def test_names_are_those_of_the_pictures_and_each_once(bench: Bench) -> None:
    one_folder = bench.pictures / "one"
    one_folder.mkdir()
    (one_folder / "Straße 1.png").write_bytes(picture_bytes(3))
    decomposed = unicodedata.normalize("NFD", "café.png")
    (bench.pictures / decomposed).write_bytes(picture_bytes(5))
    sources = [
        bench.add("Straße 1.png", picture_bytes(1)),
        "/data/local-files/?d=one/Stra%C3%9Fe%201.png",
        bench.add("日本.png", picture_bytes(4)),
        f"/data/upload/7/{decomposed}",
        "data:image/png;base64," + base64.b64encode(picture_bytes(6)).decode(),
    ]
    bench.tasks = [
        task(n, source, [annotation(n, [brush_region(SKY, "sky")])])
        for n, source in enumerate(sources, 1)
    ]
    assert bench.done().skipped == []
    images = {path.stem for path in (bench.folder / "images").iterdir()}
    assert images == {"Straße 1", "Straße 1-task2", "日本", "café", "task-5"}
    assert images == {path.stem for path in (bench.folder / "masks").iterdir()}
    copied = (bench.folder / "images/Straße 1-task2.png").read_bytes()
    assert copied == (one_folder / "Straße 1.png").read_bytes()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "hostile run lengths": (
        brush_region(SKY, "sky") | {"value": {"rle": [255] * 40, "brushlabels": ["sky"]}},
        "A brush region of sky is broken: its strokes are cut off",
    ),
    "another size": (
        brush_region(np.ones((50, 60), np.bool_), "sky"),
        "drawn on 60×50 px, but the picture has 60×40 px",
    ),
    "a gone label": (brush_region(SKY, "boat"), '"boat"'),
    "a truncated bitmask": (
        bitmask_region(SKY, "c")
        | {"value": {"imageDataURL": "data:;base64,iVBORw0KGgoAAAA=", "bitmasklabels": ["c"]}},
        "A bitmask of c is broken: it is no PNG of 60×40 px",
    ),
    "no value": (
        brush_region(SKY, "sky") | {"value": None},
        "is broken: Label Studio has not kept",
    ),
    "enormous": (
        region(
            "rectanglelabels", "mask", "sky", (10**6, 10**6), value={"x": 0, "y": 0, "width": 9}
        ),
        "px",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_region_costs_its_picture_with_one_sentence(bench: Bench, name: str) -> None:
    broken, sentence = BAD[name]
    bench.tasks = [
        task(1, bench.add("a.png", picture_bytes(1)), [annotation(1, [broken])]),
        task(2, bench.add("b.png", picture_bytes(2)), [annotation(2, [brush_region(SKY, "sky")])]),
    ]
    report = bench.done(formats=("index-png", "coco", "yolo"))
    (skipped,) = report.skipped
    assert skipped.task == 1
    assert sentence in skipped.reason
    assert "\n" not in skipped.reason
    assert report.pictures == 1
    assert not any("a." in file.rpartition("/")[2][:2] for file in bench.files())


def test_regions_whose_label_or_control_is_gone_are_counted_and_mapped(bench: Bench) -> None:
    for n in (1, 2):
        regions = [brush_region(SKY, "heaven"), brush_region(ROAD, "road", from_name="old")]
        source = bench.add(f"{n}.png", picture_bytes(n))
        bench.tasks.append(task(n, source, [annotation(n, regions)]))
    report = bench.done()
    assert (report.pictures, len(report.skipped)) == (0, 2)
    label, control = report.notes
    assert label.startswith('2 regions of the label "heaven", which the labeling config lacks')
    assert '--map "heaven=LABEL"' in label
    assert control.startswith('2 regions made with the control "old", which the labeling config')
    bench.renamed = {"heaven": "sky"}
    report = bench.done()
    assert [each.partition(" of")[0] for each in report.notes] == [control.partition(" of")[0]]
    assert (bench.mask("2") == 0).tolist() == SKY.tolist()
    bench.renamed = {"heaven": ""}
    bench.done()
    assert (bench.mask("2") == 255).all()
    bench.renamed = {"heaven": "skies"}
    with pytest.raises(DatasetError, match=r'"heaven=skies" names no label .* which has sky, road'):
        bench.run()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (picture_bytes(1)[:200], "damaged or truncated"),
        (b"<svg/>", "not an image"),
        (None, "no file"),
    ],
)
def test_a_broken_picture_is_skipped_and_tried_again(
    bench: Bench, content: bytes | None, sentence: str
) -> None:
    source = bench.add("a.png", content or b"")
    if content is None:
        (bench.pictures / "a.png").unlink()
    bench.tasks = [task(1, source, [annotation(1, [brush_region(SKY, "sky")])])]
    report = bench.done()
    assert sentence in report.skipped[0].reason
    assert not (bench.folder / "images").exists()
    bench.add("a.png", picture_bytes(1))
    assert bench.done().skipped == []


def one_picture(bench: Bench) -> Bench:
    bench.tasks = [
        task(1, bench.add("a.png", picture_bytes(1)), [annotation(1, [brush_region(SKY, "sky")])])
    ]
    return bench


def test_a_later_run_replaces_the_folder_as_a_whole(bench: Bench) -> None:
    for n in (1, 2, 3):
        source = bench.add(f"{n}.png", picture_bytes(n))
        bench.tasks.append(task(n, source, [annotation(n, [brush_region(SKY, "sky")])]))
    assert bench.done(formats=("index-png", "coco")).tasks == 3
    (bench.folder / "labels.cache").write_bytes(b"of a trainer")
    del bench.tasks[2]
    bench.tasks[1] = task(2, "/data/upload/7/2.png", [annotation(9, [brush_region(ROAD, "road")])])
    assert bench.done().pictures == 2
    assert (bench.mask("2") == 1).tolist() == ROAD.tolist()
    assert bench.files() == {
        *("classes.json", "pictures.jsonl", "report.json", "splits/train.txt"),
        *("images/1.png", "images/2.png", "masks/1.png", "masks/2.png"),
    }
    assert sorted(each.name for each in bench.folder.parent.glob("set*")) == ["set"]


def test_a_stopped_or_failed_run_leaves_the_folder_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_picture(bench).done()
    before = bench.files()
    stopping = threading.Event()
    stopping.set()
    assert bench.run(stopping) is None
    bench.tasks = []
    monkeypatch.setattr("backend.dataset.exporter._Export._write_shared_files", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    assert bench.files() == before
    assert sorted(each.name for each in bench.folder.parent.glob("set*")) == ["set"]


@pytest.mark.parametrize("when", ["writes", "replaces"])
def test_a_killed_run_leaves_what_the_next_one_removes(bench: Bench, when: str) -> None:
    one_picture(bench).done()
    before = bench.files()
    place = (
        "backend.dataset.exporter._picture_line = kill"
        if when == "writes"
        else "backend.dataset.output_folder.shutil.rmtree = kill"  # .parts, before the renames
    )
    code = (
        "import json, os, sys, threading\nfrom pathlib import Path\n"
        "import backend.dataset.exporter, backend.dataset.output_folder\n"
        "from backend.dataset.exporter import DatasetExporter, DatasetOptions\n"
        "from backend.dataset.picture_file import LocalPictures\n"
        "from backend.dataset.task_images import parse_project_labels\n"
        "from backend.dataset.tasks import ExportedTasks\n"
        "def kill(*_): os.kill(os.getpid(), 9)\n"
        f"{place}\n"
        "root = Path(sys.argv[1])\n"
        "pictures = LocalPictures(root / 'pictures', 10)\n"
        "DatasetExporter(root / 'set', parse_project_labels(sys.argv[2]), DatasetOptions(),"
        " pictures, max_megapixels=1).run(ExportedTasks(root / 'export.json'),"
        " threading.Event())\n"
    )
    root = bench.folder.parent
    done = subprocess.run([sys.executable, "-c", code, str(root), bench.config], check=False)
    assert done.returncode == -9
    assert bench.files() == before
    assert (root / "set.partial").is_dir()
    bench.done()
    assert sorted(each.name for each in root.glob("set*")) == ["set"]


def test_a_run_killed_between_its_two_renames_is_undone(bench: Bench) -> None:
    one_picture(bench).done()
    bench.folder.rename(bench.folder.with_name("set.partial-replaced"))
    stopping = threading.Event()
    stopping.set()
    assert bench.run(stopping) is None
    assert "masks/a.png" in bench.files()


@pytest.mark.parametrize(("format_", "library"), [("coco", "pycocotools"), ("parquet", "pyarrow")])
def test_a_library_that_is_missing_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, format_: str, library: str
) -> None:
    monkeypatch.setattr("backend.dataset.exporter.find_spec", lambda _: None)
    bench.done()
    with pytest.raises(DatasetError, match=f"needs {library}, which is not installed"):
        bench.run(formats=(format_,))


def test_two_runs_do_not_write_one_folder(bench: Bench) -> None:
    with (
        OutputFolder(bench.folder, "export:export.json"),
        pytest.raises(DatasetError, match="Another run"),
    ):
        bench.run()


def test_a_folder_of_something_else_is_left_alone(bench: Bench) -> None:
    bench.folder.mkdir()
    (bench.folder / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match="files already"):
        bench.run()
    assert bench.files() == {"thesis.tex"}
    (bench.folder / "thesis.tex").unlink()
    one_picture(bench).done()
    (bench.folder / "runs").mkdir()
    (bench.folder / "runs/best.pt").write_bytes(b"weights")
    with pytest.raises(DatasetError, match='"runs", which is not of the data set'):
        bench.run()
    assert (bench.folder / "runs/best.pt").is_file()
    assert not bench.folder.with_name("set.partial").exists()


def test_a_data_set_over_the_limit_or_a_full_disk_is_one_sentence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 9):
        source = bench.add(f"{n}.png", picture_bytes(n, (400, 400)))  # 480 kB each
        bench.tasks.append(task(n, source, [annotation(n, [])]))
    with pytest.raises(DatasetError, match="DATASET_MB=1"):
        bench.run(max_mb=1)
    monkeypatch.setattr("backend.dataset.output_folder._LEFT_FREE", 1 << 60)
    with pytest.raises(DatasetError, match="make room"):
        bench.run()
    assert not list(bench.folder.parent.glob("set*"))


def test_annotators_and_predictions_and_where_regions_come_from(bench: Bench) -> None:
    source = bench.add("a.png", picture_bytes(1))
    kept = brush_region(SKY, "sky", origin="prediction", score=0.9)
    changed = brush_region(ROAD, "road", origin="prediction-changed")
    predicted = {"id": 70, "model_version": "clip 1", "result": [kept]}
    bench.tasks = [
        task(
            1,
            source,
            [
                annotation(1, [kept, changed], person=4, parent_prediction=70, ground_truth=True),
                annotation(2, [brush_region(ROAD, "road")], person=5),
                annotation(3, [], person=6, was_cancelled=True),
            ],
            predictions=[predicted],
        ),
        task(2, bench.add("b.png", picture_bytes(2)), [], predictions=[predicted]),
        task(3, bench.add("c.png", picture_bytes(3)), [annotation(4, [], was_cancelled=True)]),
    ]

    def run(rule: str, **more: Any) -> list[dict[str, Any]]:
        bench.done(choice=AnnotationChoice.parse(rule), **more)
        return [
            {"image": each["image"], "regions": each["regions"]}
            for each in bench.told()
            if each["regions"]
        ]

    by_hand = {"origin": "manual", "model_version": "", "annotation": 2, "annotator": 5}
    assert run("newest") == [{"image": "a.png", "regions": [{"label": "road", **by_hand}]}]
    (truth,) = run("ground-truth")
    whose = {"annotation": 1, "annotator": 4, "model_version": "clip 1"}
    assert truth["regions"] == [
        {"label": "sky", "score": 0.9, "origin": "prediction", **whose},
        {"label": "road", "origin": "prediction-changed", **whose},
    ]
    assert run("4") == [truth]
    assert run("6") == []
    both = run("newest", with_predictions=True)
    assert both[1] == {
        "image": "b.png",
        "regions": [
            {
                "label": "sky",
                "score": 0.9,
                "origin": "prediction",
                "model_version": "clip 1",
                "annotation": None,
                "annotator": None,
            }
        ],
    }


def test_a_majority_has_the_pixels_that_more_than_half_agree_on(bench: Bench) -> None:
    """Against a loop over pixels."""
    random = np.random.default_rng(5)
    maps = [random.integers(0, 3, SIZE_HW) for _ in range(5)]
    annotations = [
        annotation(n, [brush_region(each == v, ("sky", "road")[v]) for v in (0, 1)], person=n)
        for n, each in enumerate(maps, 1)
    ]
    stale = annotation(28 + 1, [brush_region(SKY, "sky")], person=1)
    stale["updated_at"] = "2020-01-01T00:00:00Z"
    bench.tasks = [task(1, bench.add("a.png", picture_bytes(1)), [stale, *annotations])]
    bench.done(choice=AnnotationChoice.parse("majority"))
    expected = np.full(SIZE_HW, 255)
    for y in range(SIZE_HW[0]):
        for x in range(SIZE_HW[1]):
            votes = [int(each[y, x]) for each in maps]
            for value in (0, 1):
                if votes.count(value) > 2:
                    expected[y, x] = value
    assert np.array_equal(bench.mask("a"), expected)


def test_equal_files_are_in_one_part_and_parts_stay(bench: Bench, tmp_path: Path) -> None:
    for n in range(40):
        source = bench.add(f"{n}.png", picture_bytes(n // 2, (4, 6)))
        mask = np.ones((4, 6), np.bool_)
        bench.tasks.append(task(n + 1, source, [annotation(n, [brush_region(mask, "sky")])]))
    report = bench.done(split=Split.parse("50/25/25"))
    assert list(report.parts) == ["train", "val", "test"]
    assert all(report.parts.values())
    parts = {each["image"]: each["part"] for each in bench.told()}
    assert all(parts[f"{2 * n}.png"] == parts[f"{2 * n + 1}.png"] for n in range(20))
    lists = {p: (bench.folder / f"splits/{p}.txt").read_text().split() for p in report.parts}
    assert sorted(n for names in lists.values() for n in names) == sorted(str(n) for n in range(40))
    bench.tasks = bench.tasks[:20]
    bench.done(split=Split.parse("50/25/25"))
    assert all(parts[each["image"]] == each["part"] for each in bench.told())
    bench.done()
    assert not (bench.folder / "splits/val.txt").exists()


def test_a_folder_of_another_project_is_left_alone(bench: Bench) -> None:
    bench.done()
    bench.file = bench.file.with_name("other.json")
    with pytest.raises(DatasetError, match=r"export\.json, not of export:other\.json"):
        bench.run()


def test_unpainted_pixels_are_a_class_where_one_is_named(one_task: Callable[..., Bench]) -> None:
    bench = one_task(brush_region(rectangle(0, 0, 9, 9), "sky"))
    bench.done(formats=("index-png", "coco", "parquet"))
    assert any("--background" in note for note in bench.report()["notes"])
    bench.done(formats=("index-png", "coco", "parquet"), background="other")
    assert not any("--background" in note for note in bench.report()["notes"])
    assert np.array_equal(bench.mask("a"), rectangle(0, 0, 9, 9))
    classes = json.loads((bench.folder / "classes.json").read_text())
    assert [each["name"] for each in classes["classes"]] == ["other", *NAMES]
    told = json.loads((bench.folder / "annotations/instances_train.json").read_text())
    assert [each["name"] for each in told["categories"]] == NAMES
    assert [each["category_id"] for each in told["annotations"]] == [1]


def test_what_annotators_disagree_on_is_no_background(bench: Bench) -> None:
    marked = (rectangle(0, 0, 20, 20), rectangle(0, 10, 20, 30))
    annotations = [
        annotation(n, [brush_region(mask, "sky")], person=n) for n, mask in enumerate(marked, 1)
    ]
    bench.tasks = [task(1, bench.add("a.png", picture_bytes(1)), annotations)]
    bench.done(choice=AnnotationChoice.parse("majority"), background="sea")
    expected = np.where(marked[0] & marked[1], 1, np.where(marked[0] | marked[1], 255, 0))
    assert np.array_equal(bench.mask("a"), expected)


def test_parts_are_divided_by_a_field_and_counted(bench: Bench) -> None:
    for n in range(1, 41):
        source = bench.add(f"{n}.png", picture_bytes(n, (4, 6)))
        mask = np.ones((4, 6), np.bool_)
        more = {"image": source, "patient": n // 4 if n < 40 else " "}
        regions = [brush_region(mask, "sky", id="a"), brush_region(mask, "sky", id="b")]
        bench.tasks.append(task(n, source, [annotation(n, regions)], data=more))
    report = bench.done(split=Split.parse("50/50"), split_by="patient", dry_run=True)
    assert not bench.folder.exists()
    assert report == bench.done(split=Split.parse("50/50"), split_by="patient")
    assert [each.task for each in report.skipped] == [40]
    parts = {each["task"]: each["part"] for each in bench.told()}
    assert all(len({parts[n] for n in parts if n // 4 == patient}) == 1 for patient in range(10))
    for part in ("train", "val"):
        count = sum(each == part for each in parts.values())
        assert (report.classes["sky"][part].pictures, report.parts[part]) == (count, count)
        assert report.classes["sky"][part].objects == 2 * count
    assert report.classes["car"]["val"].objects == 0
    bench.tasks = [each for each in bench.tasks if each["id"] != 1]
    bench.tasks[0]["data"]["patient"] = 9
    bench.done(split=Split.parse("50/50"), split_by="patient")
    assert all(parts[each["task"]] == each["part"] for each in bench.told())
