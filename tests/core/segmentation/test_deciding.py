"""Where refined label maps are computed."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation import deciding
from clearclip_core.segmentation.on_device.segmentation import DeviceSegmentation
from clearclip_core.segmentation.scores import Scores
from tests.core.segmentation.test_refined_argmax import picture, scores_of


def test_scores_of_another_device_are_decided_there(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    for name in ("decide_refined", "decide_refined_on_device"):
        decide = getattr(deciding, name)
        note = lambda *args, name=name, decide=decide: (used.append(name), decide(*args))[1]  # noqa: E731
        monkeypatch.setattr(deciding, name, note)
    here = deciding.decide_refined_where_scored(scores_of(), picture(), 0.4)
    monkeypatch.setattr(Scores, "is_on_device", True)
    there = deciding.decide_refined_where_scored(scores_of(), picture(), 0.4)
    assert used == ["decide_refined", "decide_refined_on_device"]
    assert isinstance(there, DeviceSegmentation)
    assert not isinstance(here, DeviceSegmentation)
    assert there.labels == here.labels
    assert there.label_map.dtype == np.int16
    assert there.confidence.dtype == np.float16
    assert (there.label_map == here.label_map).mean() > 0.9999
