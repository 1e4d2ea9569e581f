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
