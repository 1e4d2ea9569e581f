"""A prelabel corrected by strokes: as a training set, in Label Studio's PNGs, imported again."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Page
from pycocotools.coco import COCO

from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS
from tests.e2e.editor import Canvas, deepest_point, drag, open_task, submit
from tests.e2e.masks import Mask, labelled, masks_of, scene_seed
from tests.e2e.servers import get, run_command, sdk

NOTHING = 255


def pngs_of_label_studio(
    studio: LabelStudioProcess, project: int
) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """Label -> alphas (H, W) of each of its regions, from the export *Brush labels to PNG*."""
    answer = get(studio, f"/api/projects/{project}/export?exportType=BRUSH_TO_PNG")
    found: dict[str, list[npt.NDArray[np.uint8]]] = {}
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        for name in file.namelist():
            told = re.search(r"-label-(.+)-\d+\.png$", name)
            assert told, name
            with Image.open(io.BytesIO(file.read(name))) as alpha:
                found.setdefault(told[1], []).append(np.asarray(alpha))
    return found


def coco_masks(folder: Path) -> dict[str, Mask]:
    """Label -> pixels of its objects, as COCO's own reader finds them."""
    read = COCO(folder / "annotations/instances_train.json")
    found: dict[str, Mask] = {}
    for each in read.loadAnns(read.getAnnIds()):
        name = read.cats[each["category_id"]]["name"]
        found[name] = found.get(name, np.False_) | read.annToMask(each).astype(bool)
    return found


def test_what_strokes_leave_is_what_the_training_set_has(
    page: Page,
    studio: LabelStudioProcess,
    demo_project: int,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    first = min(sdk(studio).tasks.list(project=demo_project), key=lambda task: task.id)
    (predicted,) = sdk(studio).predictions.list(task=first.id)
    project = new_project(list(SCENE_LABELS), seeds=[scene_seed(first.data["image"])])
    (task,) = sdk(studio).tasks.list(project=project)
    sdk(studio).predictions.create(
        task=task.id, result=predicted.result, model_version=predicted.model_version, score=0.5
    )
    before = masks_of(predicted.result)
    erased, grown = sorted(before, key=lambda label: -before[label].sum())[:2]
    added = next(label for label in SCENE_LABELS if label not in before)

    open_task(page, studio, project, task.id)
    canvas = Canvas(page, before[erased].shape)
    point = canvas.on_screen(*deepest_point(before[erased]))
    regions = page.locator("[class*=outliner-item]")
    regions.filter(has_text=erased).first.click()
    page.click("[aria-label=eraser]")
    drag(page, (point[0] - 25, point[1]), (50, 12))
    regions.filter(has_text=grown).first.click()
    page.click("[aria-label=brush-tool]")
    drag(page, (point[0] - 10, point[1] - 15), (20, 33))
    page.keyboard.press("u")  # selects no region: the next stroke begins one
    page.locator(".lsf-label").filter(has_text=added).first.click()
    drag(page, canvas.on_screen(*deepest_point(before[grown])), (30, -7))
    submit(page, task.id)

    alphas = pngs_of_label_studio(studio, project)
    assert alphas.keys() == {*before, added}
    for label in (grown, added):
        soft = [(each > 0) & (each < 255) for each in alphas[label]]
        assert np.any(soft), "the strokes of a brush have soft edges"
    masks: dict[str, Mask] = {
        label: np.any([each > 127 for each in several], axis=0) for label, several in alphas.items()
    }
    assert (before[erased] & ~masks[erased]).sum() > 200
    assert (masks[grown] & ~before[grown]).sum() > 200
    assert masks[added].sum() > 200
    expected = np.full(before[erased].shape, NOTHING, np.uint8)
    (annotation,) = sdk(studio).tasks.get(id=task.id).annotations
    for label, _ in labelled(annotation["result"]):  # the one drawn later has a pixel
        expected[masks[label]] = SCENE_LABELS.index(label)

    def run(*arguments: object) -> None:
        run_command(studio, *arguments, "--allowed-hosts", "127.0.0.1")

    folder, formats = tmp_path / "out", ("--format", "index-png", "--format", "coco")
    run("dataset", "--project", project, "--to", folder, *formats)
    (file,) = (folder / "masks").iterdir()
    with Image.open(file) as written:
        np.testing.assert_array_equal(np.asarray(written), expected)
    told = (folder / "pictures.jsonl").read_text(encoding="utf-8")
    assert told.count('"prediction-changed"') == 2
    assert told.count('"manual"') == 1
    assert told.count(str(predicted.model_version)) == len(before)

    other = new_project(list(SCENE_LABELS), seeds=[scene_seed(first.data["image"])])
    source = ("--from", folder, "--format", "coco", "--as", "annotations")
    run("import-masks", "--project", other, *source)
    run("dataset", "--project", other, "--to", tmp_path / "again", "--format", "coco")
    for came_back in (coco_masks(folder), coco_masks(tmp_path / "again")):
        assert came_back.keys() == masks.keys()
        for label, mask in masks.items():
            np.testing.assert_array_equal(came_back[label], mask)
