"""Tapered windows against their definition, pixel by pixel, and without jumps at borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearclip_core import Scores, Vocabulary, WindowPlan
from clearclip_core.segmentation.windows import window_starts, window_weights
from tests.core.segmentation.test_sliding_windows import PATCH_PX

SIDES = [(64, 64, 32), (100, 64, 32), (200, 64, 32), (210, 64, 48), (130, 64, 64), (63, 64, 16)]


def plan_of(side_px: int, window_px: int, stride_px: int) -> WindowPlan:
    """One row of windows of one patch in height."""
    size = (PATCH_PX, side_px)
    return WindowPlan(size, size, window_px, stride_px, (PATCH_PX, PATCH_PX), tapered=True)


def weight(y: float, index: int, window_px: int, starts_px: tuple[int, ...]) -> float:
    """The definition: from the centre of a window to that of the next one, as far as both cover."""
    made = 1.0
    for one, other, falls in ((index, index + 1, True), (index - 1, index, False)):
        if not 0 <= one < other < len(starts_px):
            continue
        low = max(starts_px[one] + window_px / 2, starts_px[other])
        high = min(starts_px[other] + window_px / 2, starts_px[one] + window_px)
        rise = min(max((y - low) / (high - low), 0), 1) if high > low else float(y > low)
        made = min(made, 1 - rise if falls else rise)
    return made


@pytest.mark.parametrize(("side_px", "window_px", "stride_px"), SIDES)
def test_weights_are_the_definition_and_sum_to_one(
    side_px: int, window_px: int, stride_px: int
) -> None:
    starts = window_starts(side_px, window_px, stride_px)
    window_px = min(window_px, side_px)
    made = window_weights(side_px, window_px, starts)
    assert made.sum(axis=0) == pytest.approx(1)
    expected = [
        [weight(y + 0.5, index, window_px, starts) for y in range(side_px)]
        for index in range(len(starts))
    ]
    total = np.sum(expected, axis=0)
    simple = np.isclose(total, 1)  # elsewhere the ramps of three windows overlap
    assert simple.mean() > 0.5
    assert made[:, simple] == pytest.approx(np.array(expected)[:, simple])
    for index, start in enumerate(starts):
        outside = np.ones(side_px, np.bool_)
        outside[start : start + window_px] = False
        assert not made[index, outside].any()


@pytest.mark.parametrize(("side_px", "window_px", "stride_px"), SIDES)
def test_pixels_are_weighted_windows_at_the_patches_centres(
    side_px: int, window_px: int, stride_px: int
) -> None:
    plan = plan_of(side_px, window_px, stride_px)
    axis = plan.columns
    patches = np.random.default_rng(1).random((len(axis.starts_px), axis.patches))
    made = axis.matrix @ patches.ravel()
    before, _ = axis.padding_px
    centres = (np.arange(axis.patches) + 0.5) * PATCH_PX - 0.5 - before
    weights = window_weights(side_px, axis.window_px, axis.starts_px)
    exact = np.zeros(side_px)
    for own, start, values in zip(weights, axis.starts_px, patches, strict=True):
        for x in np.flatnonzero(own):
            exact[x] += own[x] * np.interp(x - start, centres, values)
    knots = np.add.outer(axis.starts_px, centres).ravel()
    knots = np.concatenate([np.floor(knots), np.ceil(knots)]).astype(int)
    knots = knots[(knots >= 0) & (knots < side_px)]
    assert made[knots] == pytest.approx(exact[knots])
    assert made == pytest.approx(exact, abs=0.2)  # between them a straight line
    assert axis.matrix.sum(axis=1) == pytest.approx(1)


def test_nothing_jumps_at_a_border_where_windows_differ() -> None:
    """Two windows that see different things: equal weights jump by half of the difference."""
    tapered = plan_of(96, 64, 32)
    plain = WindowPlan((16, 96), (16, 96), 64, 32, (PATCH_PX, PATCH_PX))
    steps = []
    for plan in (plain, tapered):
        patches = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 1, 4)
        scores = Scores(plan.mosaic(patches).contiguous(), plan, Vocabulary.of(["a"]))
        row = scores.plan.columns.matrix @ scores.cosines[0, 0].numpy()
        steps.append(np.abs(np.diff(row)).max())
    assert steps == pytest.approx([0.5, 1 / 32])
