"""Folders of label maps: which files are taken, and by which names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.dataset.mask_source import Limits
from backend.dataset.readers.label_map import read_index_png
from backend.errors import DatasetError

LIMITS = Limits(max_file_mb=1, max_megapixels=1)


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3), value, np.uint8)).save(path)


def test_names_are_paths_without_suffix_in_composed_letters(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\nroad\n")
    put(tmp_path / "val" / (unicodedata.normalize("NFD", "bär") + ".png"))
    put(tmp_path / "a.v2.PNG")
    put(tmp_path / "._a.png")
    sources = list(read_index_png(tmp_path, None, LIMITS))
    assert [source.name for source in sources] == ["a.v2", "val/bär"]
    (region,) = sources[0].read_regions((2, 3))
    assert region.label == "sky"


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\n")
    (tmp_path / "a.png").write_bytes(b"\0" * ((1 << 20) + 1))
    (source,) = read_index_png(tmp_path, None, LIMITS)
    with pytest.raises(DatasetError, match="limit of 1 MB"):
        source.read_regions((2, 3))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        source.read_regions((2, 3))
