"""Label maps of every depth against the values that were drawn; formats of folders, classes."""

import json
import struct
import unicodedata
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.io import ImageReadMode, read_image

from backend.dataset.formats.format_writer import NO_CLASS, ClassTable
from backend.dataset.formats.label_map import (
    LabelValues,
    read_binary_masks,
    read_class_map,
    read_index_png,
)
from backend.dataset.formats.layouts import ReadingOptions, find_masks, read_masks
from backend.dataset.mask_source import Limits
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import Bench, brush_region, rectangle, saved

LIMITS = Limits(max_file_mb=1, max_megapixels=1)
VALUES = np.array([[0, 1, 1, 0], [1, 1, 0, 0]], np.uint8)
NAMES = LabelValues({0: "sky", 1: "road", 255: None}, {0: (10, 20, 30), 1: (40, 50, 60)}, "names")


def with_header(content: bytes, at: int, field: bytes) -> bytes:
    """A PNG with another field in its header, and a checksum that fits."""
    made = bytearray(content)
    made[at : at + len(field)] = field
    made[29:33] = struct.pack(">I", zlib.crc32(made[12:29]))
    return bytes(made)


def with_palette(values: npt.NDArray[np.uint8], *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(values, "P")
    picture.putpalette([each for colour in colours for each in colour])
    return picture


FOUR_BITS = saved(with_palette(VALUES, *[(1, 2, 3)] * 16))
assert FOUR_BITS[24] == 4


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(VALUES)),
        saved(with_palette(VALUES, (10, 20, 30), (40, 50, 60)), bits=2),
        saved(Image.fromarray(VALUES.astype(np.uint16))),
        saved(Image.fromarray(VALUES > 0)),
        with_header(FOUR_BITS, 25, b"\0"),  # grey, which Pillow cannot write
    ],
)
def test_the_values_are_those_that_the_file_has(content: bytes) -> None:
    found = read_class_map(content, "a.png", LIMITS)
    np.testing.assert_array_equal(found.values, VALUES)
    regions = found.regions(NAMES, (2, 4))
    assert [region.label for region in regions] == ["sky", "road"]
    np.testing.assert_array_equal(regions[0].read_mask(), VALUES == 0)
    np.testing.assert_array_equal(regions[1].read_mask(), VALUES == 1)


HUGE = with_header(saved(Image.fromarray(VALUES)), 16, struct.pack(">II", 2_000, 1_000))  # 2 MP
NOISE = saved(Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 90), np.uint8)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((each, "is no PNG picture, or is damaged") for each in (NOISE[:-200], NOISE[:40], b"")),
        (HUGE, "limit of 1 MP"),
        (saved(Image.new("RGB", (4, 2))), "in colour.*--colors"),
        (saved(Image.new("RGBA", (4, 2))), "transparency .mode RGBA"),
        (saved(Image.fromarray(VALUES + 6)), "has the value 6, which names does not name"),
    ],
)
def test_what_is_no_label_map_is_a_sentence(content: bytes, reason: str) -> None:
    names = LabelValues({0: "sky", 1: "road", 255: None}, file="names")
    with pytest.raises(DatasetError, match=rf"a\.png .*{reason}"):
        read_class_map(content, "a.png", LIMITS).regions(names, (2, 4))


TABLE = ClassTable(("sky", "road"), "other")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (["sky", "road"], {0: "sky", 1: "road", 255: None}),
        ({"classes": ["sky"], "nothing": 0}, {0: "sky"}),
        ({"classes": [{"value": 3, "name": " sky "}], "nothing": None}, {3: "sky"}),
        (TABLE.to_json("smallest"), {0: None, 1: "sky", 2: "road", 255: None}),
    ],
)
def test_forms_of_json(tmp_path: Path, content: object, names: dict[int, str | None]) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert LabelValues.read(tmp_path / "c.json").names == names


@pytest.mark.parametrize(
    "content",
    [
        *("{", "7", "[]", '[""]', '{"one": "a"}', "[" * 100_000),
        '{"classes": [{"value": -1, "name": "a"}]}',
        '{"classes": [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]}',
    ],
)
def test_what_is_no_such_file_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"classes\.json"):
        LabelValues.read(path)


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


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # of the devkit: background, aeroplane, bicycle


