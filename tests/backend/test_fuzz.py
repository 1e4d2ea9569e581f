"""Parsers of what comes from outside, with inputs that hypothesis makes: only errors on purpose."""

import base64
import copy
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from label_studio_sdk.converter import brush
from PIL import Image

from backend.dataset.formats.coco import draw_runs, read_coco, read_runs
from backend.dataset.formats.label_map import read_index_png
from backend.dataset.formats.labelme import read_labelme
from backend.dataset.formats.layouts import find_masks
from backend.dataset.formats.yolo import read_yolo
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import BadRequest, DatasetError, LabelConfigError, TaskError
from backend.feedback.comparison import compare_annotation
from backend.label_studio.brush_rle import decode_rle, encode_runs
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import area_mask, read_areas
from clearclip_core import RunMask
from tests.backend.dataset.formats import published_sets
from tests.backend.fuzzing import JSON, NUMBERS, SCALARS
from tests.backend.label_studio.test_image_loader import decoded

pytestmark = pytest.mark.thorough

SIDES = st.integers(1, 40) | st.sampled_from([0, -1, 1 << 20, 10**6, 10**12, True]) | SCALARS
PERCENT = st.floats(-50, 150) | NUMBERS | SCALARS
POINTS = st.lists(st.lists(PERCENT, min_size=2, max_size=2) | JSON, max_size=6)


def png(width: int, height: int, mode: str = "RGBA") -> bytes:
    made = io.BytesIO()
    Image.new(mode, (width, height)).save(made, "PNG")
    return made.getvalue()


@st.composite
def rles(draw: st.DrawFn) -> Any:
    """A stream of the format, damaged in some places."""
    mask = np.array(draw(st.lists(st.booleans(), min_size=6, max_size=6))).reshape(2, 3)
    rle: list[Any] = encode_runs(RunMask.of(mask))
    for _ in range(draw(st.integers(0, 4))):
        rle[draw(st.integers(0, len(rle) - 1))] = draw(st.integers(0, 255) | SCALARS)
    return rle[: draw(st.integers(0, len(rle)) | st.just(len(rle)))]


@st.composite
def regions(draw: st.DrawFn) -> Any:
    kind = draw(
        st.sampled_from(["brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels"])
    )
    urls = st.just(
        "data:image/png;base64," + draw(st.sampled_from([b64(png(3, 2)), b64(b"%!PS"), "////"]))
    )
    value = {
        "rle": draw(rles() | st.binary(max_size=40).map(list) | JSON),
        "imageDataURL": draw(urls | JSON),
        "points": draw(POINTS | JSON),
        **{key: draw(PERCENT) for key in ("x", "y", "width", "height", "rotation")},
        kind: draw(st.just(["red"]) | JSON),
    }
    region = {
        "type": kind,
        "from_name": "mask",
        "to_name": "image",
        "value": draw(st.just(value) | JSON),
        "original_width": draw(st.just(3) | SIDES),
        "original_height": draw(st.just(2) | SIDES),
    }
    return draw(st.just(region) | JSON)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


OUTLINE = {"type": "polygonlabels", "from_name": "mask", "to_name": "image"}
SIZE = {"original_width": 3, "original_height": 2}


@given(region=regions())
@example(region=OUTLINE | SIZE | {"value": {"points": False}})
@example(region=OUTLINE | SIZE | {"value": {"points": [[1, 2, 3]]}})
def test_regions_of_annotations(region: Any) -> None:
    with suppress(BadRequest, ValueError):
        for area in read_areas([region], {"mask"}):
            if area.size_hw[0] * area.size_hw[1] < 10**7:
                mask = area_mask(area)
                assert (mask.dtype, mask.shape) == (np.bool_, area.size_hw)


CONFIG = parse_label_config(
    """<View><Image name="image" value="$image"/>
    <BrushLabels name="mask" toName="image"><Label value="red"/><Label value="blue" alias="b"/>
    </BrushLabels>
    <RectangleLabels name="box" toName="image"><Label value="blue"/></RectangleLabels>
    <KeyPointLabels name="click" toName="image"><Label value="red"/></KeyPointLabels>
    <TextArea name="words" toName="image" prompt_label="red"/></View>""",
    None,
)
RESULTS = st.lists(
    st.fixed_dictionaries(
        {
            "region": regions(),
            "id": st.sampled_from("ab") | JSON,
            "label": st.sampled_from(["red", "blue", "b"]),
            "origin": st.sampled_from(["prediction", "prediction-changed", "manual"]) | JSON,
            "item_index": st.sampled_from([None, 0, 1]),
        }
    ),
    max_size=4,
)


