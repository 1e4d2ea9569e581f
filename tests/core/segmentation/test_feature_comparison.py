"""The mean cosine of two precisions' features of an image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, WindowPlan, compare_features

PLAN = WindowPlan((32, 64), (32, 64), window_px=32, stride_px=32, patch_hw=(16, 16))


def features(patches: torch.Tensor, cls: torch.Tensor | None = None) -> DenseFeatures:
    return DenseFeatures(patches, PLAN, cls)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_it_is_the_mean_over_patches() -> None:
    patches = torch.eye(4)[0].repeat(2, 2, 2, 1)
    other = patches.clone()
    other[1, 0, 1] = torch.eye(4)[1]  # one of eight at a right angle
    other[0, 0, 0] = torch.tensor([0.6, 0.8, 0, 0])
    assert compare_features(features(other), features(patches)) == pytest.approx((6 + 0 + 0.6) / 8)


def test_cls_features_count_where_both_have_them() -> None:
    patches, cls = unit(2, 2, 2, 8), unit(2, 8)
    turned = torch.stack([cls[0], -cls[1]])
    whole = features(patches, cls)
    assert compare_features(features(patches, turned), whole) == pytest.approx(0, abs=1e-6)
    assert compare_features(features(patches), whole) == pytest.approx(1)
    assert compare_features(features(patches, turned), features(patches)) == pytest.approx(1)


def test_what_is_not_finite_is_never_near() -> None:
    patches, cls = unit(2, 2, 2, 8), unit(2, 8)
    broken = cls.clone()
    broken[0, 0] = math.nan
    assert math.isnan(compare_features(features(patches, broken), features(patches, cls)))
    patches[0, 0, 0, 0] = math.nan
    assert math.isnan(compare_features(features(patches, cls), features(unit(2, 2, 2, 8), cls)))
