"""Regions against hand-drawn masks, the SDK's decoder and the SDK's validation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
from scipy.ndimage import label

from backend.label_studio.label_config import CONTROL_KINDS, Control, ControlKind, ControlLabel
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_writer import (
    MAX_HOLES,
    draw_regions,
    join_rings,
    simplify,
    trace_rings,
)
from clearclip_core import RunMask

Mask = npt.NDArray[np.bool_]
DOG = ControlLabel("dog", "dog")


@dataclass
class Source:
    confidence: npt.NDArray[Any]


def _control(kind: ControlKind) -> Control:
    return Control(kind, "drawn", ("photo",), (DOG,))


def _draw(mask: Mask, kind: ControlKind, **options: Any) -> list[dict[str, Any]]:
    confidence = np.full(mask.shape, 0.5, dtype=np.float16)
    regions = draw_regions(
        RunMask.of(mask), Source(confidence), _control(kind), DOG, "photo", **options
    )
    return [entry for region in regions for entry in region.entries()]


def _two_islands() -> Mask:
    """40 high, 80 wide: a block of 20 x 30 and one of 10 x 10."""
    mask = np.zeros((40, 80), dtype=bool)
    mask[10:30, 40:70] = True
    mask[0:10, 0:10] = True
    return mask


def test_a_brush_region_is_the_mask() -> None:
    mask = _two_islands()
    (region,) = _draw(mask, "brushlabels")
    value, id_ = region.pop("value"), region.pop("id")
    assert len(id_) == 10
    size = {"original_width": 80, "original_height": 40, "image_rotation": 0}
    names = {"type": "brushlabels", "from_name": "drawn", "to_name": "photo"}
    assert region == names | size | {"score": 0.5}
    rgba = brush.decode_rle(value.pop("rle")).reshape(40, 80, 4)
    np.testing.assert_array_equal(rgba[..., 3] == 255, mask)
    assert value == {"format": "rle", "brushlabels": ["dog"]}


def test_polygons_run_along_the_edges_of_the_islands() -> None:
    large, small = (region["value"] for region in _draw(_two_islands(), "polygonlabels"))
    assert sorted(large["points"]) == [[50, 25], [50, 75], [87.5, 25], [87.5, 75]]
    assert sorted(small["points"]) == [[0, 0], [0, 25], [12.5, 0], [12.5, 25]]
    assert large["closed"] is True
    assert large["polygonlabels"] == ["dog"]


@pytest.mark.parametrize("kind", ["polygonlabels", "rectanglelabels"])
def test_small_islands_are_left_out(kind: ControlKind) -> None:
    assert len(_draw(_two_islands(), kind, min_island_px=100)) == 2
    assert len(_draw(_two_islands(), kind, min_island_px=101)) == 1
    ring = np.pad(np.ones((2, 2), bool), 4)
    ring[[0, -1]] = ring[:, [0, -1]] = True
    assert len(_draw(ring, kind)) == 2, "an island in the hole of another is its own"


def test_scores_are_means_inside() -> None:
    mask = _two_islands()
    confidence = np.full(mask.shape, 0.9)
    confidence[10:30, 40:55] = 0.25
    confidence[10:30, 55:70] = 0.75
    confidence[0:10, 0:10] = 1.5  # half precision may round beyond 1

    def scores(kind: ControlKind, mask: Mask = mask, threshold: float = 0.0) -> list[float]:
        label = ControlLabel("dog", "dog", threshold)
        drawn = draw_regions(RunMask.of(mask), Source(confidence), _control(kind), label, "photo")
        return [region.score for region in drawn]

    assert scores("rectanglelabels") == [0.5, 1.0]
    assert scores("rectanglelabels", threshold=0.51) == [1.0]
    assert scores("brushlabels") == [pytest.approx((600 * 0.5 + 100 * 1.5) / 700, abs=1e-6)]
    assert scores("brushlabels", np.zeros_like(mask)) == []


def test_ids_are_unique_and_the_same_next_time() -> None:
    mask = _two_islands()
    drawn = [
        region["id"]
        for owner in ("task 1", "task 2")
        for kind in CONTROL_KINDS
        for item_index in (None, 0, 1)
        for region in _draw(mask, kind, owner=owner, item_index=item_index)
    ]
    assert len(set(drawn)) == len(drawn) == 2 * 3 * (1 + 1 + 2 + 2)
    assert all(len(name) == 10 for name in drawn)
    assert _draw(mask, "brushlabels")[0]["id"] == _draw(mask, "brushlabels")[0]["id"]


TAGS = {
    "brushlabels": "BrushLabels",
    "bitmasklabels": "BitmaskLabels",
    "polygonlabels": "PolygonLabels",
    "rectanglelabels": "RectangleLabels",
}


@pytest.mark.parametrize("alias", ["", 'alias="animal"'])
@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_the_sdk_finds_every_prediction_valid(kind: ControlKind, alias: str) -> None:
    xml = (
        f'<View><Image name="photo" value="$image"/><{TAGS[kind]} name="drawn" toName="photo">'
        f'<Label value="sky"/><Label value="dog" {alias}/></{TAGS[kind]}></View>'
    )
    (control,) = parse_label_config(xml, None).controls
    mask = np.random.default_rng(3).random((33, 47)) < 0.4
    confidence = np.random.default_rng(4).random((33, 47)).astype(np.float16)
    result = [
        entry
        for label in control.labels
        for region in draw_regions(RunMask.of(mask), Source(confidence), control, label, "photo")
        for entry in region.entries()
    ]
    prediction = {"model_version": "v", "score": 0.5, "result": result}
    assert result
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []


EIGHT = np.ones((3, 3))


def fill(ring: Any, size_hw: tuple[int, int]) -> tuple[Any, Any]:
    """The pixels inside a ring by the even-odd rule, and by a winding number that is not 0.

    A ray to the right of a pixel's centre crosses edges that go down and edges that go up.
    """
    down, up = np.zeros(size_hw, int), np.zeros(size_hw, int)
    for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
        for row in range(min(y0, y1), max(y0, y1)):
            at = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            (down if y1 > y0 else up)[row, np.arange(size_hw[1]) + 0.5 < at] += 1
    return (down + up) % 2 == 1, down != up


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_the_ring_of_an_island_bounds_its_pixels_and_no_others(mask: Any) -> None:
    islands, count = label(mask, EIGHT)
    for number in range(1, count + 1):
        island = islands == number
        ring = join_rings(*trace_rings(island))
        even_odd, nonzero = fill(ring, island.shape)
        assert (even_odd == island).all()
        assert (nonzero == island).all()


def test_a_ring_has_no_points_on_its_lines() -> None:
    outer, (hole,) = trace_rings(np.pad(np.zeros((3, 5), np.bool_), 2, constant_values=True))
    assert sorted(outer.tolist()) == [[0, 0], [0, 7], [9, 0], [9, 7]]
    assert sorted(hole.tolist()) == [[2, 2], [2, 5], [7, 2], [7, 5]]
    assert len(join_rings(outer, [hole])) == 4 + 4 + 2, "there and back once"
    outer, _ = trace_rings(np.ones((1, 40), np.bool_))
    assert sorted(simplify(outer, 3.0).tolist()) == [[0, 0], [0, 1], [40, 0], [40, 1]]


@pytest.mark.parametrize("tolerance_px", [0.5, 2.0])
def test_no_corner_is_farther_from_a_simpler_ring_than_the_tolerance(tolerance_px: float) -> None:
    y, x = np.mgrid[:90, :120]
    disc = np.hypot(x - 60, y - 45) < 40
    outer, _ = trace_rings(disc)
    (region,) = _draw(disc, "polygonlabels")
    assert len(region["value"]["points"]) < 60
    simpler = simplify(outer, tolerance_px)
    assert 3 <= len(simpler) < len(outer)
    start, end = simpler, np.roll(simpler, -1, axis=0)
    along = end - start
    for corner in outer:
        share = ((corner - start) * along).sum(1) / np.square(along).sum(1)
        nearest = start + share.clip(0, 1)[:, None] * along
        assert np.hypot(*(corner - nearest).T).min() <= tolerance_px + 1e-6


def test_a_sieve_loses_its_largest_holes_only() -> None:
    sieve = np.ones((160, 160), np.bool_)
    sieve[2::4, 2::4] = False
    sieve[2:9, 2:9] = False
    outer, holes = trace_rings(sieve)
    assert len(holes) > MAX_HOLES
    even_odd, _ = fill(join_rings(outer, holes), sieve.shape)
    assert not even_odd[4, 4]
    assert (~even_odd).sum() == 81 - 4 * 8 + MAX_HOLES - 1