def result_of(drawn: list[dict[str, Any]]) -> list[Any]:
    """The regions of a result, most of them of one small image and with a label of the config."""
    result = []
    for each in drawn:
        region = each["region"]
        if isinstance(region, dict):
            region |= {key: each[key] for key in ("id", "origin", "item_index")}
            value, kind = region.get("value"), region.get("type")
            if isinstance(value, dict) and isinstance(kind, str):
                value[kind] = [each["label"]]
        result.append(region)
    return result


@given(predicted=st.none() | RESULTS.map(result_of), final=RESULTS.map(result_of))
def test_annotations(predicted: Any, final: Any) -> None:
    """What counts as an annotation that can be read has masks that can be drawn."""
    for region in (*(predicted or ()), *final):
        for side in ("original_height", "original_width"):
            if isinstance(region, dict) and region.get(side) in (1 << 20, 10**6):
                region[side] = 2  # large masks take long to draw
    try:
        pictures = compare_annotation(predicted, final, CONFIG)
    except BadRequest:
        return
    for each in pictures:
        evidence = each.evidence
        for masks in (evidence.masks, evidence.removed):
            assert all(mask.shape == each.size_hw for mask in masks.values())


@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    word_bits=st.integers(1, 8),
    length_bits=st.lists(st.integers(1, 16), min_size=4, max_size=4),
    tokens=st.binary(max_size=80),
)
def test_brush_streams(
    sides: tuple[int, int], word_bits: int, length_bits: list[int], tokens: bytes
) -> None:
    """Label Studio's own decoder reads what is read here, and as the same pixels."""
    height, width = sides
    head = f"{height * width * 4:032b}{word_bits - 1:05b}"
    bits = head + "".join(f"{size - 1:04b}" for size in length_bits)
    bits += "".join(f"{byte:08b}" for byte in tokens)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    with suppress(ValueError):
        alpha = decode_rle(rle, height, width)
        np.testing.assert_array_equal(alpha.ravel(), brush.decode_rle(rle)[3::4])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["image", "mask", "$image", "red", "a,b", "", "0.5", "nan", "yes"]) | TEXT
ATTRIBUTE_NAMES = (
    "name toName value alias prelabel score adapt smart overlap hint threshold "
    "model_score_threshold predicted_values valueList visibleWhen"
)
TAG_NAMES = (
    "View Image BrushLabels BitmaskLabels PolygonLabels RectangleLabels Label KeyPointLabels "
    "TextArea Repeater Labels Choices Style"
)
ATTRIBUTES = st.dictionaries(st.sampled_from(ATTRIBUTE_NAMES.split()), NAMES, max_size=6)
TAGS = st.sampled_from(TAG_NAMES.split())
TREES = st.recursive(
    st.tuples(TAGS, ATTRIBUTES, st.just([])),
    lambda inner: st.tuples(TAGS, ATTRIBUTES, st.lists(inner, max_size=4)),
    max_leaves=10,
)


def xml(tree: Any) -> str:
    tag, attributes, children = tree
    written = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
    return f"<{tag}{written}>{''.join(map(xml, children))}</{tag}>"


