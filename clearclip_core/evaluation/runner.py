"""One pass over a data set: count the label maps of all images, resuming an earlier pass."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import Method
from clearclip_core.clip.text_encoder import EmbeddingStore
from clearclip_core.clip.weights import weights_id
from clearclip_core.evaluation.benchmarks import (
    SHORT_SIDE_PX,
    WHOLE_PX,
    Benchmark,
    Sample,
    as_labels,
    find_samples,
    json_digest,
    read_labels,
)
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.evaluation.results import Checkpoint, RunConfig, Tally, format_percent
from clearclip_core.images.label_maps import Truth
from clearclip_core.images.preprocessing import Preprocessing, RGBArray
from clearclip_core.segmentation.scores import Scores, TextSide, group_words, score_with_text_side
from clearclip_core.segmenter import Labels, Segmenter
from clearclip_core.thread_pools import read_ahead
from clearclip_core.vocabulary import Label, Vocabulary

LabelIndices = npt.NDArray[np.int16]
#: (H, W, 3) uint8 RGB -> one label map a method, computed lazily.
Predict = Callable[[RGBArray], Iterable[LabelIndices]]


#: Seconds between two checkpoints, which a killed process may lose.
_SAVE_EVERY_S = 10.0


def predictor(segmenter: Segmenter, benchmark: Benchmark, labels: Labels) -> Predict:
    """Return the function that predicts class indices of a benchmark with a segmenter.

    The words are embedded here, once: no image's time includes it.
    """
    vocabulary = segmenter.vocabulary(labels)
    embeddings = segmenter.embed(vocabulary.queries)
    side = benchmark.text_side
    follow = None if side is None else _text_side_scorer(segmenter, embeddings, vocabulary, side)

    @torch.inference_mode()
    def predict(rgb: RGBArray) -> Iterable[LabelIndices]:
        scores = follow(rgb) if follow else Scores.of(segmenter.encode(rgb), embeddings, vocabulary)
        if benchmark.temperature != scores.temperature:
            scores = replace(scores, temperature=benchmark.temperature)
        yield benchmark.decision(scores.label_map(benchmark.threshold))

    return predict


def _text_side_scorer(
    segmenter: Segmenter, embeddings: torch.Tensor, vocabulary: Vocabulary, side: TextSide
) -> Callable[[RGBArray], Scores]:
    """Return the function that scores an image against words that follow it.

    The CLS feature of the whole image takes one more pass over it, as one window.
    """
    groups = group_words(embeddings, side.distance)
    sizes = replace(segmenter.preprocessing, window_px=WHOLE_PX, stride_px=WHOLE_PX)
    whole = Segmenter(segmenter.model, segmenter.method, sizes, windows_at_once=1)

    def score(rgb: RGBArray) -> Scores:
        features = segmenter.encode(rgb, with_cls=True)
        picture_cls = None
        if not side.by_window:
            one = features if features.plan.count == 1 else whole.encode(rgb, with_cls=True)
            picture_cls = one.image_cls
        return score_with_text_side(features, picture_cls, embeddings, vocabulary, groups, side)

    return score


def tallies_of(
    predict: Predict, samples: Sequence[Sample], start: Sequence[Tally]
) -> Iterator[tuple[Tally, ...]]:
    """Count the images that are not counted yet, one by one and in order.

    Args:
        predict: returns one label map for each of `start`.
        samples: all images, including those of `start`.

    Yields:
        The tallies after each image.
    """
    tallies = tuple(start)
    left = samples[tallies[0].pictures :]
    for rgb, truth in read_ahead(lambda sample: sample.read(), left):
        label_maps = iter(predict(rgb))
        tallies = tuple(_counted(tally, label_maps, truth) for tally in tallies)
        yield tallies


def _counted(tally: Tally, label_maps: Iterator[LabelIndices], truth: Truth) -> Tally:
    began = time.perf_counter()
    label_map = next(label_maps)
    seconds = time.perf_counter() - began
    counted = ConfusionMatrix.of(truth, label_map, len(tally.confusion.counts))
    both = ConfusionMatrix.sum([tally.confusion, counted])
    return Tally(both, tally.pictures + 1, tally.seconds + seconds)


def run_through(
    predict: Predict,
    samples: Sequence[Sample],
    classes: int,
    checkpoint: Checkpoint,
    methods: int = 1,
) -> tuple[Tally, ...]:
    """Count a data set to its end with a progress bar, resuming from a checkpoint.

    The bar shows the mIoU of the last method so far. The checkpoint stays; the caller removes it
    after the result is written.

    Args:
        checkpoint: the checkpoint to resume from and to write.
        methods: number of label maps that `predict` returns.
    """
    start = checkpoint.load(methods) or (Tally(ConfusionMatrix.empty(classes)),) * methods
    tallies, saved_at, saved = start, time.monotonic(), start[0].pictures
    bar = tqdm(total=len(samples), initial=saved, unit="picture")
    try:
        for tallies in tallies_of(predict, samples, start):
            bar.set_postfix_str(
                f"mIoU {format_percent(tallies[-1].confusion.mean_iou).strip()}", False
            )
            bar.update()
            if time.monotonic() - saved_at >= _SAVE_EVERY_S:
                checkpoint.save(tallies)
                saved_at, saved = time.monotonic(), tallies[0].pictures
    finally:
        bar.close()
        if tallies[0].pictures != saved:
            checkpoint.save(tallies)
    return tallies


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A benchmark with its samples and labels.

    Attributes:
        samples: its images, up to `limit`.
        limit: limit of the number of images; None without a limit.
        own_names: whether the class names come from a file of the user.
    """

    benchmark: Benchmark
    samples: tuple[Sample, ...]
    labels: tuple[Label, ...]
    short_side_px: int = SHORT_SIDE_PX
    limit: int | None = None
    own_names: bool = False

    @classmethod
    def of(
        cls,
        benchmark: Benchmark,
        data: Path | None,
        names: Path | None = None,
        limit: int | None = None,
        short_side_px: int = SHORT_SIDE_PX,
    ) -> EvaluationTask:
        """Find the data and read the class names; needs no model.

        Args:
            data: folder of the data set; None for the drawn scenes.
            names: file of other class names, see `read_labels`.
        """
        classes = benchmark.classes
        labels = read_labels(names, classes) if names else as_labels(classes)
        samples = tuple(find_samples(benchmark, data)[:limit])
        return cls(benchmark, samples, labels, short_side_px, limit, names is not None)

    def preprocessing(self, model: LoadedModel) -> Preprocessing:
        """Return the benchmark's preprocessing at this task's size."""
        return self.benchmark.preprocessing(model, self.short_side_px)

    def segmenter(
        self, model: LoadedModel, method: str | Method, model_dir: Path | None = None
    ) -> Segmenter:
        """Return a segmenter with the benchmark's preprocessing.

        Args:
            method: name of a preset, or a `Method`.
            model_dir: folder of the text embedding cache; None for no cache.
        """
        store = EmbeddingStore.of(model, model_dir)
        return Segmenter(model, method, self.preprocessing(model), store=store)

    def run_config(
        self, model: LoadedModel, method: Method, called: str | None = None
    ) -> RunConfig:
        """Return the configuration of a run.

        Args:
            called: name in place of the method's, for runs of several methods.
        """
        sizes = self.preprocessing(model)
        encoder = DenseEncoder(model.clip, method, model.sink_channels)
        return RunConfig(
            benchmark=self.benchmark.name,
            pictures=len(self.samples),
            limit=self.limit,
            pictures_digest=json_digest([sample.digest for sample in self.samples]),
            own_names=self.own_names,
            queries_digest=json_digest([[label.name, *label.prompts] for label in self.labels]),
            model=model.name,
            weights=weights_id(model.name),
            method=called or str(method),
            precision=encoder.precision,
            device=encoder.device.type,
            short_side_px=sizes.short_side_px,
            long_side_px=sizes.long_side_px,
            window_px=sizes.window_px,
            stride_px=sizes.stride_px,
            mean=sizes.mean,
            std=sizes.std,
            threshold=self.benchmark.threshold,
            temperature=self.benchmark.temperature,
            least_share=self.benchmark.least_share,
            text_side=_numbers(self.benchmark.text_side),
        )


def result_path(config: RunConfig, folder: Path = Path("results")) -> Path:
    """Return the default path of a run's result file in a folder."""
    parts = [config.benchmark, _safe(config.model), config.method]
    if config.short_side_px != SHORT_SIDE_PX:
        parts.append(f"{config.short_side_px}px")
    return folder / f"{'.'.join(parts)}.json"


def _numbers(side: TextSide | None) -> tuple[float, float, float] | None:
    return None if side is None else (side.presence, side.mixed, side.distance)


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
