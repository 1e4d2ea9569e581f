"""Answers to prompts stay clear of regions that are drawn already."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import mask2rle

from backend.label_studio.region_reader import area_mask, drawn_areas
from tests.backend.fakes.colour_segmenter import RGB, data_url
from tests.backend.prediction.annotator import (
    CENTRE,
    CONFIG,
    LABELS,
    TWO,
    Annotator,
    Mask,
    config_of,
    iou,
    keypoint,
    textarea,
)


def brush(mask: Mask, **changes: Any) -> dict[str, Any]:
    rle = mask2rle(mask.astype(np.uint8) * 255)
    return {
        "id": "old",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "value": {"format": "rle", "rle": rle, "brushlabels": ["blue"]},
        **changes,
    }


def exclusive(tag: str) -> str:
    return config_of(f'<{tag} name="mask" toName="image" overlap="false">{LABELS}</{tag}>')


LEFT = np.zeros(TWO.shape[:2], bool)
LEFT[:, :50] = True
LEFT_RGBA = np.pad(LEFT[..., None] * np.uint8(255), ((0, 0), (0, 0), (3, 0)))
EXCLUSIVE = exclusive("BrushLabels")


def area_of(kind: str, **value: Any) -> dict[str, Any]:
    return brush(LEFT) | {"type": kind, "value": value | {kind: ["blue"]}}


@pytest.mark.parametrize(
    "region",
    [
        brush(LEFT),
        area_of("bitmasklabels", imageDataURL=data_url(LEFT_RGBA)),
        area_of("polygonlabels", points=[[0, 0], [25, 0], [25, 100], [0, 100]]),
        area_of("rectanglelabels", x=0, y=0, width=25, height=100, rotation=0),
    ],
    ids=lambda region: region["type"],
)
def test_a_new_mask_leaves_what_is_there(annotator: Annotator, region: Any) -> None:
    there = {"drafts": [{"result": [region], "updated_at": "2026-01-01"}]}
    free = annotator.mask(TWO, keypoint(32, 50), config=CONFIG, **there)
    kept = annotator.mask(TWO, keypoint(32, 50), config=EXCLUSIVE, **there)
    assert free[60, 30]
    assert not (kept & LEFT).any() or (kept & LEFT).sum() <= TWO.shape[0]  # a column, rounded
    assert np.array_equal(kept[:, 52:], free[:, 52:])


def disc(radius_px: int) -> Mask:
    """(200, 300), around the middle."""
    rows, columns = np.mgrid[:200, :300] + 0.5
    return np.asarray(np.hypot(rows - 100, columns - 150) < radius_px)


@pytest.mark.parametrize(
    ("tag", "leaves_it"),
    [
        ("BrushLabels", True),
        ("BitmaskLabels", True),
        ("PolygonLabels", False),
        ("RectangleLabels", False),
    ],
)
def test_what_lies_inside_is_left_by_masks_not_by_outlines(
    annotator: Annotator, tag: str, leaves_it: bool
) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[disc(90)], image[disc(40)] = RGB["red"], RGB["blue"]
    there = {"drafts": [{"result": [brush(disc(60))], "updated_at": "2026-01-01"}]}
    (region,) = annotator.asks(image, keypoint(24, 50), config=exclusive(tag), **there)
    (area,) = drawn_areas([region])
    assert (area_mask(area) & disc(60)).any() != leaves_it
    assert iou(area_mask(area) | disc(60), disc(90)) > (0.7 if tag == "RectangleLabels" else 0.9)


def test_slivers_along_what_is_there_are_no_regions() -> None:
    """A polygon keeps to its mask to within a pixel."""
    annotator = Annotator(min_island_share=0.0005)
    image = np.zeros((200, 300, 3), np.uint8)
    image[disc(80)] = RGB["red"]
    config, click = exclusive("PolygonLabels"), keypoint(50, 50)
    accepted = annotator.asks(image, click, config=config)
    assert len(accepted) == 1
    there = {"drafts": [{"result": accepted, "updated_at": "2026-01-01"}]}
    assert annotator.asks(image, click, config=config, **there) == []


@pytest.mark.parametrize("prompt", [keypoint(*CENTRE), textarea("red")], ids=lambda p: p["type"])
def test_an_annotation_is_left_too_unless_it_has_most_of_the_mask(
    annotator: Annotator, prompt: Any
) -> None:
    """Another annotator's covers the same things, and leaves the first prompts something."""

    def asks(taken: Mask) -> Mask:
        there = {"annotations": [{"completed_by": 1, "result": [brush(taken)]}]}
        return annotator.mask(TWO, prompt, config=EXCLUSIVE, **there)

    free = annotator.mask(TWO, prompt)
    part = free & (np.arange(200) < 40)
    assert np.array_equal(asks(part), free & ~part)
    assert np.array_equal(asks(free & (np.arange(200) < 60)), free)
    assert np.array_equal(asks(free), free)


@pytest.mark.parametrize(
    "region",
    [
        brush(LEFT, id="k"),  # the prompt's own id
        brush(LEFT, from_name="other"),
        brush(LEFT, to_name="other"),
        brush(LEFT, item_index=1),
        brush(LEFT[:, :100]),  # another size
        brush(LEFT, value={"rle": [1, 2, 3]}),
        area_of("polygonlabels", points=[[0, 0], ["x", 0], [25, 100]]),
        "nonsense",
    ],
    ids=repr,
)
def test_what_is_elsewhere_or_broken_takes_nothing_away(annotator: Annotator, region: Any) -> None:
    there = {"drafts": [{"result": [region], "updated_at": "2026-01-01"}]}
    free = annotator.mask(TWO, keypoint(32, 50))
    assert np.array_equal(annotator.mask(TWO, keypoint(32, 50), config=EXCLUSIVE, **there), free)
