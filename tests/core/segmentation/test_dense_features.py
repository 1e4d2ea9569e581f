"""Features have to fit the geometry of their windows."""

from __future__ import annotations

import pytest
import torch

from clearclip_core import DenseFeatures
from tests.core.segmentation.test_sliding_windows import plan_of

PLAN = plan_of((57, 83), (70, 102))


def test_what_does_not_fit_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`patches` to be of shape \(6, 4, 4\) \+ \(D,\)"):
        DenseFeatures(torch.zeros(5, 4, 4, 12), PLAN)
    with pytest.raises(ValueError, match=r"`cls` to be of shape \(6, 12\), but got \(6, 11\)"):
        DenseFeatures(torch.zeros(6, 4, 4, 12), PLAN, torch.zeros(6, 11))
    with pytest.raises(ValueError, match="`cls` to be given with `remove_redundancy`"):
        DenseFeatures(torch.zeros(6, 4, 4, 12), PLAN, remove_redundancy=True)


def test_the_images_cls_feature_is_the_mean_of_its_windows() -> None:
    cls = torch.zeros(6, 12)
    cls[:3, 0] = cls[3:, 1] = 1
    patches = torch.zeros(6, 4, 4, 12)
    made = DenseFeatures(patches, PLAN, cls.half()).image_cls
    assert made.dtype == torch.float32
    torch.testing.assert_close(made[:3], torch.tensor([0.5**0.5, 0.5**0.5, 0]))
    with pytest.raises(ValueError, match="encode with `with_cls=True`"):
        assert DenseFeatures(patches, PLAN).image_cls
