"""YOLO's text files against masks that were filled by another rasteriser; and damaged lines."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.readers.yolo import fill_with_edges, read_yolo
from backend.errors import DatasetError

SIZE = (1000, 1500)


def read(folder: Path, *lines: str, names: str = "names: [sky, traffic light]") -> MaskSource:
    (folder / "labels" / "val").mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(names)
    (folder / "labels" / "val" / "a.txt").write_text("\n".join(lines) + "\n")
    (source,) = read_yolo(folder, None, Limits())
    return source


def test_outlines_are_filled_as_another_program_fills_them(tmp_path: Path) -> None:
    corners = [(0.1, 0.1), (0.8, 0.2), (0.6, 0.5), (0.9, 0.95), (0.2, 0.6)]
    line = "1 " + " ".join(f"{x} {y}" for x, y in corners)
    source = read(tmp_path, line, "", line.replace("1", "0", 1) + " 0.25")
    assert (source.name, source.where) == ("val/a", "val/a.txt")
    first, second = source.read_regions(SIZE)
    assert (first.label, first.score) == ("traffic light", None)
    assert (second.label, second.score) == ("sky", 0.25)
    canvas = Image.new("1", SIZE[::-1])
    points = [(x * SIZE[1] - 0.5, y * SIZE[0] - 0.5) for x, y in corners]
    ImageDraw.Draw(canvas).polygon(points, fill=1)
    expected, mask = np.asarray(canvas), first.read_mask()
    assert (mask & expected).sum() / (mask | expected).sum() > 0.995


@pytest.mark.parametrize("names", ["names: {0: sky, 1: road}", "train: x\nnames:\n- sky\n- road\n"])
def test_names_of_classes_in_yaml(tmp_path: Path, names: str) -> None:
    source = read(tmp_path, "1 0 0 1 0 1 1", names=names)
    assert [region.label for region in source.read_regions((4, 4))] == ["road"]


def test_names_in_a_text_file_with_a_class_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky\n-\n")
    (tmp_path / "a.txt").write_text("0 0 0 1 0 1 1\n1 0 0 1 0 1 1\n")
    (source,) = read_yolo(tmp_path, tmp_path / "classes.txt", Limits())
    assert [region.label for region in source.read_regions((4, 4))] == ["sky"]
    assert len(list(read_yolo(tmp_path, None, Limits()))) == 1, "classes.txt is no picture's file"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sky 0 0 1 0 1 1", "is no class and numbers"),
        ("7 0 0 1 0 1 1", "has the class 7, which .*data.yaml does not name"),
        ("0 0 0 1 0 1 nan", "has a point beyond the picture"),
        ("0 10 10 200 10 200 300", "has a point beyond the picture"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, reason: str) -> None:
    source = read(tmp_path, "0 0 0 1 0 1 1", line)
    with pytest.raises(DatasetError, match=f"Line 2 of val/a.txt {reason}"):
        list(source.read_regions((4, 4)))


@pytest.mark.parametrize("line", ["0 0.5 0.5 1 1", "0 0.5 0.5 1", "0"])
def test_a_box_or_a_point_has_no_pixel(tmp_path: Path, line: str) -> None:
    box, outline = read(tmp_path, line, "0 0 0 1 0 1 1").read_regions((4, 4))
    assert box.id == "Line 1 of val/a.txt"
    assert not box.read_mask().any()
    assert outline.read_mask().any()


def test_a_mask_that_was_traced_along_its_pixels_comes_back() -> None:
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    (traced,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    np.testing.assert_array_equal(fill_with_edges(traced[:, 0] + 0.5, (60, 80)), mask > 0)
