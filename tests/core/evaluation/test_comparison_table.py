"""Tables for the terminal and JSON, of figures that are made up."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from clearclip_core.evaluation.comparison import (
    CandidateFigures,
    Comparison,
    LabelFigures,
    PredictionRule,
)
from clearclip_core.evaluation.comparison_report import comparison_json
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.segmentation.scores import ScoreOptions


def comparison(**more: Any) -> Comparison:
    encoder = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    candidate: Any = SimpleNamespace(
        segmenter=SimpleNamespace(encoder=encoder),
        model="m",
        method="clearclip",
        prompts="words",
        rule=PredictionRule(threshold=(0.0, 0.5)),
        options=ScoreOptions(presence=0.1, join_synonyms=True),
    )
    sky = LabelFigures(MaskOverlap(40, 50, 40, 10, 40), 2, 2, 1)
    figures = CandidateFigures((sky, LabelFigures()), (0.5, 1.5))
    return Comparison(("sky", "car"), (candidate,), (figures,), (), **more)


def test_json_has_all_figures() -> None:
    content = json.loads(comparison_json(comparison(left_out=(("task 1", "It is gone."),))))
    assert content["pictures"] == 2
    assert content["left_out"] == [{"name": "task 1", "reason": "It is gone."}]
    (run,) = content["runs"]
    assert run["thresholds"] == {"sky": 0, "car": 0.5}
    assert (run["presence"], run["synonyms"]) == (0.1, "joined")
    assert (run["miou"], run["saved_paint"]) == (0.8, 0.8)
    assert run["labels"]["car"]["iou"] is None
