"""Data sets of tasks: what is in them, what is skipped, what a later run does."""

import base64
import io
import json
import shutil
import threading
import unicodedata
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.annotations.annotated_image import AnnotationChoice
from backend.dataset.dataset_report import Change
from backend.dataset.splits import Split
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import (
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
    saved,
    task,
)

SKY, ROAD = rectangle(0, 0, 20, 60), rectangle(15, 0, 40, 60)
SMALL = np.ones((4, 6), np.bool_)
CUT_OFF = {"value": {"rle": [255] * 40, "brushlabels": ["sky"]}}


def test_every_kind_of_mask_is_in_the_label_map(bench: Bench) -> None:
    """The ellipse and the polygon against Pillow's own drawing, up to their edges."""
    square = {"points": [[50, 50], [100, 50], [100, 100], [50, 100]], "closed": True}
    ellipse = {"x": 25, "y": 87.5, "radiusX": 10, "radiusY": 10, "rotation": 0}
    bench.draw(
        "a.png",
        brush_region(SKY, "sky"),
        bitmask_region(rectangle(20, 0, 30, 20), "c"),
        region("polygonlabels", "poly", "tree", value=square),
        region("ellipselabels", "round", "sign", value=ellipse),
        region("keypointlabels", "click", "sky", value={"x": 90, "y": 90, "width": 1}),
        {"id": "t", "type": "choices", "from_name": "q", "to_name": "img", "value": {}},
    )
    report = bench.done()
    assert (report.pictures, report.regions, report.skipped) == (1, 4, [])
    drawn = Image.new("1", (6000, 4000))
    ImageDraw.Draw(drawn).ellipse((900, 3100, 2100, 3900), fill=1)
    expected = np.full(SIZE_HW, 255)
    expected[np.asarray(drawn)[50::100, 50::100]] = 4
    expected[rectangle(20, 30, 40, 60)] = 3
    expected[rectangle(20, 0, 30, 20)] = 2
    expected[SKY] = 0
    np.testing.assert_array_equal(bench.mask("a"), expected)
    assert (bench.folder / "images/a.png").read_bytes() == picture_bytes(1)
    classes = json.loads((bench.folder / "classes.json").read_text())
    assert [each["name"] for each in classes["classes"]] == NAMES
    assert (bench.folder / "splits/train.txt").read_text() == "a\n"


def test_soft_edges_count_from_the_half_and_overlaps_follow_the_rule(bench: Bench) -> None:
    bench.draw(
        "a.png",
        brush_region(rectangle(0, 0, 9, 9), "sky", alpha=127),
        brush_region(rectangle(20, 0, 30, 9), "road", alpha=128),
    )
    bench.draw("b.png", brush_region(SKY, "sky"), brush_region(ROAD, "road"))
    bench.done(overlap="smallest")
    assert np.array_equal(bench.mask("a"), np.where(rectangle(20, 0, 30, 9), 1, 255))
    assert np.array_equal(bench.mask("b"), np.where(SKY, 0, 1))
    classes = json.loads((bench.folder / "classes.json").read_text())
    assert classes["overlap"] == "smallest"
    assert "the fewest pixels wins" in classes["overlap_rule"]


def test_rectangles_bound_and_fill_only_where_somebody_asks(bench: Bench) -> None:
    bench.config = bench.config.replace(' smart="true"><Label value="car"', '><Label value="car"')
    value = {"x": 0, "y": 0, "width": 50, "height": 100}
    box = region("rectanglelabels", "box", "c", value=value)
    bench.draw("a.png", brush_region(SKY, "sky"), box)
    (note,) = bench.done(background="other").notes
    assert note.startswith("In 1 label map rectangles cover pixels that nothing else does.")
    left, below = rectangle(0, 0, 40, 30), ~SKY
    assert np.array_equal(bench.mask("a"), np.where(SKY, 1, np.where(left, 255, 0)))
    assert bench.done(background="other", fills_rectangles=True).notes[0].startswith("In 1 label")
    assert np.array_equal(bench.mask("a"), np.where(SKY, 1, np.where(left & below, 3, 0)))
    boxes = bench.done(formats=("coco",)).regions
    assert boxes == 2, "objects are as they were drawn"


