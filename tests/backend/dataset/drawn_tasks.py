"""Tasks as Label Studio has them: a project with every kind of mask, on drawn pictures."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from label_studio_sdk.converter import brush
from PIL import Image

from backend.dataset.dataset_options import DatasetOptions
from backend.dataset.dataset_report import DatasetReport
from backend.dataset.exporter import DatasetExporter, SeenImage
from backend.dataset.image_file import LocalImages
from backend.dataset.output_folder import MARKER
from backend.dataset.tasks import TaskRecord, TaskReference
from backend.errors import ImageNotFound
from backend.label_studio.image_loader import read_data_url
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import Annotation, decode_time
from backend.label_studio.requests import Task

CONFIG = """<View>
  <Image name="img" value="$image"/>
  <BrushLabels name="mask" toName="img"><Label value="sky"/><Label value="road"/></BrushLabels>
  <BitmaskLabels name="bit" toName="img"><Label value="car" alias="c"/></BitmaskLabels>
  <PolygonLabels name="poly" toName="img"><Label value="tree"/></PolygonLabels>
  <EllipseLabels name="round" toName="img"><Label value="sign"/></EllipseLabels>
  <RectangleLabels name="box" toName="img" smart="true"><Label value="car" alias="c"/>
  </RectangleLabels>
  <KeyPointLabels name="click" toName="img" smart="true"><Label value="sky"/></KeyPointLabels>
</View>"""
TWO_IMAGES = CONFIG.replace("<View>", '<View><Image name="back" value="$rear"/>').replace(
    '"mask" toName="img"', '"mask" toName="img,back"'
)
NAMES = ["sky", "road", "car", "tree", "sign"]
SIZE_HW = (40, 60)


def saved(picture: Image.Image, kind: str = "PNG", **save: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **save)
    return file.getvalue()


def picture_bytes(
    seed: int, size_hw: tuple[int, int] = SIZE_HW, kind: str = "PNG", **save: Any
) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    return saved(Image.fromarray(noise), kind, **save)


def region(
    kind: str, control: str, label: str, size_hw: tuple[int, int] = SIZE_HW, **more: Any
) -> dict[str, Any]:
    value = more.pop("value")
    return {
        "id": more.pop("id", f"{control}-{label}"),
        "type": kind,
        "from_name": control,
        "to_name": "img",
        "original_width": size_hw[1],
        "original_height": size_hw[0],
        "image_rotation": 0,
        "value": value | {kind: [label]},
        "origin": "manual",
    } | more


def brush_region(mask: Any, label: str, alpha: int = 255, **more: Any) -> dict[str, Any]:
    """A brush region as Label Studio's own converter writes it."""
    rle = brush.mask2rle(mask.astype(np.uint8) * alpha)
    value = {"format": "rle", "rle": rle}
    return region("brushlabels", "mask", label, mask.shape, value=value, **more)


def bitmask_region(mask: Any, label: str, **more: Any) -> dict[str, Any]:
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[..., 3] = mask * 255
    url = "data:image/png;base64," + base64.b64encode(saved(Image.fromarray(rgba))).decode()
    return region("bitmasklabels", "bit", label, mask.shape, value={"imageDataURL": url}, **more)


def annotation(id_: int, result: list[Any], person: int = 1, **more: Any) -> dict[str, Any]:
    at = f"2026-01-{id_ % 28 + 1:02d}T10:00:00Z"
    flags = {"was_cancelled": False, "ground_truth": False, "parent_prediction": None}
    made = {"id": id_, "result": result, "completed_by": person, "updated_at": at, "created_at": at}
    return made | flags | more


def task(id_: int, image: str, annotations: list[Any], **more: Any) -> dict[str, Any]:
    made = {"id": id_, "data": {"image": image}, "annotations": annotations, "predictions": []}
    return made | more


def rectangle(top: int, left: int, bottom: int, right: int) -> Any:
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def record(raw: dict[str, Any]) -> TaskRecord:
    rows = [{"task": raw["id"], "project": 7} | each for each in raw["annotations"]]
    return TaskRecord(
        Task(raw["id"], 7, raw["data"]),
        tuple(msgspec.convert(row, Annotation, dec_hook=decode_time) for row in rows),
        {each["id"]: each["model_version"] for each in raw["predictions"]},
    )


class Bench:
    """A folder of pictures, tasks of a project, and the data set that is made of them."""

    name = "project 7"
    unread = 0

    def __init__(self, root: Path) -> None:
        self.pictures = root / "pictures"
        self.pictures.mkdir()
        self.folder = root / "set"
        self.tasks: list[dict[str, Any]] = []
        self.config = CONFIG
        self.renamed: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> str:
        """Put a picture there; the value is its address."""
        (self.pictures / name).write_bytes(content)
        return f"/data/upload/7/{name}"

    def draw(
        self,
        name: str,
        *regions: dict[str, Any],
        size_hw: tuple[int, int] = SIZE_HW,
        person: int = 1,
        **more: Any,
    ) -> None:
        number = len(self.tasks) + 1
        source = self.add(name, picture_bytes(number, size_hw))
        self.tasks.append(task(number, source, [annotation(number, [*regions], person)], **more))

    def run(
        self,
        stopping: threading.Event | None = None,
        *,
        max_mb: int | None = None,
        look: Callable[[SeenImage], None] | None = None,
        **options: Any,
    ) -> DatasetReport | None:
        exporter = DatasetExporter(
            self.folder,
            parse_label_config(self.config, None, must_draw=False),
            DatasetOptions(renamed=self.renamed, **options),
            LocalImages(self.pictures, 10, self.download),
            max_megapixels=1,
            max_mb=max_mb,
            look=look,
        )
        return exporter.run(self, stopping or threading.Event())

    def references(self) -> Iterator[TaskReference]:
        for each in self.tasks:
            yield TaskReference(each["id"], partial(record, each))

    def download(self, source: str, task: Task) -> bytes:
        if source.startswith("data:"):
            return read_data_url(source, 10)
        raise ImageNotFound("It is gone.")

    def done(self, **options: Any) -> DatasetReport:
        report = self.run(**options)
        assert report is not None
        return report

    def mask(self, name: str) -> Any:
        with Image.open(self.folder / "masks" / f"{name}.png") as picture:
            assert picture.mode == "L"
            return np.asarray(picture)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found

    def files(self) -> set[str]:
        return {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != MARKER
        }

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "pictures.jsonl").open()]
