"""Files of masks that cannot be read."""

import os
from pathlib import Path

import pytest

from backend.dataset.formats.layouts import ReadingOptions, read_masks
from backend.dataset.mask_source import Limits
from backend.errors import DatasetError


def test_a_pipe_as_a_mask_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="is no file"):
        list(read_masks(tmp_path, ReadingOptions(), Limits()))
    os.mkfifo(tmp_path / "data.yaml")
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.txt").write_text("0 0 0 1 0 1 1")
    with pytest.raises(DatasetError, match="is no file"):
        list(read_masks(tmp_path, ReadingOptions(), Limits()))