def test_two_images_of_a_task_and_lists_of_images_are_pictures_of_their_own(bench: Bench) -> None:
    pages = [bench.add(f"p{n}.png", picture_bytes(n)) for n in range(2)]
    rear = bench.add("rear.png", picture_bytes(9))
    regions = [brush_region(SKY, "sky", item_index=1), brush_region(ROAD, "road", to_name="back")]
    each = task(1, "", [annotation(1, regions)], data={"image": pages, "rear": rear})
    bench.config = TWO_IMAGES.replace('value="$image"', 'valueList="$image"')
    bench.tasks = [each]
    assert bench.done().pictures == 3
    assert not (bench.mask("p0") != 255).any()
    assert (bench.mask("p1") == 0).tolist() == SKY.tolist()
    assert (bench.mask("rear") == 1).tolist() == ROAD.tolist()


def test_a_turned_picture_is_copied_upright(bench: Bench) -> None:
    bench.draw("turned.jpg", brush_region(SKY, "sky"))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture_bytes(1, (60, 40), "JPEG", exif=exif, quality=95)
    bench.add("turned.jpg", lying)
    assert bench.done().skipped == []
    with Image.open(bench.folder / "images/turned.png") as copied:
        assert copied.getexif().get(0x0112, 1) == 1
        with Image.open(io.BytesIO(lying)) as stored:
            assert np.array_equal(np.asarray(copied), np.rot90(np.asarray(stored), -1))
    assert bench.mask("turned").shape == (40, 60)


def test_names_are_those_of_the_pictures_and_each_once(bench: Bench) -> None:
    (bench.pictures / "one").mkdir()
    bench.add("one/Straße 1.png", picture_bytes(3))
    decomposed = unicodedata.normalize("NFD", "café.png")
    sources = [
        bench.add("Straße 1.png", picture_bytes(1)),
        "/data/local-files/?d=one/Stra%C3%9Fe%201.png",
        bench.add("日本.png", picture_bytes(4)),
        bench.add("0123abcd-日本.png", picture_bytes(7)),
        bench.add("9b45e06c-long.png", picture_bytes(8)),
        bench.add(decomposed, picture_bytes(5)),
        "data:image/png;base64," + base64.b64encode(picture_bytes(6)).decode(),
    ]
    bench.tasks = [
        task(n, source, [annotation(n, [brush_region(SKY, "sky")])])
        for n, source in enumerate(sources, 1)
    ]
    assert bench.done().skipped == []
    images = {path.stem for path in (bench.folder / "images").iterdir()}
    others = {"日本", "0123abcd-日本", "long", "café", "task-7"}
    assert images == {"Straße 1", "Straße 1-task2", *others}
    assert images == {path.stem for path in (bench.folder / "masks").iterdir()}
    assert (bench.folder / "images/Straße 1-task2.png").read_bytes() == picture_bytes(3)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (brush_region(SKY, "sky") | CUT_OFF, "A brush region of sky is broken: it is cut off"),
        (brush_region(np.ones((50, 60)), "sky"), "on 60×50 px, but the picture has 60×40 px"),
        (brush_region(SKY, "sky") | {"value": None}, "is broken: Label Studio has not"),
        (region("rectanglelabels", "mask", "sky", (10**6, 10**6), value={"x": 0}), "px"),
    ],
    ids=["hostile run lengths", "another size", "no value", "enormous"],
)
def test_broken_regions_cost_a_picture(bench: Bench, broken: dict[str, Any], sentence: str) -> None:
    bench.draw("a.png", broken)
    bench.draw("b.png", brush_region(SKY, "sky"))
    report = bench.done(formats=("index-png", "coco", "yolo"))
    (skipped,) = report.skipped
    assert (skipped.task, report.pictures) == (1, 1)
    assert sentence in skipped.reason
    assert "\n" not in skipped.reason
    assert not any(file.rpartition("/")[2].startswith("a.") for file in bench.files())


def test_regions_whose_label_or_control_is_gone_are_counted_and_mapped(bench: Bench) -> None:
    for n in (1, 2):
        lost = brush_region(ROAD, "road", from_name="old")
        bench.draw(f"{n}.png", brush_region(SKY, "heaven"), lost)
    report = bench.done()
    assert (report.pictures, len(report.skipped)) == (0, 2)
    label, control = report.notes
    assert label.startswith('2 regions of the label "heaven", which the labeling config lacks')
    assert '"heaven=LABEL"' in label
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


