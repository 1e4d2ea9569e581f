"""Settings and results that no model has to be run for."""

from typing import Any

import numpy as np
from msgspec.structs import replace

from clearclip_core import Method
from clearclip_core.evaluation.benchmarks import BENCHMARKS
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.evaluation.results import RunConfig, RunResult, Tally
from clearclip_core.images.preprocessing import Preprocessing

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
    sizes=Preprocessing(mean=(1.5, 2.0, 3.0), std=(4.0, 5.0, 6.0)),
    threshold=0.0,
    temperature=50.0,
    least_share=0.0,
)


def result(
    benchmark: str, percent: float, method: Method | str = "clearclip", **other: Any
) -> RunResult:
    """A result whose mIoU is so many percent.

    The first two classes are each other's mistakes: with h hits and m misses either way the IoU of
    both is h / (h + 2m), here p / 100 of h = 2p and m = 100 - p. All other classes have none.
    """
    counts = np.zeros((len(BENCHMARKS[benchmark].classes),) * 2, np.int64)
    hits, misses = round(200 * percent), round(100 * (100 - percent))
    counts[:2, :2] = [[hits, misses], [misses, hits]]
    config = replace(CONFIG, benchmark=benchmark, method=str(method), **other)
    return RunResult.of(config, Tally(ConfusionMatrix(counts), 9, 4.5), "a card")


def results(benchmark: str, percents: dict[Method, float], **other: Any) -> list[RunResult]:
    return [result(benchmark, each, method, **other) for method, each in percents.items()]