@pytest.mark.parametrize("in_colour", [False, True])
def test_the_masks_of_pascal_voc(tmp_path: Path, in_colour: bool) -> None:
    values = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
    picture = Image.fromarray(values)
    palette = np.zeros((256, 3), np.uint8)
    palette[:3], palette[255] = np.reshape(VOC, (3, 3)), (224, 224, 192)
    picture.putpalette(palette.ravel().tolist())
    for name in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / name).mkdir()
        (picture.convert("RGB") if in_colour else picture).save(tmp_path / name / "2007_1.png")
    (source,) = read_index_png(tmp_path, None, LIMITS)
    plane, bicycle = source.read_regions((2, 3))
    assert (source.name, plane.label, bicycle.label) == ("2007_1", "aeroplane", "bicycle")
    np.testing.assert_array_equal(plane.read_mask(), values == 1)
    np.testing.assert_array_equal(bicycle.read_mask(), values == 2)
    names = tmp_path / "labelmap.txt"
    names.write_text("background:0,0,0::\naeroplane:128,0,0::\nbicycle:0,128,0::\n")
    (source,) = read_index_png(tmp_path, names, LIMITS)
    assert [each.label for each in source.read_regions((2, 3))] == ["aeroplane", "bicycle"]
    Image.fromarray(values).save(tmp_path / "SegmentationClass/2007_1.png")
    assert [each.label for each in source.read_regions((2, 3))] == ["aeroplane", "bicycle"]


def test_colours_stand_for_the_classes_of_a_file(tmp_path: Path) -> None:
    """A file of CVAT, which puts its own into the folder."""
    rgb = np.array([[(0, 0, 0), (128, 64, 128), (1, 2, 3)]], np.uint8)
    (tmp_path / "masks").mkdir()
    Image.fromarray(rgb).save(tmp_path / "masks/a.png")
    file = tmp_path / "labelmap.txt"
    file.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n")
    (source,) = read_index_png(tmp_path, None, LIMITS)
    with pytest.raises(DatasetError, match=r"colour 1, 2, 3, which .*labelmap.txt does not name"):
        source.read_regions((1, 3))
    file.rename(tmp_path / "mine.txt")
    (tmp_path / "mine.txt").write_text("road: 128, 64, 128\nold kerb: 1,2,3\nbackground: 0,0,0")
    (source,) = read_index_png(tmp_path, None, LIMITS, colours=tmp_path / "mine.txt")
    found = {each.label: each.read_mask().tolist() for each in source.read_regions((1, 3))}
    assert found == {"road": [[False, True, False]], "old kerb": [[False, False, True]]}
    (tmp_path / "mine.txt").write_text("1 2 3\t\told kerb\n128 64 128\tRoad\n0 0 0 Void\n")
    (source,) = read_index_png(tmp_path, None, LIMITS, colours=tmp_path / "mine.txt")
    assert [each.label for each in source.read_regions((1, 3))] == ["old kerb", "Road"]


def test_suffixes_of_masks_and_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\n")
    for end in ("labelIds", "instanceIds", "color"):
        put(tmp_path / f"gtFine/ulm/ulm_0_gtFine_{end}.png")
    suffix = "_gtFine_labelIds=_leftImg8bit"
    (source,) = read_index_png(tmp_path, None, LIMITS, suffix=suffix)
    assert source.name == "gtFine/ulm/ulm_0_leftImg8bit"
    (source,) = read_index_png(tmp_path, None, LIMITS, suffix="_gtFine_labelIds")
    assert source.name == "gtFine/ulm/ulm_0"


