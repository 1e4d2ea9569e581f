"""A project of the real Label Studio as a training set: every kind of mask, two images a task."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect
from pycocotools.coco import COCO

from backend.cli import demo
from backend.cli.demo_servers import LabelStudioProcess
from tests.backend.dataset.drawn_tasks import bitmask_region, brush_region, picture_bytes, region
from tests.e2e.editor import keep_editor_picture, keep_part, no_complaints, open_task, visit
from tests.e2e.servers import finished_run, get, run_command, sdk

CONFIG = """<View>
  <Image name="front" value="$front" smoothing="false"/><Image name="rear" value="$rear"/>
  <BrushLabels name="brush" toName="front,rear"><Label value="sky"/><Label value="grass"/>
  </BrushLabels>
  <BitmaskLabels name="bitmask" toName="front"><Label value="tree" alias="t"/></BitmaskLabels>
  <PolygonLabels name="polygon" toName="front"><Label value="house"/></PolygonLabels>
  <KeyPointLabels name="click" toName="front" smart="true"><Label value="sky"/></KeyPointLabels>
</View>"""
NOTHING = 255
PHOTOGRAPHS = Path(__file__).parents[2] / "examples/photographs"
OUTLINED = ["cat", "eye", "saucer", "spoon", "cup", "coffee", "rocket", "tower"]


def uploaded(studio: LabelStudioProcess, project: int, files: dict[str, bytes]) -> list[str]:
    """Upload files without making tasks of them; return their addresses in that order.

    Label Studio takes files only where a config shows one picture.
    """
    for name, content in files.items():
        kept = f"/api/projects/{project}/import?commit_to_project=false"
        studio.post(kept, files={name: (name, content)})
    found = get(studio, f"/api/projects/{project}/file-uploads?all=true").json()
    return [f"/data/{each['file']}" for each in sorted(found, key=lambda each: each["id"])]


@pytest.fixture
def project(studio: LabelStudioProcess) -> Iterator[int]:
    one = '<View><Image name="front" value="$front"/></View>'
    made = sdk(studio).projects.create(title="Training set", label_config=one)
    assert made.id is not None
    yield made.id
    sdk(studio).projects.delete(id=made.id)


def test_what_was_painted_is_kept(studio: LabelStudioProcess, project: int, tmp_path: Path) -> None:
    front_hw, rear_hw = (600, 1000), (300, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: what is 200 px wide is stored as 200 px high
    turned = picture_bytes(1, rear_hw[::-1], "JPEG", exif=exif)
    files = {"größe 1.png": picture_bytes(1, front_hw), "turned.jpg": turned}
    addresses = uploaded(studio, project, files)
    sdk(studio).projects.update(id=project, label_config=CONFIG)
    data = {"front": addresses[0], "rear": addresses[1]}
    studio.post(f"/api/projects/{project}/import", json=[{"data": data}])
    (task,) = sdk(studio).tasks.list(project=project)

    y, x = np.mgrid[: front_hw[0], : front_hw[1]]
    sky, tree = y < 200 + 30 * np.sin(x / 50), np.hypot(y - 300, x - 300) < 120
    corners = [(600, 350), (950, 330), (900, 580), (620, 560)]
    canvas = Image.new("1", front_hw[::-1])
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    house = np.asarray(canvas)
    points = [[100 * px / front_hw[1], 100 * py / front_hw[0]] for px, py in corners]
    grass = np.zeros(rear_hw, np.bool_)
    grass[250:] = True

    shape, spot = {"points": points}, {"x": 5, "y": 95, "width": 1}
    on_front = {"to_name": "front"}
    result = [
        brush_region(sky, "sky", from_name="brush", **on_front),
        bitmask_region(tree, "t", from_name="bitmask", **on_front),
        region("polygonlabels", "polygon", "house", front_hw, value=shape, **on_front),
        region("keypointlabels", "click", "sky", front_hw, value=spot, **on_front),
        brush_region(grass, "grass", from_name="brush", to_name="rear"),
    ]
    kept = studio.post(f"/api/tasks/{task.id}/annotations/", json={"result": result})["id"]
    command = ("dataset", "--project", project, "--to", tmp_path, "--allowed-hosts", "127.0.0.1")
    by_label = ("--overlap", "label-order")
    run_command(studio, *command, *by_label, "--format", "index-png", "--format", "coco")
    lines = (tmp_path / "pictures.jsonl").read_text(encoding="utf-8").splitlines()
    told = {each["image"]: each for each in map(json.loads, lines)}
    (front, rear) = told
    assert front == "größe_1.png", "without what Label Studio has put before it"
    assert rear.endswith(".png"), "turned upright, so it is no copy"
    with Image.open(tmp_path / "images" / rear) as upright:
        assert upright.size == rear_hw[::-1]
    assert [each["annotation"] for each in told[front]["regions"]] == [kept] * 3
    masks = (tmp_path / "masks" / f"{Path(name).stem}.png" for name in told)
    found, found_rear = (np.asarray(Image.open(each)) for each in masks)
    assert np.array_equal(found == 0, sky)
    assert np.array_equal(found == 2, tree & ~sky)
    visible = house & ~sky & ~tree
    assert ((found == 3) & visible).sum() / ((found == 3) | visible).sum() >= 0.99
    assert np.array_equal(found_rear == 1, grass)
    assert set(np.unique(found)) == {0, 2, 3, NOTHING}
    read = COCO(tmp_path / "annotations/instances_train.json")
    drawn = {"sky": sky, "tree": tree, "grass": grass}
    for annotation in read.loadAnns(read.getAnnIds()):
        mask, name = read.annToMask(annotation), read.cats[annotation["category_id"]]["name"]
        if name in drawn:
            assert np.array_equal(mask, drawn.pop(name))
        else:
            assert (mask.astype(bool) & house).sum() / (mask.astype(bool) | house).sum() >= 0.99
    assert not drawn, "as they were drawn, also where they overlap"

    exported = tmp_path / "exported"
    exported.mkdir()
    file = exported / "project.json"
    file.write_bytes(get(studio, f"/api/projects/{project}/export?exportType=JSON").content)
    (exported / "config.xml").write_text(CONFIG)
    for name, content in files.items():
        (exported / name).write_bytes(content)
    command = ("dataset", "--export", file, "--to", exported / "set", "--format", "index-png")
    run_command(studio, *command, *by_label, "--config", exported / "config.xml")
    for name in told:
        mask = f"masks/{Path(name).stem}.png"
        assert (exported / "set" / mask).read_bytes() == (tmp_path / mask).read_bytes()


def test_the_guides_pictures_of_photographs_that_a_hand_has_outlined(
    page: Page, studio: LabelStudioProcess, backend_url: str, tmp_path: Path
) -> None:
    """The outlines of `examples` as annotations: in the editor, and on their data set's page."""
    project = demo.create_project(studio, OUTLINED, title="Photographs")
    photographs = sorted(PHOTOGRAPHS.glob("*.jpg"))
    demo.upload(studio, project, [(each.name, each.read_bytes()) for each in photographs])
    run_command(studio, "import-masks", PHOTOGRAPHS, "--project", project, "--as", "annotations")

    address = f"{backend_url}/projects/{project}/datasets"
    assert requests.post(address, json={"formats": ["coco"]}, timeout=60).ok
    finished_run(address)
    with no_complaints(page, backend_url):
        visit(page, address)
        shown = page.locator("#shown")
        expect(shown.get_by_role("img")).to_have_count(len(photographs))
        for name in OUTLINED:
            expect(shown.locator(".legend")).to_contain_text(name)
        keep_part(shown, "photographs.png", tmp_path, (600, 900))

    rocket = photographs.index(PHOTOGRAPHS / "rocket.jpg")
    task = sorted(each.id for each in sdk(studio).tasks.list(project=project))[rocket]
    open_task(page, studio, project, task)
    keep_editor_picture(page, "photograph.png", tmp_path)
    sdk(studio).projects.delete(id=project)