@given(text=TREES.map(xml) | st.text(max_size=40))
def test_label_configs(text: str) -> None:
    try:
        config = parse_label_config(text, None)
    except LabelConfigError:
        return
    assert config.labels


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def made(image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((7, 5)).convert("RGB").save(file, image_format, **options)
    return file.getvalue()


FILES = [
    *(made(each) for each in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")),
    *(made("TIFF", compression=each) for each in ("tiff_lzw", "tiff_deflate", "packbits")),
    made("JPEG", exif=Image.Exif()),
]


@given(
    content=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    end=st.integers(0, 400),
)
@example(content=chunk(b"IHDR", b"\xff" * 13), changes=[], end=400)
def test_pictures(content: bytes, changes: Any, end: int) -> None:
    try:
        image = decoded(damaged(content, changes, end % 7))
    except TaskError:
        return
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


LIMITS = Limits(max_file_mb=1, max_megapixels=1)
SIZE_HW = (3, 4)
RUN_LETTERS = "0123456789:;<=>?@ABCDEFGHIJKLMNO`abcdefghijklmno~\0é"
TEXTS = st.text(RUN_LETTERS, max_size=12) | st.sampled_from(
    [*("polygon", "rectangle", "circle", "mask", "line", "nan", "inf", "1e400", "0x1", "٣", "1_0")]
)
DAMAGE = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def spoiled(draw: Callable[[Any], Any], valid: Any) -> Any:
    """A value of JSON with up to four parts, deep inside or all of it, changed or gone."""
    root = [copy.deepcopy(valid)]
    for _ in range(draw(st.integers(0, 4))):
        holder, key = root, 0
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 5)):
            holder = holder[key]
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = draw(st.sampled_from(keys))
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = draw(st.floats(-2, 6) | NUMBERS | TEXTS | JSON)
    return root[0]


def damaged(content: bytes, changes: list[tuple[int, int]], cut: int = 0) -> bytes:
    made = bytearray(content)
    for at, value in changes:
        made[at % len(made)] = value
    return bytes(made[: len(made) - cut])


def draw_all(sources: Iterable[MaskSource], size_hw: tuple[int, int] = SIZE_HW) -> None:
    """Draw all masks of all pictures that can be read."""
    with suppress(DatasetError):
        for source in sources:
            with suppress(DatasetError):
                for region in source.read_regions(size_hw):
                    with suppress(DatasetError):
                        mask = region.read_mask()
                        assert (mask.dtype, mask.shape) == (np.bool_, size_hw)


SHAPES: list[Any] = [[[0, 0, 3, 0, 3, 2]], {"size": [3, 4], "counts": "52203"}]
SHAPES.append({"size": [3, 4], "counts": [5, 2, 5]})
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 3, "width": 4, "extra": {"name": "a"}}],
    "categories": [{"id": 1, "name": "sky"}],
    "annotations": [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": each, "score": 0.5}
        for n, each in enumerate(SHAPES)
    ],
}


@given(content=spoiled(COCO) | spoiled(COCO["annotations"]), changes=DAMAGE, cut=st.integers(0, 2))
def test_coco(folder: Path, content: Any, changes: Any, cut: int) -> None:
    file = folder / "coco.json"
    file.write_bytes(damaged(json.dumps(content).encode(), changes if cut else [], cut))
    draw_all(read_coco(file, None))


@given(counts=st.text(RUN_LETTERS, max_size=12))
def test_runs(counts: str) -> None:
    """What is read has no negative run, and fills the picture or is refused."""
    with suppress(ValueError):
        runs = read_runs(counts)
        assert (runs >= 0).all()
        mask = draw_runs(runs, SIZE_HW)
        assert mask.shape == SIZE_HW
        assert mask.sum() == runs[1::2].sum()


CORNERS = [[0, 0], [3, 0], [3, 2]]
LABELME = {
    "shapes": [
        {"label": "sky", "points": CORNERS, "shape_type": "polygon", "group_id": 1},
        {"label": "sky", "points": CORNERS[:2], "shape_type": "circle", "group_id": 1},
        {"label": "sky", "points": CORNERS[::2], "shape_type": "rectangle"},
        {"label": "sky", "points": CORNERS[:1], "shape_type": "mask", "mask": "iVBORw0KGgo="},
    ],
    "imagePath": "a.jpg",
    "imageHeight": 3,
    "imageWidth": 4,
}


@given(content=spoiled(LABELME))
def test_labelme(folder: Path, content: Any) -> None:
    (folder / "labelme").mkdir(exist_ok=True)
    (folder / "labelme/a.json").write_text(json.dumps(content))
    draw_all(read_labelme(folder / "labelme", LIMITS))


#: Files of published layouts, and what writes them.
PUBLISHED = {
    "ds0/ann/a.jpg.json": published_sets.supervisely,
    "via_region_data.json": published_sets.via,
    "annotations/default.json": published_sets.datumaro,
    "releases/latest/annotations/a.json": published_sets.darwin,
    "annotations/panoptic_val2017.json": published_sets.coco_panoptic,
}


