"""The choices of a data set: where its pictures lie, and what decides its parts."""

from typing import Any

import pytest

from backend.dataset.dataset_options import DatasetOptions, Pictures
from backend.dataset.splits import Split


@pytest.mark.parametrize("pictures", ["copy", "link"])
def test_pictures_that_are_written_lie_in_a_folder_to_be_seen(pictures: Pictures) -> None:
    assert DatasetOptions(pictures=pictures).image_folder == "images"


def test_without_pictures_their_folder_is_hidden() -> None:
    assert DatasetOptions(pictures="none").image_folder.startswith(".")


@pytest.mark.parametrize(
    "changed", [{"split": Split((80, 10, 10))}, {"split_by": "film"}, {"least_correlation": 0.9}]
)
def test_what_decides_the_parts_is_told_apart(changed: dict[str, Any]) -> None:
    assert DatasetOptions(**changed).splitting != DatasetOptions().splitting


def test_what_decides_no_part_leaves_them() -> None:
    changed = DatasetOptions(formats=("coco",), min_area_px=5, pictures="none")
    assert changed.splitting == DatasetOptions().splitting
