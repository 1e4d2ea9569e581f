"""Tables read by pyarrow: pictures, label maps, classes, and what datasets is told of them."""

import io
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from backend.dataset.formats import parquet
from tests.backend.dataset.drawn_tasks import Bench, brush_region, picture_bytes, rectangle

SKY = rectangle(0, 0, 20, 60)


def rows_of(bench: Bench) -> list[dict[str, Any]]:
    files = sorted((bench.folder / "data").glob("train-*.parquet"))
    return [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]


def fill(bench: Bench, count: int) -> None:
    for n in range(1, count + 1):
        sky = brush_region(SKY, "sky", origin="prediction", score=0.5)
        bench.draw(f"é {n}.png", sky, person=3)


def test_rows_hold_pictures_and_label_maps(bench: Bench) -> None:
    fill(bench, 2)
    bench.done(formats=("parquet",), pictures="none")
    first, second = rows_of(bench)
    assert (first["name"], second["task"]) == ("é 1", 2)
    assert first["image"] == {"bytes": picture_bytes(1), "path": "é 1.png"}
    with Image.open(io.BytesIO(first["mask"]["bytes"])) as mask:
        assert np.array_equal(np.asarray(mask), np.where(SKY, 0, 255))
    assert first["labels"] == [0]
    (region,) = first["regions"]
    whose = {"model_version": "", "annotation": 1, "annotator": 3}
    assert region == {"label": 0, "score": 0.5, "origin": "prediction"} | whose
    assert not (bench.folder / "images").exists(), "the tables hold the pictures"
    assert "| 2 | car |" in (bench.folder / "README.md").read_text(encoding="utf-8")


def test_large_parts_are_several_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 0)
    monkeypatch.setattr(parquet, "_FILE_BYTES", 2 * len(picture_bytes(1)))
    fill(bench, 4)
    bench.done(formats=("parquet",))
    assert len(list((bench.folder / "data").iterdir())) == 2
    assert [each["task"] for each in rows_of(bench)] == [1, 2, 3, 4]
