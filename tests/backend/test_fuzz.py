"""Parsers of what comes from outside, with inputs that hypothesis makes: only errors on purpose."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from contextlib import suppress
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from label_studio_sdk.converter import brush
from PIL import Image

from backend.errors import BadRequest, LabelConfigError, TaskError
from backend.feedback.comparison import compare_annotation
from backend.label_studio.brush_rle import decode_rle, encode_runs
from backend.label_studio.image_loader import decode_image
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import area_mask, read_areas
from clearclip_core import RunMask
from tests.backend.fuzzing import FUZZ, JSON, NUMBERS, SCALARS

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


@FUZZ
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


@FUZZ
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


@FUZZ
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


@FUZZ
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


@FUZZ
@given(
    content=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    end=st.integers(0, 400),
)
@example(content=chunk(b"IHDR", b"\xff" * 13), changes=[], end=400)
def test_pictures(content: bytes, changes: Any, end: int) -> None:
    damaged = bytearray(content[: max(1, len(content) - end % 7)])
    for at, value in changes:
        damaged[at % len(damaged)] = value
    try:
        image = decode_image(bytes(damaged), max_megapixels=1)
    except TaskError:
        return
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
