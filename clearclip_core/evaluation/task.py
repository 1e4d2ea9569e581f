"""What is to be measured: the pictures of a benchmark, and the words that are asked for."""

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
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A benchmark with its data at hand.

    Attributes:
        benchmark: which.
        samples: its pictures; all of them, unless only the first ones are wanted.
        labels: one for each of its classes.
        short_side_px: to which pictures are resized.
        limit: how many of the first pictures are wanted, if not all.
        own_names: whether the words come from a file of one's own.
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
        """Look for the data and read the words; no model is needed yet.

        Args:
            benchmark: which.
            data: folder of the data set.
            names: file of other words, see `read_labels`.
            limit: take only so many pictures.
            short_side_px: see the class.

        Raises:
            ValueError: a folder or a file of names that does not fit the benchmark.
            OSError: the file of names cannot be read.
        """
        classes = benchmark.classes
        labels = read_labels(names, classes) if names else as_labels(classes)
        samples = tuple(find_samples(benchmark, data)[:limit])
        return cls(benchmark, samples, labels, short_side_px, limit, names is not None)

    def preprocessing(self, model: LoadedModel) -> Preprocessing:
        """The benchmark's, at this task's size."""
        return self.benchmark.preprocessing(model, self.short_side_px)

    def segmenter(
        self, model: LoadedModel, method: str | Method, model_dir: Path | None = None
    ) -> Segmenter:
        """A segmenter under the benchmark's settings.

        Args:
            model: a loaded model.
            method: a preset's name, or a `Method`.
            model_dir: where embeddings of words are kept; nowhere without one.
        """
        store = EmbeddingStore.of(model, model_dir)
        return Segmenter(model, method, self.preprocessing(model), store=store)

    def run_config(
        self, model: LoadedModel, method: Method, called: str | None = None
    ) -> RunConfig:
        """All that a result will depend on.

        Args:
            model: a loaded model.
            method: how it is read out.
            called: what stands for the method, where there are many; by default its name.

        Raises:
            LayoutError: a picture or label map that cannot be read.
        """
        sizes = self.preprocessing(model)
        encoder = DenseEncoder(model.clip, method)
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
            precision=_PRECISIONS[str(encoder.dtype).removeprefix("torch.")],
            device=encoder.device.type,
            short_side_px=sizes.short_side_px,
            long_side_px=sizes.long_side_px,
            window_px=sizes.window_px,
            stride_px=sizes.stride_px,
            mean=sizes.mean,
            std=sizes.std,
            threshold=self.benchmark.threshold,
        )


def result_path(config: RunConfig, shard: Shard, folder: Path = Path("results")) -> Path:
    """Where a result lies if nobody says: a name that can be read.

    Args:
        settings: of the run.
        shard: which share of it.
        folder: of all results.
    """
    parts = [config.benchmark, _safe(config.model), config.method]
    if config.short_side_px != SHORT_SIDE_PX:
        parts.append(f"{config.short_side_px}px")
    if shard.of > 1:
        parts.append(f"shard-{shard.index}-of-{shard.of}")
    return folder / f"{'.'.join(parts)}.json"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
