"""Readers of data sets, with files that hypothesis makes: only errors that say what is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.readers.coco import draw_runs, read_coco, read_runs
from backend.dataset.readers.label_map import read_index_png
from backend.dataset.readers.labelme import read_labelme
from backend.dataset.readers.parquet import read_parquet
from backend.dataset.readers.yolo import read_yolo
from backend.dataset.tasks import ExportedTasks
from backend.errors import DatasetError
from tests.backend.fuzzing import FUZZ, JSON, NUMBERS, SCALARS

pytestmark = pytest.mark.thorough

LIMITS = Limits(max_file_mb=1, max_megapixels=1)
SIZE_HW = (3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def draw(sources: Iterable[MaskSource]) -> None:
    """Draw all masks of all pictures, as far as they can be read."""
    with suppress(DatasetError):
        for source in sources:
            with suppress(DatasetError):
                for region in source.read_regions(SIZE_HW):
                    with suppress(DatasetError):
                        mask = region.read_mask()
                        assert (mask.dtype, mask.shape) == (np.bool_, SIZE_HW)


# ---- COCO ---------------------------------------------------------------------------------------

COUNTS = st.text("0123456789:;<=>?@ABCDEFGHIJKLMNO`abcdefghijklmno~\0é", max_size=12)
RUNS = COUNTS | st.lists(st.integers(-1, 13) | NUMBERS, max_size=6) | JSON
POINTS = st.lists(st.floats(-2, 6) | NUMBERS, max_size=9)
MASKS = (
    st.fixed_dictionaries(
        {"size": st.just([3, 4]) | st.lists(st.integers(-1, 5) | NUMBERS, max_size=3) | JSON},
        optional={"counts": RUNS},
    )
    | st.lists(POINTS | JSON, max_size=3)
    | JSON
)
IMAGES = st.fixed_dictionaries(
    {"id": st.just(1) | JSON, "file_name": st.just("a.png") | JSON},
    optional={"height": st.just(3) | SCALARS, "width": st.just(4) | SCALARS},
)
ANNOTATIONS = st.fixed_dictionaries(
    {
        "id": st.integers(1, 3) | JSON,
        "image_id": st.just(1) | SCALARS,
        "category_id": st.just(1) | SCALARS,
        "segmentation": MASKS,
    },
    optional={"score": SCALARS, "iscrowd": SCALARS},
)
IMAGE, CATEGORY = {"id": 1, "file_name": "a.png"}, {"id": 1, "name": "sky"}
COCO = st.fixed_dictionaries(
    {
        "images": st.lists(IMAGES, max_size=1).map(lambda more: [IMAGE, *more]) | JSON,
        "categories": st.just([CATEGORY]) | st.lists(JSON, max_size=2) | JSON,
        "annotations": st.lists(ANNOTATIONS | JSON, max_size=3) | JSON,
    },
    optional={"info": JSON},
)


@FUZZ
@given(content=COCO, cut=st.integers(0, 9), damage=st.booleans())
def test_coco(folder: Path, content: Any, cut: int, damage: bool) -> None:
    written = json.dumps(content).encode()
    file = folder / "coco.json"
    file.write_bytes(written[: len(written) - cut] if damage else written)
    draw(read_coco(file, None))


@FUZZ
@given(counts=COUNTS)
def test_runs(counts: str) -> None:
    """What is read has no negative run, and fills the picture or is refused."""
    with suppress(ValueError):
        runs = read_runs(counts)
        assert (runs >= 0).all()
        mask = draw_runs(runs, SIZE_HW)
        assert mask.shape == SIZE_HW
        assert mask.sum() == runs[1::2].sum()


# ---- LabelMe -------------------------------------------------------------------------------------

SHAPES = st.fixed_dictionaries(
    {
        "label": st.just("sky") | JSON,
        "points": st.lists(st.lists(st.floats(-2, 6) | NUMBERS, max_size=3), max_size=5) | JSON,
        "shape_type": st.sampled_from(["polygon", "rectangle", "circle", "mask", "line"]) | JSON,
    },
    optional={"group_id": st.just(1) | JSON, "mask": st.text(max_size=9) | JSON},
)


@FUZZ
@given(shapes=st.lists(SHAPES | JSON, max_size=3) | JSON, side=st.just(3) | JSON)
def test_labelme(folder: Path, shapes: Any, side: Any) -> None:
    told = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": side, "imageWidth": 4}
    (folder / "labelme").mkdir(exist_ok=True)
    (folder / "labelme/a.json").write_text(json.dumps(told))
    draw(read_labelme(folder / "labelme", LIMITS))


# ---- YOLO ---------------------------------------------------------------------------------------

WORDS = st.sampled_from(["0", "1", "-1", "nan", "inf", "1e400", "", "0x1", "٣", "1_0"])
LINES = st.lists(
    st.lists(WORDS | st.floats(-1, 2).map(str), max_size=9).map(" ".join), max_size=3
).map("\n".join)


@FUZZ
@given(
    lines=LINES.map(str.encode) | st.binary(max_size=40),
    names=st.just({"names": ["sky", "car"]}) | st.fixed_dictionaries({"names": JSON}) | JSON,
    text=st.none()
    | st.text(max_size=20)
    | st.sampled_from(["a: &a [*a]", "!!python/name:os", "[" * 600]),
)
def test_yolo(folder: Path, lines: bytes, names: Any, text: str | None) -> None:
    place = folder / "yolo"
    place.mkdir(exist_ok=True)
    (place / "a.txt").write_bytes(lines)
    written = yaml.safe_dump(names) if text is None else text
    (place / "data.yaml").write_text(written, "utf-8", errors="replace")
    draw(read_yolo(place, None, LIMITS))


# ---- label maps ---------------------------------------------------------------------------------


def png(mode: str) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(SIZE_HW) % 2)
    (picture.convert(mode) if mode != "P" else picture.quantize(4)).save(file, "PNG")
    return file.getvalue()


PNGS = [png(mode) for mode in ("L", "P", "1", "I;16", "RGB")]


def damaged(content: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    made = bytearray(content)
    for at, value in changes:
        made[at % len(made)] = value
    return bytes(made[: len(made) - cut])


DAMAGED = st.builds(
    damaged,
    st.sampled_from(PNGS),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 20),
)
CLASSES = (
    st.just(["nothing", "sky"])
    | st.fixed_dictionaries(
        {
            "classes": st.lists(
                st.fixed_dictionaries(
                    {"value": st.integers(-1, 3) | SCALARS, "name": st.text(max_size=3) | SCALARS},
                    optional={"colour": st.lists(NUMBERS | SCALARS, max_size=4) | JSON},
                ),
                max_size=3,
            )
            | JSON
        },
        optional={"nothing": SCALARS},
    )
    | JSON
)


@FUZZ
@given(content=DAMAGED | st.sampled_from(PNGS) | st.binary(max_size=30), classes=CLASSES)
@example(
    content=PNGS[0],
    classes={"classes": [{"value": 1, "name": "a", "colour": [float("inf"), 0, 0]}]},
)
def test_label_maps(folder: Path, content: bytes, classes: Any) -> None:
    place = folder / "png"
    place.mkdir(exist_ok=True)
    (place / "a.png").write_bytes(content)
    (place / "classes.json").write_text(json.dumps(classes))
    draw(read_index_png(place, None, LIMITS))


@FUZZ
@given(text=st.text(max_size=30) | st.binary(max_size=30))
def test_lists_of_names(folder: Path, text: str | bytes) -> None:
    place = folder / "png"
    place.mkdir(exist_ok=True)
    (place / "a.png").write_bytes(PNGS[0])
    names = place / "names.txt"
    names.write_bytes(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    draw(read_index_png(place, names, LIMITS))


# ---- Parquet ------------------------------------------------------------------------------------

CELLS = st.sampled_from([*PNGS, b"", None]) | st.binary(max_size=20)


@FUZZ
@given(
    masks=st.lists(CELLS, min_size=1, max_size=3),
    is_struct=st.booleans(),
    names=st.lists(st.none() | st.text(max_size=5), max_size=3),
    features=st.none()
    | JSON
    | st.lists(st.text(max_size=3)).map(lambda n: {"info": {"features": {"label": {"names": n}}}}),
    damage=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 3),
)
def test_parquet(
    folder: Path,
    masks: list[Any],
    is_struct: bool,
    names: Any,
    features: Any,
    damage: Any,
    cut: int,
) -> None:
    cells = [{"bytes": each, "path": "a.png"} for each in masks] if is_struct else masks
    columns = {"label" if is_struct else "mask": cells}
    if len(names) >= len(masks):
        columns["file_name"] = names[: len(masks)]
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    file = io.BytesIO()
    pq.write_table(table, file)
    place = folder / "parquet"
    place.mkdir(exist_ok=True)
    (place / "a.parquet").write_bytes(damaged(file.getvalue(), damage, cut))
    (place / "classes.json").write_text('["nothing", "sky"]')
    draw(read_parquet(place, None, LIMITS))


# ---- tasks --------------------------------------------------------------------------------------

EXPORTS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(1, 4) | JSON, "data": st.fixed_dictionaries({"image": JSON}) | JSON},
        optional={
            "annotations": st.lists(
                st.fixed_dictionaries(
                    {"result": JSON},
                    optional=dict.fromkeys(
                        ("id", "completed_by", "created_at", "prediction", "lead_time"),
                        JSON | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31"]),
                    ),
                )
                | JSON
            )
            | JSON,
            "predictions": st.lists(JSON) | JSON,
        },
    )
    | JSON,
    max_size=3,
)


@FUZZ
@given(tasks=EXPORTS | JSON, cut=st.integers(0, 3))
def test_exported_tasks(folder: Path, tasks: Any, cut: int) -> None:
    file = folder / "export.json"
    written = json.dumps(tasks).encode()
    file.write_bytes(written[: len(written) - cut])
    with suppress(DatasetError):
        for reference in ExportedTasks(file).references():
            reference.read()
