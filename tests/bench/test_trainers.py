"""Data sets in Ultralytics and datumaro, which do not install beside the project's packages.

Both get an environment of their own in pytest's cache, of a gigabyte or more from PyPI; nothing
else is fetched: what they would download goes to a closed port.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import binary_fill_holes

from backend.dataset.splits import Split
from tests.backend.dataset.drawn_tasks import NAMES, Bench, bitmask_region, brush_region
from tests.bench.conftest import Report

COUNT = 12
SIZE_HW = (120, 160)
COLOURS = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180)}

#: What Ultralytics finds in a data set and fills of it, and then an epoch of a small model.
ULTRALYTICS = """
import sys
import numpy as np
from ultralytics import YOLO
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset, polygon2mask
data, out = sys.argv[1:]
told = check_det_dataset(data, autodownload=False)
masks = {}
for part in ("train", "val"):
    found = YOLODataset(img_path=told[part], data=told, task="segment", augment=False)
    for label in found.labels:
        for number, (value, points) in enumerate(zip(label["cls"][:, 0], label["segments"])):
            outline = (points * label["shape"][::-1]).reshape(-1)
            name = f"{part}/{label['im_file']}/{number}/{told['names'][int(value)]}"
            masks[name] = polygon2mask(label["shape"], [outline])
