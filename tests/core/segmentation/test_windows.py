"""Windows back to pixels; how they are cut: `tests.core.test_segmenter`, against the reference."""

import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures
from clearclip_core.segmentation.windows import WindowPlan

PATCH_PX = 16


def plan_of(
    image_hw: tuple[int, int], resized_hw: tuple[int, int], window_px: int = 64, stride_px: int = 32
) -> WindowPlan:
    return WindowPlan(image_hw, resized_hw, window_px, stride_px, (PATCH_PX, PATCH_PX))


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
def test_matrices_are_the_whole_way(image_hw: tuple[int, int], resized_hw: tuple[int, int]) -> None:
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