def test_a_broken_picture_is_skipped_and_tried_again(bench: Bench) -> None:
    bench.draw("a.png", brush_region(SKY, "sky"))
    bench.draw("b.png", brush_region(SKY, "sky"))
    bench.add("a.png", picture_bytes(1)[:200])
    (bench.pictures / "b.png").unlink()
    damaged, gone = bench.done().skipped
    assert "damaged or truncated" in damaged.reason
    assert "is gone" in gone.reason
    assert not (bench.folder / "images").exists()
    for name in ("a.png", "b.png"):
        bench.add(name, picture_bytes(1))
    assert bench.done().skipped == []


def folders(bench: Bench) -> list[str]:
    return sorted(each.name for each in bench.folder.parent.glob("set*"))


def test_a_later_run_replaces_the_folder_as_a_whole(bench: Bench) -> None:
    for n in (1, 2, 3):
        bench.draw(f"{n}.png", brush_region(SKY, "sky"))
    assert bench.done(formats=("index-png", "coco")).tasks == 3
    (bench.folder / "labels.cache").write_bytes(b"of a trainer")
    del bench.tasks[1:]
    bench.draw("2.png", brush_region(ROAD, "road"))
    assert bench.done().pictures == 2
    assert (bench.mask("2") == 1).tolist() == ROAD.tolist()
    assert bench.files() == {
        *("classes.json", "pictures.jsonl", "report.json", "splits/train.txt"),
        *("images/1.png", "images/2.png", "masks/1.png", "masks/2.png"),
    }
    assert folders(bench) == ["set"]


def test_a_data_set_knows_the_one_before_it(bench: Bench) -> None:
    for n, label in enumerate(("sky", "sky", "road"), 1):
        bench.draw(f"{n}.png", brush_region(SKY, label))
    assert bench.done().changes is None
    assert bench.done(overlap="smallest").changes.pictures == Change()
    bench.tasks[1]["annotations"] = [annotation(9, [brush_region(ROAD, "sky")])]
    bench.draw("4.png", brush_region(SKY, "road"))
    bench.add("3.png", picture_bytes(9))
    del bench.tasks[0]
    changes = bench.done().changes
    assert changes.pictures == Change(new=1, corrected=2, gone=1)
    road, sky = Change(new=1, corrected=1), Change(corrected=1, gone=1)
    assert changes.classes == {"road": road, "sky": sky}
    assert str(changes).endswith(": 1 new, 2 corrected, 1 gone.")
    assert bench.report()["changes"]["pictures"]["new"] == 1


def test_a_run_killed_between_its_two_renames_is_undone(bench: Bench) -> None:
    bench.draw("a.png", brush_region(SKY, "sky"))
    bench.done()
    shutil.copytree(bench.folder, bench.folder.with_name("set.partial"))
    bench.folder.rename(bench.folder.with_name("set.partial-replaced"))
    stopping = threading.Event()
    stopping.set()
    assert bench.run(stopping) is None
    assert "masks/a.png" in bench.files()


def test_a_library_that_is_missing_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.dataset.formats.writers.find_spec", lambda _: None)
    bench.done()
    with pytest.raises(DatasetError, match="needs pyarrow, which is not installed"):
        bench.run(formats=("parquet",))


def test_too_large_a_set_or_a_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(1, 9):
        bench.draw(f"{n}.png", size_hw=(400, 400))  # 480 kB each
    with pytest.raises(DatasetError, match="DATASET_MB=1"):
        bench.run(max_mb=1)
    monkeypatch.setattr("backend.dataset.output_folder._LEFT_FREE", 1 << 60)
    with pytest.raises(DatasetError, match="make room"):
        bench.run()
    assert folders(bench) == []


