"""Names of imports, which Label Studio lists with commas between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.dataset.mask_import import ImportOptions, version_of_masks
from backend.errors import DatasetError


@pytest.mark.parametrize("version", ["", " a", "a,b", "a\nb", "x" * 101])
def test_a_name_that_label_studio_would_confuse_is_refused(version: str) -> None:
    with pytest.raises(DatasetError, match="no comma"):
        ImportOptions(version)


def test_each_folder_makes_a_name_that_is_taken() -> None:
    for path in ("a/b", "a, b", "x" * 200, "labels.coco.json", "ü"):
        assert ImportOptions(version_of_masks(Path(path))).version.startswith("masks")
