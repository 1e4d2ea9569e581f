"""The ablation of Tab. 1 and Figs. 5-6 of the paper: several methods on one benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from clearclip_core.clip.batching import batches, join_windows
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import Method
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS, Benchmark
from clearclip_core.evaluation.results import NOT_A_RESULT, Tally, dump, versions, why_not
from clearclip_core.evaluation.run_config import RunConfig
from clearclip_core.evaluation.runner import LabelMap, Predict
from clearclip_core.evaluation.task import EvaluationTask
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.paper.published_results import ALPHAS, ATTENTIONS, TABLE_1
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures
from clearclip_core.segmenter import Segmenter

#: With and without residual connection and FFN, in the order of Tab. 1.
COMBINATIONS = ((True, True), (True, False), (False, True), (False, False))

#: Study of the paper -> its methods. In Fig. 6 the FFN stays, as in Eqs. 2-3; the paper does not
#: say whether it does.
STUDIES: Mapping[str, tuple[Method, ...]] = MappingProxyType(
    {
        "table1": tuple(TABLE_1),
        "figure5": tuple(
            Method(attention, residual, ffn)
            for attention in ATTENTIONS
            for residual, ffn in COMBINATIONS
        ),
        "figure6": tuple(
            Method(attention, residual=True, ffn=True, alpha=alpha)
            for attention in ATTENTIONS
            for alpha in ALPHAS
        ),
    }
)


def methods_of(studies: Iterable[str]) -> list[Method]:
    """Return the methods of several studies, each once.

    >>> len(methods_of(["table1"])), len(methods_of(STUDIES))
    (4, 45)
    """
    return list(dict.fromkeys(method for study in studies for method in STUDIES[study]))


@dataclass(frozen=True)
class Score:
    """Measures of one method, in [0, 1]."""

    miou: float
    pixel_accuracy: float


@dataclass(frozen=True, eq=False)
class Ablation:
    """Scores of several methods of one model on one benchmark.

    Attributes:
        config: configuration of the run; its ``method`` is a placeholder.
        scores: method -> its measures.
        versions: versions of the packages that may change a result.
        hardware: name of the graphics card or CPU.
    """

    config: RunConfig
    scores: Mapping[Method, Score]
    versions: Mapping[str, str]
    hardware: str

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark of the run."""
        return BENCHMARKS[self.config.benchmark]

    @classmethod
    def of(
        cls,
        config: RunConfig,
        methods: Sequence[Method],
        tallies: Sequence[Tally],
        hardware: str,
    ) -> Ablation:
        """Make an ablation of the tally of each method."""
        scores = {
            method: Score(tally.confusion.mean_iou, tally.confusion.pixel_accuracy)
            for method, tally in zip(methods, tallies, strict=True)
        }
        return cls(config, scores, versions(), hardware)

    def with_scores_of(self, earlier: Ablation) -> Ablation:
        """Return an ablation with the scores of both; these replace earlier ones.

        Raises:
            ValueError: the earlier scores are of other versions.
        """
        if earlier.versions != self.versions:
            raise ValueError(
                f"Expected readouts of the same versions, but got {dict(earlier.versions)} and "
                f"{dict(self.versions)}."
            )
        return Ablation(
            self.config, {**earlier.scores, **self.scores}, self.versions, self.hardware
        )

    def write(self, path: Path) -> None:
        """Write a JSON file atomically."""
        rows = {str(method): _row(method, score) for method, score in self.scores.items()}
        content = {
            "readouts": rows,
            "settings": self.config.to_json(),
            "versions": dict(self.versions),
            "hardware": self.hardware,
        }
        write_whole(path, dump(content))

    @classmethod
    def read(cls, path: Path) -> Ablation:
        """Read a JSON file.

        Raises:
            ValueError: the file is not an ablation of `clearclip ablate`.
            OSError: the file cannot be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = {
                Method(row["attention"], row["residual"], row["ffn"], row["alpha"]): Score(
                    row["miou"], row["pixel_accuracy"]
                )
                for row in content["readouts"].values()
            }
            config = RunConfig.from_json(content["settings"])
            return cls(config, scores, content["versions"], content["hardware"])
        except NOT_A_RESULT as error:
            raise ValueError(
                f"Expected {path} to be written by `clearclip ablate`, but it is not: "
                f"{why_not(error)}."
            ) from error


def readouts(
    task: EvaluationTask,
    model: LoadedModel,
    methods: Sequence[Method],
    model_dir: Path | None = None,
) -> Predict:
    """Return the function that predicts the label maps of several methods.

    All blocks but the last run once an image.

    Args:
        task: the benchmark with its samples.
        model: the model.
        methods: methods that change the last block only.
        model_dir: folder of the text embedding cache; None for no cache.
    """
    segmenters = [task.segmenter(model, method, model_dir) for method in methods]
    first = segmenters[0]
    words = first.vocabulary(task.labels)
    embeddings = first.embed(words.queries)

    @torch.inference_mode()
    def predict(rgb: RGBArray) -> Iterator[LabelMap]:
        for features in shared_features(segmenters, rgb):
            scores = Scores.of(features, embeddings, words)
            yield task.benchmark.decision(scores.label_map(task.benchmark.threshold))

    return predict


@torch.inference_mode()
def shared_features(segmenters: Sequence[Segmenter], rgb: RGBArray) -> Iterator[DenseFeatures]:
    """Yield the features of an image for each segmenter; the trunk runs once.

    Args:
        segmenters: segmenters of one model and preprocessing, whose methods change the last block
            only.
        rgb: (H, W, 3) uint8 RGB.
    """
    first = segmenters[0]
    encoder, picture = first.encoder, first.prepare(rgb)
    precise = torch.promote_types(encoder.dtype, torch.float32)
    pixels = first.preprocessing.normalize(picture.resized, encoder.device, precise)
    windows = batches(picture.plan.cut(pixels.to(encoder.dtype)), first.windows_at_once)
    tokens = [encoder.run_trunk(batch) for batch in windows]
    for segmenter in segmenters:
        parts = [segmenter.encoder.read_out(each, picture.plan.grid_hw) for each in tokens]
        yield DenseFeatures(join_windows(parts).patches, picture.plan)


def _row(method: Method, score: Score) -> dict[str, Any]:
    """Return a method and its measures as JSON, as `Ablation.read` expects them."""
    return {
        "attention": method.attention,
        "residual": method.residual,
        "ffn": method.ffn,
        "alpha": method.alpha,
        "miou": score.miou,
        "pixel_accuracy": score.pixel_accuracy,
    }
