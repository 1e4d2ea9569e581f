"""Masks of files into the real Label Studio and out of its export: every pixel is there.

What comes back is decoded by Label Studio's own converter and by Pillow.
"""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page
from pycocotools import mask as coco_api
from scipy.ndimage import find_objects, label

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.e2e.editor import open_task, submit
from tests.e2e.masks import Mask, decode, iou
from tests.e2e.servers import get, run_command, sdk

CONTROLS = {
    "BrushLabels": ["sky", "cloud", "sun", "mountain", "water", "snow"],
    "BitmaskLabels": ["grass", "road", "sand", "rock", "fence"],
    "PolygonLabels": ["tree", "house", "dog", "car"],
    "RectangleLabels": ["boat", "person", "flower"],
}
CONFIG = "\n".join(
    [
        '<View><Image name="image" value="$image" smoothing="false"/>',
        *(
            f'<{tag} name="{tag}" toName="image">'
            + "".join(f'<Label value="{name.title()}"/>' for name in names)
            + f"</{tag}>"
            for tag, names in CONTROLS.items()
        ),
        "</View>",
    ]
)
SIZE = (1000, 750)  # width and height of the pictures in px
SEEDS = (701, 702, 704)  # which have all kinds between them
NAMES = {701: "straße 1 (süd).png", 702: "b.png", 704: "c.v2.jpg"}


def true_map(seed: int) -> Any:
    """Return the label map of a drawn scene at `SIZE`; 255 for nothing."""
    label_map = render_scene(seed).label_map
    values = np.where(label_map < 0, 255, label_map).astype(np.uint8)
    return np.asarray(Image.fromarray(values).resize(SIZE, 0))


