"""One pass over a data set: count the label maps of all images, resuming an earlier pass."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from clearclip_core.clip.dense_encoder import batches, join_windows
from clearclip_core.clip.encoders import make_encoder
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import Method
from clearclip_core.clip.weights import weights_id
from clearclip_core.evaluation.benchmarks import (
    Benchmark,
    Sample,
    find_samples,
    json_digest,
    read_labels,
)
from clearclip_core.evaluation.metrics import ConfusionMatrix, LabelIndices
from clearclip_core.evaluation.results import (
    RunConfig,
    Tally,
    format_percent,
    load_tallies,
    save_tallies,
)
from clearclip_core.images.label_maps import Truth
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures
from clearclip_core.segmenter import Segmenter
from clearclip_core.thread_pools import read_ahead
from clearclip_core.vocabulary import Label

#: (H, W, 3) uint8 RGB -> one label map a method, computed lazily.
Predict = Callable[[RGBArray], Iterable[LabelIndices]]


_SAVE_EVERY_S = 10.0  # seconds between two checkpoints, which a killed process may lose


@torch.inference_mode()
def shared_features(segmenters: Sequence[Segmenter], rgb: RGBArray) -> Iterator[DenseFeatures]:
    """Yield the features of an image (H, W, 3) for each segmenter; several share one trunk."""
    first = segmenters[0]
    if len(segmenters) == 1:
        yield first.encode(rgb)
        return
    picture = first.prepare(rgb)
    windows = batches(first.windows([picture]), first.windows_at_once)
    tokens = [first.encoder.run_trunk(batch) for batch in windows]
    for segmenter in segmenters:
        parts = [segmenter.encoder.read_out(each, picture.plan.grid_hw) for each in tokens]
        yield DenseFeatures(join_windows(parts).patches, picture.plan)


def _counted(tally: Tally, label_maps: Iterator[LabelIndices], truth: Truth) -> Tally:
    began = time.perf_counter()
    label_map = next(label_maps)
    seconds = time.perf_counter() - began
    counted = ConfusionMatrix.of(truth, label_map, len(tally.confusion.counts))
    both = tally.confusion + counted
    return Tally(both, tally.pictures + 1, tally.seconds + seconds)


def run_through(
    predict: Predict, samples: Sequence[Sample], classes: int, checkpoint: Path, methods: int = 1
) -> tuple[Tally, ...]:
    """Count a data set to its end with a progress bar, resuming from a checkpoint.

    The bar shows the mIoU of the last method so far. The checkpoint stays; the caller removes it
    after the result is written.

    Args:
        predict: returns one label map for each of `methods`.
        checkpoint: file to resume from and to write, see `checkpoint_path`.
    """
    tallies = load_tallies(checkpoint) or (Tally(ConfusionMatrix.empty(classes)),) * methods
    saved_at, saved = time.monotonic(), tallies[0].pictures
    left = samples[saved:]
    with tqdm(total=len(samples), initial=saved, unit="picture") as bar:
        try:
            for rgb, truth in read_ahead(lambda sample: sample.read(), left):
                label_maps = iter(predict(rgb))
                tallies = tuple(_counted(tally, label_maps, truth) for tally in tallies)
                percent = format_percent(tallies[-1].confusion.mean_iou)
                bar.set_postfix_str(f"mIoU {percent}", False)
                bar.update()
                if time.monotonic() - saved_at >= _SAVE_EVERY_S:
                    save_tallies(checkpoint, tallies)
                    saved_at, saved = time.monotonic(), tallies[0].pictures
        finally:
            if tallies[0].pictures != saved:
                save_tallies(checkpoint, tallies)
    return tallies


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A benchmark with its samples and labels."""

    benchmark: Benchmark
    samples: tuple[Sample, ...]  # its images, up to `limit`
    labels: tuple[Label, ...]
    limit: int | None = None  # limit of the number of images; None without a limit
    own_names: bool = False  # whether the class names come from a file of the user

    @classmethod
    def of(
        cls,
        benchmark: Benchmark,
        data: Path | None,
        names: Path | None = None,
        limit: int | None = None,
    ) -> "EvaluationTask":
        """Find the data and read the class names; needs no model.

        Args:
            data: folder of the data set; None for the drawn scenes.
            names: file of other class names, see `read_labels`.
        """
        classes = benchmark.classes
        labels = read_labels(names, classes) if names else tuple(map(Label, classes))
        samples = tuple(find_samples(benchmark, data)[:limit])
        return cls(benchmark, samples, labels, limit, names is not None)

    def segmenter(self, model: LoadedModel, method: str | Method) -> Segmenter:
        """Return a segmenter of a method with the benchmark's preprocessing."""
        return Segmenter(model, method, self.benchmark.preprocessing(model))

    def predictor(self, segmenters: Sequence[Segmenter]) -> Predict:
        """Return the function that predicts the class indices of each segmenter, lazily.

        The words are embedded here, once: no image's time includes it.

        Args:
            segmenters: of one model; several must have methods that read out the last block only.
        """
        vocabulary = segmenters[0].vocabulary(self.labels)
        embeddings = segmenters[0].embed(vocabulary.queries)

        @torch.inference_mode()
        def predict(rgb: RGBArray) -> Iterator[LabelIndices]:
            for features in shared_features(segmenters, rgb):
                scores = Scores.of(features, embeddings, vocabulary)
                scores = replace(scores, temperature=self.benchmark.temperature)
                yield self.benchmark.decision(scores.label_map(self.benchmark.threshold))

        return predict

    def run_config(
        self, model: LoadedModel, method: Method, called: str | None = None
    ) -> RunConfig:
        """Return the configuration of a run.

        Args:
            called: name in place of the method's, for runs of several methods.
        """
        encoder = make_encoder(model.clip, method, model.sink_channels)
        benchmark = self.benchmark
        words = [[label.name, *label.prompts] for label in self.labels]

        return RunConfig(
            benchmark=benchmark.name,
            pictures=len(self.samples),
            limit=self.limit,
            pictures_digest=json_digest([sample.digest for sample in self.samples]),
            own_names=self.own_names,
            queries_digest=json_digest(words),
            model=model.name,
            weights=weights_id(model.name),
            method=called or str(method),
            precision=encoder.precision,
            device=encoder.device.type,
            sizes=benchmark.preprocessing(model),
            threshold=benchmark.threshold,
            temperature=benchmark.temperature,
            least_share=benchmark.least_share,
        )