@pytest.mark.parametrize("name", PUBLISHED)
@given(data=st.data())
def test_files_of_published_layouts(folder: Path, name: str, data: st.DataObject) -> None:
    place = folder / PUBLISHED[name].__name__
    if not place.exists():
        PUBLISHED[name](published_sets.Writer(place))
        (place / name).rename(place / "valid")
    content = data.draw(spoiled(json.loads((place / "valid").read_text())))
    (place / name).write_text(json.dumps(content))
    with suppress(DatasetError):
        draw_all(find_masks(place).read(LIMITS, None), published_sets.SIZE_HW)


CVAT = {
    "image": {"name": "a.jpg", "width": "4", "height": "3"},
    "mask": {"label": "sky", "rle": "2, 4", "left": "1", "top": "0", "width": "3", "height": "2"},
    "polygon": {"label": "sky", "points": "0.0,0.0;3.0,0.0;3.0,2.0"},
    "box": {"xtl": "0.0", "ytl": "0.0", "xbr": "3.0", "ybr": "2.0"},
    "ellipse": {"cx": "2", "cy": "1", "rx": "1.5", "ry": "1", "rotation": "30"},
}


@given(tags=spoiled(CVAT))
def test_cvat(folder: Path, tags: Any) -> None:
    place = folder / "cvat"
    place.mkdir(exist_ok=True)
    rows = tags if isinstance(tags, dict) else {}
    image, *shapes = (_tag(name, rows.get(name)) for name in CVAT)
    text = f"<annotations>{image}{''.join(shapes)}</image></annotations>"
    (place / "a.xml").write_text(text, "utf-8", errors="replace")
    with suppress(DatasetError):
        draw_all(find_masks(place).read(LIMITS, None))


def _tag(name: str, attributes: Any) -> str:
    known = attributes if isinstance(attributes, dict) else {}
    words = [f"{key}={quoteattr(str(value))}" for key, value in known.items() if key.isalpha()]
    return f"<{name} {' '.join(words)}{'' if name == 'image' else '/'}>"


@given(
    lines=spoiled([["0", 0, 0, 1, 0, 1, 1], ["1", 0.5, 0.5, 1, 1, 0, 0, 0.25]]),
    names=spoiled({"names": ["sky", "car"]}) | spoiled({"names": {0: "sky", 1: "car"}}),
    text=st.none() | st.sampled_from(["a: &a [*a]", "!!python/name:os", "[" * 600, "\0"]),
)
def test_yolo(folder: Path, lines: Any, names: Any, text: str | None) -> None:
    place = folder / "yolo"
    place.mkdir(exist_ok=True)
    rows = lines if isinstance(lines, list) else [lines]
    words = (" ".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    (place / "a.txt").write_text("\n".join(words), "utf-8", errors="replace")
    written = yaml.safe_dump(names) if text is None else text
    (place / "data.yaml").write_text(written, "utf-8", errors="replace")
    draw_all(read_yolo(place, None, LIMITS))


def map_file(mode: str) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(SIZE_HW) % 2)
    (picture.convert(mode) if mode != "P" else picture.quantize(4)).save(file, "PNG")
    return file.getvalue()


MAPS = [map_file(mode) for mode in ("L", "P", "1", "I;16", "RGB")]
CLASSES = {
    "classes": [{"value": 0, "name": "a"}, {"value": 1, "name": "b", "colour": [0, 9, 255]}],
    "nothing": 255,
    "background": 0,
}


@given(
    content=st.builds(damaged, st.sampled_from(MAPS), DAMAGE, st.integers(0, 20)),
    classes=spoiled(CLASSES) | spoiled(["nothing", "sky"]) | spoiled({"7": "road"}),
    names=st.none() | st.text(max_size=30) | st.sampled_from(["a:1,2,3\nb:0,0,300", "-\nb"]),
)
def test_label_maps(folder: Path, content: bytes, classes: Any, names: str | None) -> None:
    place = folder / "png"
    place.mkdir(exist_ok=True)
    (place / "a.png").write_bytes(content)
    (place / "classes.json").write_text(json.dumps(classes))
    (place / "names.txt").write_text(names or "", "utf-8", errors="replace")
    draw_all(read_index_png(place, None if names is None else place / "names.txt", LIMITS))
