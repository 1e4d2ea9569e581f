"""Settings and results that no model has to be run for."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace

from clearclip_core import Method
from clearclip_core.evaluation.benchmarks import BENCHMARKS
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.evaluation.results import RunConfig, RunResult, Tally
from clearclip_core.paper.tables import Ablation, Score

CONFIG = RunConfig(
    benchmark="voc20",
    pictures=9,
    limit=None,
    own_names=False,
    pictures_digest="a",
    queries_digest="b",
    model="ViT-B-16/openai",
    weights="demo-1",
    method="clearclip",
    precision="fp16",
    device="cuda",
    short_side_px=448,
    long_side_px=2048,
    window_px=448,
    stride_px=224,
    mean=(1.5, 2.0, 3.0),
    std=(4.0, 5.0, 6.0),
    threshold=0.0,
    temperature=50.0,
    least_share=0.0,
    text_side=None,
)


def result(
    benchmark: str,
    percent: int,
    method: str = "clearclip",
    **other: Any,
) -> RunResult:
    """A result whose mIoU is so many percent.

    The first two classes are each other's mistakes: with h hits and m misses either way the IoU of
    both is h / (h + 2m), here p / 100 of h = 2p and m = 100 - p. All other classes have none.
    """
    counts = np.zeros((len(BENCHMARKS[benchmark].classes),) * 2, np.int64)
    counts[:2, :2] = [[2 * percent, 100 - percent], [100 - percent, 2 * percent]]
    config = replace(CONFIG, benchmark=benchmark, method=method, **other)
    return RunResult.of(config, Tally(ConfusionMatrix(counts), 9, 4.5), "a card")


def ablation(benchmark: str, miou: dict[Method, float], **other: Any) -> Ablation:
    """An ablation with the shares given."""
    config = replace(CONFIG, benchmark=benchmark, method="ablation", **other)
    readouts = {str(method): Score(share, share / 2) for method, share in miou.items()}
    return Ablation(readouts, config, {"torch": "2"}, "a card")
