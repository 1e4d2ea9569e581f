"""What a device computes after the encoder, on the CPU: operators and waits are counted.

No GPU runs here. Uploads are not seen: on a CPU there are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clearclip_core import BEST_TEMPLATES, SCENE_LABELS, Label, Segmenter, render_scene
from clearclip_core.segmentation.refined_argmax import decide_refined_on_device, find_runs

#: Operators whose result the host must know before it goes on.
WAITS = {
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
}


class Counting(TorchDispatchMode):
    """Counts operators, and those for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.name().split(".")[0]
        self.operators[name] += 1
        masks = args[1] if name in ("aten::index", "aten::index_put_") else ()
        if name in WAITS or any(mask is not None and mask.dtype is torch.bool for mask in masks):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("size_hw", "count", "most_operators"), [((1224, 1632), 18, 400), ((3000, 4000), 150, 1500)]
)
def test_few_operators_and_waits_after_the_encoder(
    size_hw: tuple[int, int], count: int, most_operators: int
) -> None:
    """With the copy of the runs it is a wait more."""
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", templates=BEST_TEMPLATES[:1])
    image = render_scene(5, size_hw=size_hw).image
    things = (f"thing {number}" for number in range(count - len(SCENE_LABELS)))
    labels = [Label(name, (name, f"a {name}")) for name in (*SCENE_LABELS, *things)]
    features = segmenter.encode(image)
    scores = segmenter.score(features, labels, contrast=True)  # the words are embedded from here on
    wanted = segmenter.decide(scores, 0.1, image, refine=True)
    with Counting() as counted:
        scores = segmenter.score(features, labels, contrast=True)
        label_map, confidence = decide_refined_on_device(
            scores, image, 0.1, patch_px=scores.plan.patch_image_px
        )
        find_runs(label_map, confidence)
    assert np.mean(label_map.numpy() == wanted.label_map) > 0.9999
    assert counted.waits.total() <= 2, counted.waits
    assert counted.operators.total() <= most_operators, counted.operators.most_common(12)