def test_annotators_and_predictions_and_where_regions_come_from(bench: Bench) -> None:
    kept = brush_region(SKY, "sky", origin="prediction", score=0.9)
    changed = brush_region(ROAD, "road", origin="prediction-changed")
    predicted = {"id": 70, "model_version": "clip 1", "result": [kept]}
    bench.draw("a.png", kept, changed, person=4, predictions=[predicted])
    annotations = bench.tasks[0]["annotations"]
    annotations[0] |= {"parent_prediction": 70, "ground_truth": True}
    annotations.append(annotation(2, [brush_region(ROAD, "road")], person=5))
    annotations.append(annotation(3, [], person=6, was_cancelled=True))

    def run(rule: str) -> list[list[dict[str, Any]]]:
        bench.done(choice=AnnotationChoice.parse(rule))
        return [each["regions"] for each in bench.told()]

    by_hand = {"origin": "manual", "model_version": "", "annotation": 2, "annotator": 5}
    assert run("newest") == [[{"label": "road", **by_hand}]]
    whose = {"annotation": 1, "annotator": 4, "model_version": "clip 1"}
    truth = [
        {"label": "sky", "score": 0.9, "origin": "prediction", **whose},
        {"label": "road", "origin": "prediction-changed", **whose},
    ]
    assert run("ground-truth") == run("4") == [truth]
    assert run("6") == []


def test_what_a_majority_disagrees_on_is_no_background(bench: Bench) -> None:
    left, right = rectangle(0, 0, 40, 30), rectangle(0, 20, 40, 50)
    drawn = [brush_region(left, "sky")], [brush_region(left, "sky")], [brush_region(right, "road")]
    bench.draw("a.png")
    votes = [annotation(n, regions, person=n) for n, regions in enumerate(drawn, 1)]
    stale = annotation(29, [brush_region(right, "road")], person=1)
    bench.tasks[0]["annotations"] = [stale | {"updated_at": "2020-01-01T00:00:00Z"}, *votes]
    bench.done(choice=AnnotationChoice.parse("majority"), background="sea")
    assert np.array_equal(bench.mask("a"), np.where(left, 1, 0))
    votes.append(annotation(4, drawn[2], person=4))
    bench.tasks[0]["annotations"] = votes
    bench.done(choice=AnnotationChoice.parse("majority"), background="sea")
    assert np.array_equal(bench.mask("a"), np.where(left | right, 255, 0))


