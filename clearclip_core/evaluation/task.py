"""An evaluation task: a benchmark with its samples and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import Method
from clearclip_core.clip.weights import weights_id
from clearclip_core.evaluation.datasets.benchmarks import SHORT_SIDE_PX, Benchmark
from clearclip_core.evaluation.datasets.class_names import as_labels, read_labels
from clearclip_core.evaluation.datasets.samples import Sample, find_samples
from clearclip_core.evaluation.results import Shard
from clearclip_core.evaluation.run_config import RunConfig, digest_of
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.scores import TextSide
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A benchmark with its samples and labels.

    Attributes:
        benchmark: the benchmark.
        samples: its images, up to `limit`.
        labels: one label for each class.
        short_side_px: short side of resized images.
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
            benchmark: the benchmark.
            data: folder of the data set; None for the drawn scenes.
            names: file of other class names, see `read_labels`.
            limit: limit of the number of images.
            short_side_px: short side of resized images.

        Raises:
            ValueError: a folder or a file of names that does not fit the benchmark.
            OSError: the file of names cannot be read.
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
            model: a loaded model.
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
            model: a loaded model.
            method: the method.
            called: name in place of the method's, for runs of several methods.

        Raises:
            LayoutError: an image or label map cannot be read.
        """
        sizes = self.preprocessing(model)
        encoder = DenseEncoder(model.clip, method, model.sink_channels)
        return RunConfig(
            benchmark=self.benchmark.name,
            pictures=len(self.samples),
            limit=self.limit,
            pictures_digest=digest_of([sample.digest for sample in self.samples]),
            own_names=self.own_names,
            queries_digest=digest_of([[label.name, *label.prompts] for label in self.labels]),
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


def result_path(config: RunConfig, shard: Shard, folder: Path = Path("results")) -> Path:
    """Return the default path of a result file.

    Args:
        config: configuration of the run.
        shard: the share of the images.
        folder: folder of the results.
    """
    parts = [config.benchmark, _safe(config.model), config.method]
    if config.short_side_px != SHORT_SIDE_PX:
        parts.append(f"{config.short_side_px}px")
    if shard.of > 1:
        parts.append(f"shard-{shard.index}-of-{shard.of}")
    return folder / f"{'.'.join(parts)}.json"


def _numbers(side: TextSide | None) -> tuple[float, float, float] | None:
    return None if side is None else (side.presence, side.mixed, side.distance)


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