@pytest.fixture(scope="module")
def project(studio: LabelStudioProcess) -> Iterator[int]:
    made = sdk(studio).projects.create(title="Masks that come in", label_config=CONFIG)
    files = []
    for seed in SEEDS:
        file = io.BytesIO()
        Image.fromarray(render_scene(seed).image).resize(SIZE).save(file, "PNG")
        files.append((NAMES[seed], file.getvalue()))
    demo.upload(studio, int(made.id), files)
    yield int(made.id)
    sdk(studio).projects.delete(id=int(made.id))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same masks as label maps and as a COCO file, written without the product."""
    root = tmp_path_factory.mktemp("masks")
    maps, coco = root / "maps", root / "coco"
    maps.mkdir()
    coco.mkdir()
    (maps / "names.txt").write_text("\n".join(SCENE_LABELS))
    images, annotations = [], []
    for number, seed in enumerate(SEEDS):
        values = true_map(seed)
        Image.fromarray(values).save(maps / (Path(NAMES[seed]).stem + ".png"))
        size = {"width": SIZE[0], "height": SIZE[1]}
        images.append({"id": number, "file_name": NAMES[seed]} | size)
        for value in set(np.unique(values).tolist()) - {255}:
            rle = coco_api.encode(np.asfortranarray(values == value, np.uint8))
            mask = {"size": rle["size"], "counts": rle["counts"].decode()}
            annotations.append({"image_id": number, "category_id": value, "segmentation": mask})
    categories = [{"id": value, "name": name} for value, name in enumerate(SCENE_LABELS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (coco / "instances.json").write_text(json.dumps(content))
    return {"index-png": maps, "coco": coco}


def import_masks(studio: LabelStudioProcess, project: int, folder: Path, *more: str) -> str:
    return run_command(studio, "import-masks", "--project", project, "--from", folder, *more)


def true_masks(seed: int) -> dict[str, Mask]:
    values = true_map(seed)
    return {SCENE_LABELS[v]: values == v for v in np.unique(values).tolist() if v != 255}


def assert_same(result: list[dict[str, Any]], expected: dict[str, Mask]) -> set[str]:
    """Compare regions with the masks that they were made of; return their kinds.

    Polygons have an IoU of 0.99 or more.
    """
    masks: dict[tuple[str, str], Mask] = {}
    boxes: dict[str, set[tuple[int, ...]]] = {}
    for region in result:
        kind, value = region["type"], region["value"]
        name = value[kind][0].lower()
        if kind == "rectanglelabels":
            left, top, width, height = (value[key] for key in ("x", "y", "width", "height"))
            shares = np.array([left, top, left + width, top + height]) * [*SIZE, *SIZE] / 100
            boxes.setdefault(name, set()).add(tuple(shares.round().astype(int).tolist()))
            continue
        if kind == "brushlabels":
            mask = decode(region)
        elif kind == "bitmasklabels":
            content = base64.b64decode(value["imageDataURL"].partition(",")[2])
            mask = np.asarray(Image.open(io.BytesIO(content)))[..., 3] > 127
        else:
            # Pillow also fills the pixels that an outline touches: quarters of them are drawn.
            canvas = Image.new("1", (4 * SIZE[0], 4 * SIZE[1]))
            points = [(x * SIZE[0] / 25, y * SIZE[1] / 25) for x, y in value["points"]]
            ImageDraw.Draw(canvas).polygon(points, fill=1)
            mask = np.asarray(canvas)[2::4, 2::4]
        before = masks.get((kind, name), np.zeros_like(mask))
        masks[kind, name] = before | mask
    for (kind, name), mask in masks.items():
        assert iou(mask, expected[name]) >= (0.99 if kind == "polygonlabels" else 1), name
    for name, found in boxes.items():
        islands, _ = label(expected[name], np.ones((3, 3)))
        assert found == {
            (columns.start, rows.start, columns.stop, rows.stop)
            for rows, columns in find_objects(islands)
        }
    named = {name for _, name in masks} | set(boxes)
    assert named == set(expected)
    return {region["type"] for region in result}


def seeds(studio: LabelStudioProcess, project: int) -> dict[int, int]:
    """Return task -> seed of its scene; tasks are listed as they were uploaded."""
    tasks = sorted(int(task.id) for task in sdk(studio).tasks.list(project=project))
    return dict(zip(tasks, SEEDS, strict=True))


def stored_masks(studio: LabelStudioProcess, project: int, version: str) -> dict[int, Any]:
    """Return task -> regions of its prediction of a version; all tasks have one."""
    all_of_them = sdk(studio).predictions.list(project=project)
    stored = {each.task: each.result for each in all_of_them if each.model_version == version}
    assert stored.keys() == seeds(studio, project).keys()
    return stored


def test_what_comes_in_is_what_the_editor_submits_and_label_studio_exports(
    page: Page, studio: LabelStudioProcess, project: int, folders: dict[str, Path]
) -> None:
    of_task, version = seeds(studio, project), ("--version-name", "coco")
    import_masks(studio, project, folders["coco"], "--dry-run")
    import_masks(studio, project, folders["coco"], *version)
    again = import_masks(studio, project, folders["coco"], *version)
    assert "0 tasks to write; 3 with this version already" in again
    import_masks(studio, project, folders["coco"], *version, "--replace")
    stored = stored_masks(studio, project, "coco")
    kinds = [assert_same(result, true_masks(of_task[task])) for task, result in stored.items()]
    assert set.union(*kinds) == {tag.lower() for tag in CONTROLS}

    submitted = min(of_task)
    open_task(page, studio, project, submitted)
    submit(page, submitted)
    for _ in range(2):  # the second time there is nothing to do
        said = import_masks(studio, project, folders["index-png"], "--as", "annotations")
    assert "0 tasks to write; 3 with annotations already" in said
    exported = get(studio, f"/api/projects/{project}/export?exportType=JSON").json()
    assert {task["id"] for task in exported} == set(of_task)
    for task in exported:
        (annotation,) = task["annotations"]
        assert_same(annotation["result"], true_masks(of_task[task["id"]]))
