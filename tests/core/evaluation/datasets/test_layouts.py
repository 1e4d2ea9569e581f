"""What lies where, and what is said of folders that are not so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clearclip_core.evaluation.benchmarks import BENCHMARKS, Layout
from clearclip_core.images.label_maps import LayoutError
from tests.core.evaluation import miniatures


def layout_of(benchmark: str) -> Layout:
    layout = BENCHMARKS[benchmark].layout
    assert layout is not None
    return layout


@pytest.mark.parametrize("benchmark", list(miniatures.FILE_VALUES))
def test_pictures_and_maps_are_found_in_order(benchmark: str, tmp_path: Path) -> None:
    made = miniatures.make(benchmark, tmp_path)
    found = layout_of(benchmark).find(tmp_path)
    assert [(each.picture, each.label_map) for each in found] == made


def test_names_tell_the_pictures_apart(tmp_path: Path) -> None:
    miniatures.make("cityscapes", tmp_path)
    names = [each.name for each in layout_of("cityscapes").find(tmp_path)]
    assert names == ["frankfurt/frankfurt_000000_000294", "munster/munster_000173_000019"]


@pytest.mark.parametrize("benchmark", list(miniatures.FILE_VALUES))
def test_macos_files_beside_pictures_and_maps_are_no_pictures(
    benchmark: str, tmp_path: Path
) -> None:
    made = miniatures.make(benchmark, tmp_path)
    for path in (path for pair in made for path in pair):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    found = layout_of(benchmark).find(tmp_path)
    assert [(each.picture, each.label_map) for each in found] == made


def test_a_folder_is_missing(tmp_path: Path) -> None:
    miniatures.make("voc20", tmp_path)
    shutil.rmtree(tmp_path / "SegmentationClass")
    with pytest.raises(LayoutError) as refused:
        layout_of("voc20").find(tmp_path)
    assert str(refused.value) == (
        f"Expected {tmp_path} to hold JPEGImages/, SegmentationClass/, "
        "ImageSets/Segmentation/val.txt, but SegmentationClass/ is not there; it holds "
        "ImageSets/, JPEGImages/."
    )


def test_every_picture_and_map_is_looked_for(tmp_path: Path) -> None:
    made = miniatures.make("voc20", tmp_path)
    made[2][1].unlink()
    with pytest.raises(LayoutError, match=r"Expected 3 label maps, but 1 are not there: .*000009"):
        layout_of("voc20").find(tmp_path)
    for picture, _ in made:
        picture.unlink()
    with pytest.raises(LayoutError, match="Expected 3 pictures, but 3 are not there"):
        layout_of("voc20").find(tmp_path)


@pytest.mark.parametrize("benchmark", ["ade20k", "coco_stuff", "coco_object", "cityscapes"])
def test_pictures_that_no_file_lists_are_missed_where_their_maps_are(
    benchmark: str, tmp_path: Path
) -> None:
    (picture, _), _ = miniatures.make(benchmark, tmp_path)
    picture.unlink()
    with pytest.raises(LayoutError) as refused:
        layout_of(benchmark).find(tmp_path)
    assert f"Expected 2 pictures, but 1 are not there: {picture}" in str(refused.value)
