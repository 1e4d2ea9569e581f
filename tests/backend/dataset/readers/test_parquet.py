"""Parquet files in the layout of Hugging Face's ``datasets``; and damaged ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.readers.parquet import read_parquet
from backend.errors import DatasetError

VALUES = np.array([[0, 1, 255]], np.uint8)
FEATURES = {
    "image": {"_type": "Image"},
    "mask": {"_type": "Image"},
    "objects": {"feature": {"names": ["sky", "road"], "_type": "ClassLabel"}, "_type": "List"},
}


def png(values: Any = VALUES) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def write(path: Path, features: Any = FEATURES, **columns: list[Any]) -> Path:
    table = pa.table(columns)
    info = json.dumps({"info": {"features": features}})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), path, row_group_size=2)
    return path


def images(*names: str | None) -> list[dict[str, Any]]:
    return [{"bytes": b"JPEG", "path": name} for name in names]


MASK = {"bytes": png(), "path": None}


def read(folder: Path, names: Path | None = None) -> list[MaskSource]:
    return list(read_parquet(folder, names, Limits(max_file_mb=1)))


def test_rows_are_masks_with_names_of_pictures_and_classes(tmp_path: Path) -> None:
    other = {"bytes": png(1 - VALUES[:, :2]), "path": "x"}
    write(
        tmp_path / "data" / "train-0.parquet",
        image=images("a.jpg", "ü.jpg", "c.jpg"),
        mask=[MASK, MASK, other],
    )
    sources = read(tmp_path)
    assert [source.name for source in sources] == ["a.jpg", "ü.jpg", "c.jpg"]
    first, second = sources[0].read_regions((1, 3))
    assert (first.label, second.label) == ("sky", "road")
    np.testing.assert_array_equal(first.read_mask(), [[True, False, False]])
    swapped, _ = sources[2].read_regions((1, 2))
    np.testing.assert_array_equal(swapped.read_mask(), [[False, True]])
    again, _ = sources[1].read_regions((1, 3))
    np.testing.assert_array_equal(again.read_mask(), [[True, False, False]])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": images("a.jpg")}, "a column mask or label"),
        ({"mask": [MASK]}, "for the names of pictures"),
        ({"mask": [MASK], "image": images(None)}, "Row 0 .* does not say the name"),
        ({"mask": [MASK], "name": [" "]}, "Row 0 .* does not say the name"),
    ],
)
def test_a_file_without_masks_or_names_is_refused(
    tmp_path: Path, columns: dict[str, list[Any]], reason: str
) -> None:
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(DatasetError, match=reason):
        read(tmp_path)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({"bytes": None, "path": "mask.png"}, "has no mask in it"),
        ({"bytes": png()[:40], "path": None}, "a in a.parquet is no PNG picture"),
        ({"bytes": bytes((1 << 20) + 1), "path": None}, "limit of 1 MB"),
        ({"bytes": png(VALUES + 9), "path": None}, "the value 8, which .*a.parquet does not name"),
    ],
)
def test_a_broken_mask_is_a_sentence_of_its_row(
    tmp_path: Path, mask: dict[str, Any], reason: str
) -> None:
    write(tmp_path / "a.parquet", name=["a"], mask=[mask])
    (source,) = read(tmp_path)
    with pytest.raises(DatasetError, match=reason):
        source.read_regions((1, 3))


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", name=["a"], mask=[MASK])
    whole = path.read_bytes()
    for content in (whole[:-30], whole[: len(whole) // 2], b"", b"PAR1" * 8):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.parquet is no Parquet file, or is damaged"):
            read(tmp_path)
    with pytest.raises(DatasetError, match="there are none"):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "mask"),
    [("x" * 1_000_000, MASK), ("a", {"bytes": bytes(2 << 20), "path": "y" * 1_000_000})],
)
def test_a_value_of_many_rows_is_in_memory_once(
    tmp_path: Path, name: str, mask: dict[str, Any]
) -> None:
    """A file of some kilobytes whose names or masks would take gigabytes."""
    count = 3000
    names = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([name]))
    content = pa.DictionaryArray.from_arrays(
        pa.array([0] * count, pa.int32()), pa.array([mask["bytes"]], pa.binary())
    )
    table = pa.table({"name": names, "mask": content})
    info = json.dumps({"info": {"features": FEATURES}})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    before = pa.total_allocated_bytes()
    with pytest.raises(DatasetError, match=r"does not say the name|over the limit of 1 MB"):
        read(tmp_path)[0].read_regions((1, 3))
    assert pa.default_memory_pool().max_memory() - before < 64 << 20