np.savez(f"{out}/masks.npz", **masks)
options = {"epochs": 1, "imgsz": 64, "batch": 4, "device": "cpu", "workers": 0, "plots": False}
YOLO("yolo11n-seg.yaml").train(data=data, project=out, name="run", pretrained=False, **options)
"""

Masks = dict[str, Any]


@pytest.fixture(scope="module")
def command(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Run a program of the trainers' environment, which is made once, without network."""
    cache = request.config.cache.mkdir("trainers")
    programs = cache / "env/bin"
    if not (cache / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache / "env")], check=True)
        install = ["-m", "pip", "install", "--quiet", "ultralytics", "datumaro[cli]"]
        subprocess.run([str(programs / "python"), *install], check=True)
        (cache / "done").touch()
    settings = cache / "settings"
    settings.mkdir(exist_ok=True)
    (font,) = (cache / "env").glob("lib/*/site-packages/matplotlib/mpl-data/**/DejaVuSans.ttf")
    (settings / "Arial.ttf").write_bytes(font.read_bytes())  # which Ultralytics would download
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(settings),
        "YOLO_CONFIG_DIR": str(settings),
        "YOLO_OFFLINE": "true",
        "OMP_NUM_THREADS": "1",
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    }

    def run(program: str, *arguments: object) -> str:
        done = subprocess.run(
            [str(programs / program), *map(str, arguments)],
            env=environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    return run


def drawn_masks(number: int) -> Masks:
    """A road with a hole, a car on it, and a rectangle of sky, elsewhere in each picture."""
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return {
        "road": (y > 40) & ((y - 70) ** 2 + (x - 60 - number) ** 2 >= 90),
        "car": (y - 60) ** 2 / 2 + (x - 80 - 5 * number) ** 2 < 500,
        "sky": (y >= 5) & (y < 25) & (x >= 10 + number) & (x < 50),
    }


@pytest.fixture
def project(tmp_path: Path) -> tuple[Bench, dict[str, Masks]]:
    """A project, and the masks of each picture by the name of its file."""
    bench = Bench(tmp_path)
    drawn = {f"bär {number}.png": drawn_masks(number) for number in range(COUNT)}
    for name, masks in drawn.items():
        regions = [brush_region(masks[label], label, id=label) for label in ("road", "sky")]
        bench.draw(name, *regions, bitmask_region(masks["car"], "c", id="car"), size_hw=SIZE_HW)
    return bench, drawn


def test_ultralytics(
    report: Report,
    command: Callable[..., str],
    project: tuple[Bench, dict[str, Masks]],
    tmp_path: Path,
) -> None:
    bench, drawn = project
    parts = bench.done(formats=("yolo",), split=Split.parse("60/40")).parts
    output = command("python", "-c", ULTRALYTICS, bench.folder / "data.yaml", tmp_path)
    for count in parts.values():
        assert f"{count} images, 0 backgrounds, 0 corrupt" in output
    expected = {(name, label): mask for name, each in drawn.items() for label, mask in each.items()}
    wrong_px = 0
    found = np.load(tmp_path / "masks.npz")
    for path in found:
        *_, name, _, label = path.split("/")
        wrong_px += int(np.count_nonzero(found[path].astype(bool) != expected.pop((name, label))))
    assert not expected
    report.add("data set in Ultralytics, pixels that its own filling has wrong", "0", str(wrong_px))
    assert wrong_px == 0
    (epoch,) = csv.DictReader((tmp_path / "run/results.csv").open())
    assert min(float(epoch["train/seg_loss"]), float(epoch["val/seg_loss"])) > 0


def coco_masks(folder: Path) -> dict[str, Masks]:
    """The masks of a COCO file by picture and label, one object a label, by COCO's own reader."""
    (file,) = (folder / "annotations").glob("*.json")
    read = COCO(str(file))
    found: dict[str, Masks] = {image["file_name"]: {} for image in read.imgs.values()}
    for each in read.anns.values():
        masks = found[read.imgs[each["image_id"]]["file_name"]]
        masks[read.cats[each["category_id"]]["name"]] = read.annToMask(each).astype(bool)
    return found


def test_datumaro(
    report: Report,
    command: Callable[..., str],
    project: tuple[Bench, dict[str, Masks]],
    tmp_path: Path,
) -> None:
    """The conversions of the guide: CVAT and back, LabelMe and back, VOC."""
    bench, drawn = project
    bench.done(formats=("coco",))
    others = {name: (number, 9, 9) for number, name in enumerate(NAMES)}
    colours = {"background": (0, 0, 0)} | others | COLOURS
    lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in colours.items()]
    label_map = tmp_path / "labelmap.txt"
    label_map.write_text("\n".join(lines))

    def convert(source: Path, from_: str, to: str, *more: object) -> Path:
        made = tmp_path / f"{from_}-{to}"
        paths = ("-if", from_, "-i", source, "-f", to, "-o", made)
        command("datum", "convert", *paths, "--", "--save-media", *more)
        return made

    coco = "coco_instances"
    found = coco_masks(convert(convert(bench.folder, coco, "cvat"), "cvat", coco))
    assert found.keys() == drawn.keys()
    for name, masks in drawn.items():
        for label, mask in masks.items():
            np.testing.assert_array_equal(found[name][label], mask)

    label_me = convert(bench.folder, coco, "label_me")
    stored = (np.asarray(Image.open(each)) for each in label_me.rglob("*_mask_*.png"))
    kept = {(rgba[..., 3] > 0).tobytes() for rgba in stored}
    assert kept == {mask.tobytes() for masks in drawn.values() for mask in masks.values()}
    edge = np.ones((3, 3), np.uint8)
    for name, masks in coco_masks(convert(label_me, "label_me", coco)).items():
        for label, mask in masks.items():
            outline = binary_fill_holes(drawn[name][label]).astype(np.uint8)
            inner = cv2.erode(outline, edge, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            assert not (inner.astype(bool) & ~mask).any()
            assert not (mask & ~cv2.dilate(outline, edge).astype(bool)).any()

    voc = convert(bench.folder, coco, "voc_segmentation", "--label-map", label_map)
    for name, masks in drawn.items():
        rgb = np.asarray(Image.open(voc / "SegmentationClass" / name).convert("RGB"))
        owners = np.sum(list(masks.values()), axis=0)
        assert not rgb[owners == 0].any()
        for label, mask in masks.items():
            assert (rgb[mask & (owners == 1)] == COLOURS[label]).all()
        assert set(map(tuple, rgb[owners == 2].tolist())) <= {COLOURS["road"], COLOURS["car"]}
    report.add("data set through datumaro: CVAT and back, LabelMe, VOC, pixels wrong", "0", "0")