def test_a_folder_of_binary_masks_a_class(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 0]], np.uint8)
    for name, values in (("sky/a", mask), ("car/a", mask // 255), ("car/b", mask * 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    a, b = read_binary_masks(tmp_path, LIMITS)
    found = {each.label: each.read_mask().tolist() for each in a.read_regions((1, 3))}
    assert found == {name: [[False, True, False]] for name in ("car", "sky")}
    assert (a.name, b.name, list(b.read_regions((1, 3)))) == ("a", "b", [])
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / "car/a.png")
    with pytest.raises(DatasetError, match=r"car/a\.png is no mask of one class"):
        list(a.read_regions((1, 3)))


def test_a_link_out_of_the_folder_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/names.txt").write_text("sky\n")
    put(tmp_path / "secret.png")
    put(tmp_path / "set/a.png")
    (tmp_path / "set/b.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/c.png").symlink_to("a.png")
    assert [each.name for each in read_index_png(tmp_path / "set", None, LIMITS)] == ["a", "c"]


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["masks/a.png", "report.json", "splits/train.txt", "classes.json"], "label maps"),
        (["a.png", "train.txt", "info.json", "names.txt"], "label maps"),
        (["a.png"], "label maps"),
        (["instances.json", "images/a.png"], "COCO"),
        (["annotations/train.json", "a.png"], "COCO"),
        (["annotations/train.json", "report.json", "classes.json", "images/a.png"], "COCO"),
        (["labels/train/a.txt", "images/train/a.png", "data.yaml"], "YOLO, segmentation"),
        (["a.txt", "classes.txt", "a.png"], "YOLO, segmentation"),
        (
            ["data.yaml", "README.roboflow.txt", "train/labels/a.txt", "train/images/a.png"],
            "YOLO, segmentation",
        ),
        (["README.roboflow.txt", "train/_annotations.coco.json", "train/a.png"], "COCO"),
        (["label_colors.txt", "a.png"], "label maps"),
        (["train/a.png", "val/b.png"], "label maps"),
    ],
)
def test_the_format_is_found(tmp_path: Path, files: list[str], expected: str) -> None:
    assert find_masks(make(tmp_path, *files)).layout == expected


def test_several_formats_are_not_chosen_from(tmp_path: Path) -> None:
    make(tmp_path, "masks/a.png", "annotations/train.json", "labels/a.txt", "data.yaml")
    with pytest.raises(DatasetError, match="index-png, coco, yolo: say which by --format"):
        find_masks(tmp_path)
    with pytest.raises(DatasetError, match="COCO file"):
        next(read_masks(tmp_path, ReadingOptions("coco"), Limits()))
    with pytest.raises(DatasetError, match=r"Expected classes\.json or names\.txt in"):
        next(read_masks(tmp_path, ReadingOptions("index-png"), Limits()))
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DatasetError, match=r'data\.yaml with "names", classes\.json or names'):
        next(read_masks(tmp_path, ReadingOptions("yolo"), Limits()))
    for file, advice in (("set.zip", "unpack it first"), ("a.png", "name its folder")):
        with pytest.raises(DatasetError, match=advice):
            find_masks(make(tmp_path, file) / file)


def test_label_maps_are_read_alike_by_all(bench: Bench) -> None:
    """A palette PNG is other values in OpenCV, in Pillow's grey and in torchvision."""
    bench.draw("a.png", brush_region(rectangle(0, 0, 20, 60), "road"))
    bench.done()
    file = str(bench.folder / "masks/a.png")
    expected = np.where(rectangle(0, 0, 20, 60), 1, NO_CLASS)
    assert np.array_equal(cv2.imread(file, 0), expected)
    assert np.array_equal(np.asarray(Image.open(file).convert("L")), expected)
    assert np.array_equal(read_image(file, ImageReadMode.GRAY)[0].numpy(), expected)


def test_overlays_show_the_colours_of_classes_json(bench: Bench) -> None:
    sky = rectangle(0, 0, 24, 60)
    bench.draw("a.png", brush_region(sky, "sky"))
    bench.add("a.png", saved(Image.new("RGB", (60, 40), (0, 0, 0))))
    bench.done(formats=("overlays",))
    found = np.asarray(Image.open(bench.folder / "overlays/a.jpg")).astype(int)
    classes = json.loads((bench.folder / "classes.json").read_text())["classes"]
    assert np.abs(found[:16] - 0.35 * np.array(classes[0]["colour"])).max() < 4
    assert found[32:].max() < 4
    assert not (bench.folder / "masks").exists()
