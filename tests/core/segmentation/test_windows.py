"""Sliding windows and dense features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures
from clearclip_core.segmentation.windows import WindowPlan, window_starts

PATCH_PX = 16


def plan_of(
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    window_px: int = 64,
    stride_px: int = 32,
) -> WindowPlan:
    return WindowPlan(image_hw, resized_hw, window_px, stride_px, (PATCH_PX, PATCH_PX))


@pytest.mark.parametrize(
    ("side_px", "starts_px"),
    [
        (1, (0,)),
        (448, (0,)),
        (449, (0, 1)),
        (673, (0, 224, 225)),
        (796, (0, 224, 348)),
        (2048, (0, 224, 448, 672, 896, 1120, 1344, 1568, 1600)),
    ],
)
def test_window_starts_by_hand(side_px: int, starts_px: tuple[int, ...]) -> None:
    assert window_starts(side_px, 448, 224) == starts_px


def test_boxes_go_row_by_row() -> None:
    plan = plan_of((80, 100), (80, 100))
    assert list(plan.boxes_xyxy()) == [
        (0, 0, 64, 64),
        (32, 0, 96, 64),
        (36, 0, 100, 64),
        (0, 16, 64, 80),
        (32, 16, 96, 80),
        (36, 16, 100, 80),
    ]
    assert plan.count == 6
    assert plan.grid_hw == (4, 4)


def test_a_side_that_is_no_multiple_of_the_patch_is_padded_smaller_half_first() -> None:
    plan = plan_of((21, 64), (21, 64))  # 21 px are 2 patches of 16 with 11 px missing
    assert plan.rows.padding_px == (5, 6)
    assert plan.columns.padding_px == (0, 0)
    assert plan.grid_hw == (2, 4)
    (window,) = plan.cut(torch.ones(3, 21, 64))
    assert window.shape == (3, 32, 64)
    inked = window[0, :, 0].nonzero().flatten().tolist()
    assert inked == list(range(5, 26))


def one_by_one(plan: WindowPlan, patches: torch.Tensor) -> torch.Tensor:
    """(windows, C, h, w) -> (C, H, W), each step as the paper's experiments do it."""
    height, width = plan.resized_hw
    total = torch.zeros(patches.shape[1], height, width, dtype=patches.dtype)
    count = torch.zeros(height, width, dtype=patches.dtype)
    for window, (left, top, right, bottom) in zip(patches, plan.boxes_xyxy(), strict=True):
        rows, columns = bottom - top, right - left
        padded_hw = (window.shape[1] * PATCH_PX, window.shape[2] * PATCH_PX)
        pixels = F.interpolate(window[None], padded_hw, mode="bilinear", align_corners=False)[0]
        y, x = (padded_hw[0] - rows) // 2, (padded_hw[1] - columns) // 2
        total[:, top:bottom, left:right] += pixels[:, y : y + rows, x : x + columns]
        count[top:bottom, left:right] += 1
    average = (total / count)[None]
    return F.interpolate(average, plan.image_hw, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(
    ("image_hw", "resized_hw"),
    [
        ((64, 64), (64, 64)),
        ((50, 310), (64, 397)),  # wide, made larger
        ((613, 128), (306, 64)),  # tall, made smaller
        ((33, 47), (33, 47)),  # smaller than a window, no multiple of the patch
        ((101, 203), (71, 143)),  # odd
        ((16, 900), (3, 150)),  # less than a patch
        ((1, 1), (64, 64)),
    ],
)
def test_the_matrices_are_the_whole_way(
    image_hw: tuple[int, int], resized_hw: tuple[int, int]
) -> None:
    plan = plan_of(image_hw, resized_hw)
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(plan.count, 2, *plan.grid_hw, generator=generator, dtype=torch.float64)
    rows, columns = (torch.from_numpy(axis.matrix) for axis in (plan.rows, plan.columns))
    pixels = rows @ plan.mosaic(patches) @ columns.T
    torch.testing.assert_close(pixels, one_by_one(plan, patches), rtol=0, atol=1e-5)


PLAN = plan_of((57, 83), (70, 102))


def test_what_does_not_fit_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`patches` to be of shape \(6, 4, 4\) \+ \(D,\)"):
        DenseFeatures(torch.zeros(5, 4, 4, 12), PLAN)
    with pytest.raises(ValueError, match=r"`cls` to be of shape \(6, 12\), but got \(6, 11\)"):
        DenseFeatures(torch.zeros(6, 4, 4, 12), PLAN, torch.zeros(6, 11))
    with pytest.raises(ValueError, match="`cls` to be given with `remove_redundancy`"):
        DenseFeatures(torch.zeros(6, 4, 4, 12), PLAN, remove_redundancy=True)
