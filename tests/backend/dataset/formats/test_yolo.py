"""YOLO's files: against another rasteriser, damaged, and ours as Ultralytics reads them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from backend.dataset.formats.yolo import fill_with_edges, find_islands, outline, read_yolo
from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.splits import Split
from backend.errors import DatasetError
from clearclip_core import render_scene
from tests.backend.dataset.drawn_tasks import NAMES, SIZE_HW, Bench, brush_region, rectangle

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


def test_a_folder_of_roboflow_has_its_labels_below_its_parts(tmp_path: Path) -> None:
    for name in ("train/labels/a_jpg.rf.1.txt", "valid/labels/b.txt", "README.dataset.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("0 0 0 1 0 1 1\n")
    (tmp_path / "data.yaml").write_text("names: [sky]")
    names = [each.name for each in read_yolo(tmp_path, None, Limits())]
    assert names == ["train/labels/a_jpg.rf.1", "valid/labels/b"]


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


# ---- writing -------------------------------------------------------------------------------------


def fill(line: str, size_hw: tuple[int, int]) -> tuple[int, Any]:
    """The class and the mask of a line, as ``polygon2mask`` of Ultralytics fills it."""
    value, *numbers = line.split()
    shares = np.array(numbers, np.float32).reshape(-1, 2)
    assert len(shares) >= 3
    assert ((shares >= 0) & (shares <= 1)).all()
    points = np.asarray(shares * np.array(size_hw[::-1], np.float32), dtype=np.int32)
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, points.reshape(1, -1, 2), 1)
    return int(value), mask.astype(bool)


def resampled(line: str, size_hw: tuple[int, int]) -> Any:
    """The mask of a line after Ultralytics has put 1000 points and more on its outline."""
    points = np.array(line.split()[1:], np.float32).reshape(-1, 2)
    points = np.concatenate([points, points[:1]])
    n = max(1000, len(points) + 1)
    x, xp = np.linspace(0, len(points) - 1, n - len(points)), np.arange(len(points))
    x = np.insert(x, np.searchsorted(x, xp), xp)
    found = np.stack([np.interp(x, xp, points[:, axis]) for axis in (0, 1)], axis=1)
    return fill(f"0 {' '.join(map(str, found.ravel().tolist()))}", size_hw)[1]


def lines(bench: Bench, name: str = "a") -> list[str]:
    return (bench.folder / f"labels/{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.6, 0.8, 0.97])
def test_a_noisy_island_with_holes_in_holes_is_itself_again(seed: int, share: float) -> None:
    """Every pixel: cuts to holes run along the mask."""
    random = np.random.default_rng(seed)
    noise = random.random((60, 80)) < share
    if seed % 2:
        noise = cv2.resize(noise.astype(np.uint8), (240, 180), interpolation=0) > 0
    labels = cv2.connectedComponents(noise.astype(np.uint8), connectivity=8)[1]
    areas = np.bincount(labels[noise])[1:]
    for least in (2, 5):
        rings, left_out = find_islands(noise, least)
        assert (len(rings), left_out) == ((areas >= least).sum(), (areas < least).sum())
    mask = labels == np.bincount(labels[noise]).argmax()
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(canvas, outline(find_islands(mask)[0])[None], 1)
    assert np.array_equal(canvas, mask)


@pytest.mark.parametrize("seed", [702, 706])
def test_objects_of_a_scene_are_filled_exactly(bench: Bench, seed: int) -> None:
    size_hw = (750, 1000)
    scene = Image.fromarray(render_scene(seed).label_map.astype(np.int32)).resize(size_hw[::-1], 0)
    values = np.asarray(scene)
    masks = []
    for value in np.unique(values[values >= 0]).tolist():
        labels = cv2.connectedComponents((values == value).astype(np.uint8), connectivity=8)[1]
        masks += [labels == label for label in range(1, labels.max() + 1)]
    masks = [each for each in masks if each.sum() >= 20]
    regions = [brush_region(each, "road", id=str(n)) for n, each in enumerate(masks)]
    bench.draw("a.png", *regions, size_hw=size_hw)
    bench.done(formats=("yolo",))
    found = lines(bench)
    assert len(found) == len(masks)
    for line, mask in zip(found, masks, strict=True):
        assert np.array_equal(fill(line, size_hw)[1], mask)
        assert np.count_nonzero(resampled(line, size_hw) != mask) <= 2  # at diagonal steps


@pytest.mark.parametrize("box", [(3, 4, 4, 5), (3, 4, 4, 9), (3, 4, 9, 5), (0, 0, 40, 60)])
def test_thin_and_whole_masks_are_lines_too(bench: Bench, box: tuple[int, int, int, int]) -> None:
    mask = rectangle(*box)
    bench.draw("a.png", brush_region(mask, "road"))
    bench.done(formats=("yolo",), min_area_px=1)
    (line,) = lines(bench)
    value, found = fill(line, SIZE_HW)
    assert value == 1
    assert np.array_equal(found, mask)


def test_overlaps_stay_and_small_islands_go(bench: Bench) -> None:
    """Islands of one thing are joined by lines, as by the converter of Ultralytics."""
    speck, two = rectangle(38, 58, 40, 60), rectangle(0, 0, 9, 9) | rectangle(0, 20, 9, 29)
    bench.draw(
        "a.png",
        brush_region(rectangle(0, 0, 20, 60) | speck, "sky", id="s"),
        brush_region(two, "road", id="r"),
        brush_region(speck, "road", id="speck"),
    )
    bench.done(formats=("yolo",))
    (sky, first), (road, second) = (fill(line, SIZE_HW) for line in lines(bench))
    assert (sky, road) == (0, 1)
    assert np.array_equal(first, rectangle(0, 0, 20, 60))
    assert (second & two).sum() == two.sum()
    assert cv2.connectedComponents(second.astype(np.uint8))[0] == 2, "one island, and the ground"
    assert (second & ~two).sum() == 11, "a line of one pixel between the two"
    (note,) = [each for each in bench.report()["notes"] if "island" in each]
    assert "2 islands below 20 px" in note


def test_boxes_are_those_of_the_masks(bench: Bench) -> None:
    bench.draw("a.png", brush_region(rectangle(10, 15, 30, 45), "road"))
    bench.done(formats=("yolo-boxes",))
    (line,) = lines(bench)
    assert np.allclose([float(each) for each in line.split()], [1, 0.5, 0.5, 0.5, 0.5])
    assert (bench.folder / "data.yaml").is_file()
    with pytest.raises(DatasetError, match="folder of its own"):
        bench.done(formats=("yolo", "yolo-boxes"))


def test_the_data_file_names_lists_of_pictures_that_are_there(bench: Bench) -> None:
    bench.config = bench.config.replace('value="tree"', 'value="tree: &quot;é&quot; #1"')
    for n in range(1, 21):
        bench.draw(f"ü {n}.png")
    bench.done(formats=("yolo",), split=Split.parse("50/30/20"))
    told = yaml.safe_load((bench.folder / "data.yaml").read_text(encoding="utf-8"))
    assert list(told["names"].values()) == [*NAMES[:3], 'tree: "é" #1', "sign"]
    listed = []
    for part in ("train", "val", "test"):
        for line in (bench.folder / told[part]).read_text(encoding="utf-8").splitlines():
            picture = bench.folder / line
            assert picture.is_file()
            labels = line.replace("/images/", "/labels/").replace(".png", ".txt")
            assert (bench.folder / labels).is_file(), "where trainers look for it"
            listed.append(line)
    assert len(set(listed)) == 20
