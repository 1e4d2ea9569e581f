"""Masks into a project, against a stand-in for Label Studio's API; tests/e2e has the real one.

What was stored is decoded by Label Studio's own converter."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_fill_holes

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.coco import read_coco
from backend.dataset.formats.label_map import read_index_png
from backend.dataset.mask_import import (
    ImportOptions,
    ImportReport,
    MaskImporter,
    RegionDrawer,
    version_of_masks,
)
from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.matching import ClassMapping, ImagePlace, Matched
from backend.errors import DatasetError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.services import Services
from backend.settings import load_settings
from clearclip_core import SCENE_LABELS, render_scene
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer
from tests.backend.fakes.mask_set import CONFIG, VALUES, picture, put

Make = Callable[..., MaskImporter]
VERSION = "masks set"


@pytest.fixture
def studio() -> FakeStudio:
    """Three tasks with uploaded pictures `a.jpg`, `b.jpg` and `c.jpg`."""
    paths = {task: f"/data/upload/7/0000000{task}-{name}.jpg" for task, name in enumerate("abc", 1)}
    studio = FakeStudio(CONFIG, {task: {"image": path} for task, path in paths.items()})
    studio.files = dict.fromkeys(paths.values(), picture())
    return studio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "names.txt").write_text("sky\ntraffic_light\n")
    for name in "ab":
        put(folder, name, VALUES)
    return folder


@pytest.fixture
def importer(server: LocalServer) -> Callable[..., MaskImporter]:
    def make(version: str = "masks set", **options: Any) -> MaskImporter:
        settings = load_settings(label_studio_url=server.url, label_studio_api_key=TOKEN)
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=20, first_pause_s=0.01)
        images = Services(settings).images
        return MaskImporter(client, images, 7, ImportOptions(version, **options))

    return make


def masks(folder: Path) -> Iterator[MaskSource]:
    return read_index_png(folder, None, Limits())


def run(make: Make, folder: Path, **options: Any) -> ImportReport:
    importer = make(**options)
    plan = importer.plan(masks(folder))
    report = importer.write()
    assert not report.refused
    assert report.left == 0
    return plan


def decoded(entry: dict[str, Any]) -> npt.NDArray[np.bool_]:
    rgba = decode_rle(entry["value"]["rle"])
    size = entry["original_height"], entry["original_width"], 4
    return np.asarray(rgba.reshape(size)[..., 3] > 0)


@pytest.mark.parametrize("instances", [False, True])
def test_the_plan_says_where_objects_become_one_region(importer: Make, instances: bool) -> None:
    regions = [LabelledRegion.of("sky", np.equal(VALUES, value)) for value in (0, 1)]
    objects = MaskSource("a", "a.json", lambda _: regions, has_objects=True)
    plan = importer(instances=instances).plan([objects])
    assert (plan.objects, plan.regions) == (2, 1 + instances)
    assert ("2 objects become 1 region, one for each label" in plan.plan()) != instances


def test_an_import_that_is_stopped_goes_on_from_there(
    importer: Make, folder: Path, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.dataset.mask_import._CHUNK", 1)
    stopping = threading.Event()
    first = importer()
    first._stopping = stopping
    first.plan(masks(folder))
    report = first.write(lambda done, total: stopping.set())
    assert (report.written, report.left) == (1, 1)
    assert run(importer, folder).present == 1
    put(folder, "c", VALUES)
    plan = run(importer, folder)
    assert (plan.ready, plan.present) == (1, 2)
    assert studio.stored() == {1: 1, 2: 1, 3: 1}


def test_only_what_is_told_is_replaced(importer: Make, folder: Path, studio: FakeStudio) -> None:
    studio.add(1, f"{VERSION} 2")  # Label Studio finds the one in the other
    run(importer, folder)
    before = {each["id"] for each in studio.predictions}
    put(folder, "a", np.zeros((40, 60), np.uint8))
    plan = run(importer, folder, replace=True)
    assert (plan.ready, plan.replaced) == (2, 2)
    assert studio.stored() == {1: 2, 2: 1}, "that of the model stays"
    assert len(before & {each["id"] for each in studio.predictions}) == 1
    (new,) = (p for p in studio.predictions if p["task"] == 1 and p["model_version"] == VERSION)
    assert decoded(new["result"][0]).all()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda f: put(f, "b", VALUES + 3), "b.png has the value 2"),
        (lambda f: (f / "b.png").write_bytes(b"PNG"), "b.png is no PNG picture"),
    ],
)
def test_what_is_wrong_is_a_sentence_before_anything_is_written(
    importer: Make, folder: Path, studio: FakeStudio, break_it: Callable[[Path], Any], sentence: str
) -> None:
    break_it(folder)
    plan = importer().plan(masks(folder))
    (problem,) = plan.problems
    assert problem.startswith(sentence)
    assert studio.predictions == []
    del studio.files[studio.tasks[1]["image"]]
    plan = importer().plan(masks(folder))
    assert any(each.startswith("a.png: ") for each in plan.problems), "a picture that is gone"


def test_a_control_is_chosen(importer: Make, folder: Path, studio: FakeStudio) -> None:
    run(importer, folder, controls=("outline",), renamed={"traffic_light": ""})
    (region,) = studio.predictions[0]["result"]
    assert region["from_name"] == "outline"
    corners = {(0, 0), (100, 0), (100, 25), (0, 25)}
    assert {tuple(point) for point in region["value"]["points"]} == corners


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_masks_lie_on_a_turned_photograph_as_people_see_it(
    importer: Make, folder: Path, studio: FakeStudio, orientation: int
) -> None:
    studio.files[studio.tasks[1]["image"]] = picture((40, 60), orientation)
    (folder / "b.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(VALUES)
    stored.info["exif"] = exif.tobytes()
    shown = np.array(ImageOps.exif_transpose(stored))
    put(folder, "a", shown)
    run(importer, folder)
    (entry, _) = studio.predictions[-1]["result"]
    np.testing.assert_array_equal(decoded(entry), shown == 0)


def test_annotations_are_stored_once(importer: Make, folder: Path, studio: FakeStudio) -> None:
    studio.late = 1  # the answer to the first one is lost
    run(importer, folder, kind="annotations")
    assert [each["task"] for each in studio.annotations.values()] == [1, 2]
    first = next(iter(studio.annotations.values()))
    assert [entry["origin"] for entry in first["result"]] == ["manual", "manual"]
    assert not any("score" in entry for entry in first["result"])
    sky, light = first["result"]
    assert light["value"]["brushlabels"] == ["tl"], "the alias, as the editor writes it"
    np.testing.assert_array_equal(decoded(sky), VALUES == 0)
    np.testing.assert_array_equal(decoded(light), VALUES == 1)
    plan = run(importer, folder, kind="annotations")
    assert (plan.ready, plan.present, len(studio.annotations)) == (0, 2, 2)


def boxes(folder: Path, *names: str) -> Iterator[MaskSource]:
    """Return pictures of a COCO file, whose objects are boxes without masks."""
    objects = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600}
        for number in range(len(names))
    ]
    file = folder / "boxes.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(names)],
                "categories": [{"id": 1, "name": "sky"}],
                "annotations": objects,
            }
        )
    )
    return read_coco(file, None)


@pytest.mark.parametrize("kind", ["predictions", "annotations"])
def test_pictures_of_boxes_alone_are_a_problem(importer: Make, folder: Path, kind: str) -> None:
    plan = importer(kind=kind).plan(boxes(folder, "a", "b"))
    assert plan.ready == 0
    (problem,) = plan.problems
    assert problem.startswith("None of its regions has a mask")
    assert problem.endswith("It is in 2 files, such as a.jpg.")


def test_nothing_is_annotated_without_a_region(
    importer: Make, folder: Path, studio: FakeStudio
) -> None:
    put(folder, "a", np.full_like(VALUES, 255))
    plan = run(importer, folder, kind="annotations")
    assert [each["task"] for each in studio.annotations.values()] == [2]
    assert plan.ready == 1
    assert [each.where for each in plan.left_out] == ["a.png"]


def test_an_empty_page_of_a_task_with_others_is_no_problem(
    importer: Make, folder: Path, studio: FakeStudio
) -> None:
    studio.label_config = studio.label_config.replace('value="$image"', 'valueList="$pages"')
    studio.tasks = {5: {"pages": [studio.tasks[task]["image"] for task in (1, 2)]}}
    put(folder, "a", np.full_like(VALUES, 255))
    assert not run(importer, folder, kind="annotations").left_out
    (annotation,) = studio.annotations.values()
    assert {entry["item_index"] for entry in annotation["result"]} == {1}


def test_peoples_annotations_stay(importer: Make, folder: Path, studio: FakeStudio) -> None:
    theirs = studio.annotate(1, [])["id"]
    plan = run(importer, folder, kind="annotations")
    assert (plan.ready, plan.present) == (1, 1)
    assert [each["task"] for each in studio.annotations.values()] == [1, 2]
    assert theirs in studio.annotations
    with pytest.raises(DatasetError, match="Annotations are not replaced"):
        importer(kind="annotations", replace=True)


def test_a_task_that_is_refused_is_told(importer: Make, folder: Path, studio: FakeStudio) -> None:
    studio.refused = {2}
    started = importer()
    started.plan(masks(folder))
    report = started.write()
    assert (report.written, list(report.refused)) == (1, [2])
    assert "no label" in report.outcome()

    def fault(asked: Asked) -> Answer | None:
        return Answer(400, b'{"detail": "bad"}') if asked.method == "POST" else None

    studio.fault = fault
    started = importer(kind="annotations")
    started.plan(masks(folder))
    assert started.write().refused.keys() == {1, 2}


def test_images_of_a_task_are_one_result(importer: Make, folder: Path, studio: FakeStudio) -> None:
    studio.label_config = studio.label_config.replace('value="$image"', 'valueList="$pages"')
    pages = [studio.tasks[task]["image"] for task in (1, 2)]
    studio.tasks = {5: {"pages": pages}}
    run(importer, folder)
    (stored,) = studio.predictions
    assert [entry["item_index"] for entry in stored["result"]] == [0, 0, 1, 1]
    assert stored["task"] == 5


def test_a_name_that_label_studio_would_confuse_is_refused() -> None:
    for version in ("", " a", "a,b", "a\nb", "x" * 101):
        with pytest.raises(DatasetError, match="no comma"):
            ImportOptions(version)
    for path in ("a/b", "a, b", "x" * 200, "labels.coco.json", "ü"):
        assert ImportOptions(version_of_masks(Path(path))).version.startswith("masks")


LEFT, RIGHT = np.zeros((2, 20, 30), np.bool_)
LEFT[5:15, :12] = True
RIGHT[5:15, 8:20] = True  # they overlap
REGIONS = (LabelledRegion.of("car", LEFT, score=0.5), LabelledRegion.of("car", RIGHT))
MATCHED = Matched(
    MaskSource("a", "a.json", lambda size_hw: REGIONS), ImagePlace(Task(3, 7, {}), "img", "a.jpg")
)
SIZE_HW = (20, 30)


def config(control: str) -> LabelConfig:
    return parse_label_config(
        f'<View><Image name="img" value="$image"/><{control} name="c" toName="img" '
        f'model_score_threshold="0.9"><Label value="car"/></{control}></View>',
        None,
    )


def drawn(control: str, **options: Any) -> list[dict[str, Any]]:
    return list(RegionDrawer(ClassMapping(config(control)), **options).draw(MATCHED, SIZE_HW))


def test_regions_are_one_for_each_label_or_object() -> None:
    (both,) = drawn("BrushLabels")
    mask = decode_rle(both["value"]["rle"]).reshape(20, 30, 4)[..., 3] > 0
    np.testing.assert_array_equal(mask, LEFT | RIGHT)
    assert both["score"] == 0.75
    apart = drawn("BrushLabels", instances=True)
    assert [entry["score"] for entry in apart] == [0.5, 1.0], "thresholds are for the model"
    assert len({entry["id"] for entry in apart}) == 2
    for control in ("PolygonLabels", "RectangleLabels"):
        assert len(drawn(control)) == 2, "outlines are one for each object"


def test_parts_of_one_object_lie_below_the_first() -> None:
    """As an export reads them; a label map does not know which islands belong together."""
    regions = (LabelledRegion.of("car", LEFT & ~RIGHT | np.roll(LEFT, 17, axis=1)),)

    def parents(has_objects: bool) -> list[Any]:
        source = MaskSource("a", "a.json", lambda _: regions, has_objects=has_objects)
        drawer = RegionDrawer(ClassMapping(config("PolygonLabels")))
        entries = list(drawer.draw(Matched(source, MATCHED.place), SIZE_HW))
        return [entry.get("parentID") == entries[0]["id"] for entry in entries]

    assert parents(True) == [False, True]
    assert parents(False) == [False, False]


def test_a_region_without_an_area_costs_itself() -> None:
    regions = (*REGIONS, LabelledRegion.of("car", LEFT & ~LEFT, id="line 2"))
    matched = Matched(MaskSource("a", "a.txt", lambda _: regions), MATCHED.place)
    drawer = RegionDrawer(ClassMapping(config("BrushLabels")))
    names, (reason,) = drawer.check(matched, SIZE_HW)
    assert names == {"car": 2}
    assert reason.startswith("line 2 is left out: it has no mask")
    assert [entry["score"] for entry in drawer.draw(matched, SIZE_HW)] == [0.75], "of the others"


def test_a_mask_of_another_size_is_refused() -> None:
    drawer = RegionDrawer(ClassMapping(config("BrushLabels")))
    told = Matched(MaskSource("a", "a.json", lambda _: (), size_hw=(20, 30)), MATCHED.place)
    for matched in (MATCHED, told):
        with pytest.raises(DatasetError, match=r"a\.json is 30×20 px, but its picture 20×30 px"):
            drawer.check(matched, (30, 20))


@pytest.mark.parametrize("seed", [702, 706])
def test_polygons_cover_drawn_masks_and_leave_their_holes_out(seed: int) -> None:
    """pycocotools draws the polygons."""
    size_hw = (750, 1000)
    scene = Image.fromarray(render_scene(seed).label_map.astype(np.int32)).resize(size_hw[::-1], 0)
    values = np.asarray(scene)
    masks = {value: values == value for value in np.unique(values[values >= 0]).tolist()}
    assert any((binary_fill_holes(mask) != mask).any() for mask in masks.values())
    for value, mask in masks.items():
        regions = (LabelledRegion.of("car", mask),)
        source = MaskSource("a", "a.json", lambda _, regions=regions: regions)
        drawer = RegionDrawer(ClassMapping(config("PolygonLabels")))
        matched = Matched(source, MATCHED.place)
        points = [
            (np.array(each["value"]["points"]) * size_hw[::-1] / 100).ravel().tolist()
            for each in drawer.draw(matched, size_hw)
        ]
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(points, *size_hw)))
        both, either = (drawn & mask).sum(), (drawn | mask).sum()
        assert both / either >= 0.99, SCENE_LABELS[value]
