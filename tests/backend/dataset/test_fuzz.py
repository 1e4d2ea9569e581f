"""Readers of data sets, with files that hypothesis spoils: only errors that say what is wrong."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backend.dataset.formats.coco import draw_runs, read_coco, read_runs
from backend.dataset.formats.detection import read_labelme
from backend.dataset.formats.label_map import read_index_png
from backend.dataset.formats.yolo import read_yolo
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import DatasetError
from tests.backend.fuzzing import FUZZ, JSON, NUMBERS

pytestmark = pytest.mark.thorough

LIMITS = Limits(max_file_mb=1, max_megapixels=1)
SIZE_HW = (3, 4)
RUN_LETTERS = "0123456789:;<=>?@ABCDEFGHIJKLMNO`abcdefghijklmno~\0é"
TEXTS = st.text(RUN_LETTERS, max_size=12) | st.sampled_from(
    [*("polygon", "rectangle", "circle", "mask", "line", "nan", "inf", "1e400", "0x1", "٣", "1_0")]
)
DAMAGE = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def spoiled(draw: Callable[[Any], Any], valid: Any) -> Any:
    """A value of JSON of which up to four parts, deep inside or all of it, are others or gone."""
    root = [copy.deepcopy(valid)]
    for _ in range(draw(st.integers(0, 4))):
        holder, key = root, 0
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 5)):
            holder = holder[key]
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = draw(st.sampled_from(keys))
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = draw(st.floats(-2, 6) | NUMBERS | TEXTS | JSON)
    return root[0]


def damaged(content: bytes, changes: list[tuple[int, int]], cut: int = 0) -> bytes:
    made = bytearray(content)
    for at, value in changes:
        made[at % len(made)] = value
    return bytes(made[: len(made) - cut])


def draw_all(sources: Iterable[MaskSource]) -> None:
    """Draw all masks of all pictures, as far as they can be read."""
    with suppress(DatasetError):
        for source in sources:
            with suppress(DatasetError):
                for region in source.read_regions(SIZE_HW):
                    with suppress(DatasetError):
                        mask = region.read_mask()
                        assert (mask.dtype, mask.shape) == (np.bool_, SIZE_HW)


SHAPES: list[Any] = [[[0, 0, 3, 0, 3, 2]], {"size": [3, 4], "counts": "52203"}]
SHAPES.append({"size": [3, 4], "counts": [5, 2, 5]})
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 3, "width": 4, "extra": {"name": "a"}}],
    "categories": [{"id": 1, "name": "sky"}],
    "annotations": [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": each, "score": 0.5}
        for n, each in enumerate(SHAPES)
    ],
}


@FUZZ
@given(content=spoiled(COCO) | spoiled(COCO["annotations"]), changes=DAMAGE, cut=st.integers(0, 2))
def test_coco(folder: Path, content: Any, changes: Any, cut: int) -> None:
    file = folder / "coco.json"
    file.write_bytes(damaged(json.dumps(content).encode(), changes if cut else [], cut))
    draw_all(read_coco(file, None))


@FUZZ
@given(counts=st.text(RUN_LETTERS, max_size=12))
def test_runs(counts: str) -> None:
    """What is read has no negative run, and fills the picture or is refused."""
    with suppress(ValueError):
        runs = read_runs(counts)
        assert (runs >= 0).all()
        mask = draw_runs(runs, SIZE_HW)
        assert mask.shape == SIZE_HW
        assert mask.sum() == runs[1::2].sum()


POINTS = [[0, 0], [3, 0], [3, 2]]
LABELME = {
    "shapes": [
        {"label": "sky", "points": POINTS, "shape_type": "polygon", "group_id": 1},
        {"label": "sky", "points": POINTS[:2], "shape_type": "circle", "group_id": 1},
        {"label": "sky", "points": POINTS[::2], "shape_type": "rectangle"},
        {"label": "sky", "points": POINTS[:1], "shape_type": "mask", "mask": "iVBORw0KGgo="},
    ],
    "imagePath": "a.jpg",
    "imageHeight": 3,
    "imageWidth": 4,
}


@FUZZ
@given(content=spoiled(LABELME))
def test_labelme(folder: Path, content: Any) -> None:
    (folder / "labelme").mkdir(exist_ok=True)
    (folder / "labelme/a.json").write_text(json.dumps(content))
    draw_all(read_labelme(folder / "labelme", LIMITS))


@FUZZ
@given(
    lines=spoiled([["0", 0, 0, 1, 0, 1, 1], ["1", 0.5, 0.5, 1, 1, 0, 0, 0.25]]),
    names=spoiled({"names": ["sky", "car"]}) | spoiled({"names": {0: "sky", 1: "car"}}),
    text=st.none() | st.sampled_from(["a: &a [*a]", "!!python/name:os", "[" * 600, "\0"]),
)
def test_yolo(folder: Path, lines: Any, names: Any, text: str | None) -> None:
    place = folder / "yolo"
    place.mkdir(exist_ok=True)
    rows = lines if isinstance(lines, list) else [lines]
    words = (" ".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    (place / "a.txt").write_text("\n".join(words), "utf-8", errors="replace")
    written = yaml.safe_dump(names) if text is None else text
    (place / "data.yaml").write_text(written, "utf-8", errors="replace")
    draw_all(read_yolo(place, None, LIMITS))


def png(mode: str) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(SIZE_HW) % 2)
    (picture.convert(mode) if mode != "P" else picture.quantize(4)).save(file, "PNG")
    return file.getvalue()


PNGS = [png(mode) for mode in ("L", "P", "1", "I;16", "RGB")]
CLASSES = {
    "classes": [{"value": 0, "name": "a"}, {"value": 1, "name": "b", "colour": [0, 9, 255]}],
    "nothing": 255,
    "background": 0,
}


@FUZZ
@given(
    content=st.builds(damaged, st.sampled_from(PNGS), DAMAGE, st.integers(0, 20)),
    classes=spoiled(CLASSES) | spoiled(["nothing", "sky"]) | spoiled({"7": "road"}),
    names=st.none() | st.text(max_size=30) | st.sampled_from(["a:1,2,3\nb:0,0,300", "-\nb"]),
)
def test_label_maps(folder: Path, content: bytes, classes: Any, names: str | None) -> None:
    place = folder / "png"
    place.mkdir(exist_ok=True)
    (place / "a.png").write_bytes(content)
    (place / "classes.json").write_text(json.dumps(classes))
    (place / "names.txt").write_text(names or "", "utf-8", errors="replace")
    draw_all(read_index_png(place, None if names is None else place / "names.txt", LIMITS))