def test_equal_files_are_in_one_part(bench: Bench) -> None:
    for n in range(40):
        bench.draw(f"{n}.png", brush_region(SMALL, "sky"), size_hw=(4, 6))
        bench.add(f"{n}.png", picture_bytes(n // 2, (4, 6)))
    report = bench.done(split=Split.parse("50/25/25"))
    assert all(report.parts.values())
    parts = {each["image"]: each["part"] for each in bench.told()}
    assert all(parts[f"{2 * n}.png"] == parts[f"{2 * n + 1}.png"] for n in range(20))


def drawn_in_parts(bench: Bench) -> dict[str, str]:
    """Write 14 pictures by 70/20/10; return picture -> part."""
    for n in range(14):
        bench.draw(f"{n}.png", brush_region(SMALL, "sky"), size_hw=(4, 6))
    bench.done(split=Split.parse("70/20/10"))
    return {each["image"]: each["part"] for each in bench.told()}


def test_other_shares_leave_a_set_as_it_is(bench: Bench) -> None:
    before = drawn_in_parts(bench)
    with pytest.raises(DatasetError, match=r"out of train.*“70/20/10”.*--resplit"):
        bench.done(split=Split.parse("30/30/40"))
    assert {each["image"]: each["part"] for each in bench.told()} == before


def test_a_set_is_divided_anew_where_that_is_asked_for(bench: Bench) -> None:
    before = drawn_in_parts(bench)
    report = bench.done(split=Split.parse("30/30/40"), resplit=True)
    after = {each["image"]: each["part"] for each in bench.told()}
    moved = sum(before[name] != after[name] for name in before)
    (note,) = [each for each in report.notes if "another part" in each]
    assert note.startswith(f"{moved} pictures of 14 are in another part than in the last set")


def test_a_set_of_one_part_may_be_divided_later(bench: Bench) -> None:
    bench.draw("a.png", brush_region(SMALL, "sky"), size_hw=(4, 6))
    bench.draw("b.png", brush_region(SMALL, "sky"), size_hw=(4, 6))
    bench.done()
    assert bench.done(split=Split.parse("50/50")).parts == {"train": 1, "val": 1}


def with_a_copy_in_each_part(bench: Bench) -> None:
    """Draw ten pictures in pairs that differ in a pixel, each in another place of the split."""
    for n in range(10):
        bench.draw(f"{n}.png", brush_region(SKY, "sky"))
        bench.tasks[-1]["data"]["copy"] = f"copy {n % 2}"
        pixels = np.random.default_rng(n // 2).integers(0, 256, (*SIZE_HW, 3), np.uint8)
        pixels[0, 0] = n
        bench.add(f"{n}.png", saved(Image.fromarray(pixels)))


def test_pictures_of_two_parts_that_are_nearly_the_same_are_named(bench: Bench) -> None:
    with_a_copy_in_each_part(bench)
    report = bench.done(split=Split.parse("50/50"), split_by="copy")
    (note,) = [each for each in report.notes if each.startswith("Nearly the same")]
    assert "5 pictures of val." in note
    assert note.endswith("give --near-duplicates the value 0.95.")

    pairs = [tuple(each.image for each in pair.images) for pair in report.alike]
    numbers = {tuple(sorted(int(name[:-4]) for name in pair)) for pair in pairs}
    assert numbers == {(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)}
    assert all([e.part for e in pair.images] == ["train", "val"] for pair in report.alike)
    assert all(pair.correlation > 0.99 for pair in report.alike)


def test_copies_that_are_kept_together_are_not_told_of(bench: Bench) -> None:
    with_a_copy_in_each_part(bench)
    report = bench.done(split=Split.parse("50/50"), least_correlation=0.95)
    assert report.alike == []
    assert not [each for each in report.notes if each.startswith("Nearly the same")]


def test_unpainted_pixels_are_a_class_where_one_is_named(bench: Bench) -> None:
    bench.draw("a.png", brush_region(rectangle(0, 0, 9, 9), "sky"))
    formats = ("index-png", "coco", "parquet")
    assert any("--background" in note for note in bench.done(formats=formats).notes)
    assert bench.done(formats=formats, background="other").notes == []
    assert np.array_equal(bench.mask("a"), rectangle(0, 0, 9, 9))
    classes = json.loads((bench.folder / "classes.json").read_text())
    assert [each["name"] for each in classes["classes"]] == ["other", *NAMES]
    told = json.loads((bench.folder / "annotations/instances_train.json").read_text())
    assert [each["name"] for each in told["categories"]] == NAMES
    assert [each["category_id"] for each in told["annotations"]] == [1]


def test_parts_are_divided_by_a_field_and_counted(bench: Bench) -> None:
    regions = [brush_region(SMALL, "sky", id="a"), brush_region(SMALL, "sky", id="b")]
    for n in range(1, 41):
        bench.draw(f"{n}.png", *regions, size_hw=(4, 6))
        bench.tasks[-1]["data"]["patient"] = n // 4 if n < 40 else " "
    options = {"split": Split.parse("50/50"), "split_by": "patient"}
    report = bench.done(**options, dry_run=True)
    assert not bench.folder.exists()
    written = bench.done(**options)
    assert msgspec.structs.replace(written, made=report.made) == report
    assert [each.task for each in report.skipped] == [40]
    parts = {each["task"]: each["part"] for each in bench.told()}
    assert all(len({parts[n] for n in parts if n // 4 == patient}) == 1 for patient in range(10))
    for part in ("train", "val"):
        count = sum(each == part for each in parts.values())
        assert (report.classes["sky"][part].pictures, report.parts[part]) == (count, count)
        assert report.classes["sky"][part].objects == 2 * count
        assert report.classes["sky"][part].percent == round(100 * count / 39)
    met = "/".join(str(round(100 * count / 39)) for count in report.parts.values())
    assert f"Percent of the pictures: 50/50 asked, {met} met." in str(report)
    assert report.classes["car"]["val"].objects == 0
    del bench.tasks[0]
    bench.tasks[0]["data"]["patient"] = next(n // 4 for n in parts if parts[n] != parts[2])
    for some in (bench.tasks, bench.tasks[:5], bench.tasks[::-1]):
        bench.tasks = some  # those of a view, or the others cannot be read for once
        bench.done(**options)
        assert all(parts[each["task"]] == each["part"] for each in bench.told())
