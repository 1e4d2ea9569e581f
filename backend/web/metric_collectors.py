"""Collect metrics that other parts keep, at each scrape."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from backend.errors import ModelUnavailable
from backend.feedback.learning.versions import Summary, Version
from backend.inference.engine import Snapshot
from backend.label_studio.image_loader import ImageCacheStats
from backend.web.gpu_memory import gpu_memory_bytes

log = logging.getLogger(__name__)


class EngineCollector(Collector):
    """Collect the counts of the inference engine, and the GPU memory.

    Args:
        snapshot: reads the state of the inference engine.
        image_cache_stats: reads the cache of images that annotators have open.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], image_cache_stats: Callable[[], ImageCacheStats]
    ) -> None:
        self._snapshot = snapshot
        self._image_cache_stats = image_cache_stats

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: else the registry would read the engine when it is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Collect all metrics from one snapshot."""
        now = self._snapshot()
        loaded = float(now.status.state == "ready")
        yield _gauge("model_loaded", "Whether the model is loaded.", loaded)
        yield _queue(now)
        yield _gauge(
            "queue_vocabularies", "Vocabularies that are being embedded.", now.vocabularies
        )
        yield _images(now)
        yield _counter("batches", "Batches of windows that were encoded.", now.batches)
        yield _counter("windows", "Windows that were encoded.", now.windows)
        yield from _caches(now, self._image_cache_stats())
        yield from _gpu_memory()


class LearningCollector(Collector):
    """Collect what projects have learned; nothing where the database cannot be read."""

    def __init__(self, learned: Callable[[], Summary]) -> None:
        self._learned = learned

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: else the registry would read the database when it is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Collect all metrics from one summary."""
        try:
            summary = self._learned()
        except ModelUnavailable:  # examples belong to a model, which is unknown without weights
            return
        except SQLAlchemyError as error:
            log.warning("What projects have learned cannot be read: %s", error)
            return
        yield _gauge(
            "learned_versions_live",
            "Projects that predict by what they have learned.",
            summary.live,
        )
        yield _gauge(
            "learned_pictures", "Corrected pictures that are learned from.", summary.pictures
        )
        if summary.newest is not None:
            yield from _learned_iou(summary.newest)


def _queue(now: Snapshot) -> Metric:
    queue = GaugeMetricFamily(
        "clearclip_queue_pictures",
        "Pictures that wait for the model, or are in it, by who waits.",
        labels=("urgency",),
    )
    for priority, count in now.waiting.items():
        queue.add_metric((priority.word,), count)
    return queue


def _images(now: Snapshot) -> Metric:
    images = CounterMetricFamily(
        "clearclip_pictures", "Pictures that the model was asked for.", labels=("outcome",)
    )
    images.add_metric(("done",), now.done)
    images.add_metric(("failed",), now.failed)
    return images


def _caches(now: Snapshot, images: ImageCacheStats) -> Iterator[Metric]:
    hits = CounterMetricFamily(
        "clearclip_cache_hits", "What was there when it was needed.", labels=("cache",)
    )
    misses = CounterMetricFamily(
        "clearclip_cache_misses", "What had to be made or fetched.", labels=("cache",)
    )
    size = GaugeMetricFamily("clearclip_cache_bytes", "What is kept now.", labels=("cache",))
    for name, hit, miss in (
        ("features", now.cache.hits, now.cache.misses),
        ("words", now.words_known, now.words_new),
        ("pictures", images.hits, images.misses),
    ):
        hits.add_metric((name,), hit)
        misses.add_metric((name,), miss)
    size.add_metric(("features",), now.cache.bytes)
    size.add_metric(("pictures",), images.bytes)
    yield from (hits, misses, size)


def _learned_iou(newest: Version) -> Iterator[Metric]:
    if newest.text_iou is None or newest.adapted_iou is None:
        return
    ious = GaugeMetricFamily(
        "clearclip_learned_iou",
        "Mean IoU on held-out corrections at the last step of any project.",
        labels=("scores",),
    )
    ious.add_metric(("words",), newest.text_iou)
    ious.add_metric(("learned",), newest.adapted_iou)
    yield ious


def _gpu_memory() -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "clearclip_gpu_memory_bytes",
        "GPU memory: that of tensors, that which torch holds, and what the device has.",
        labels=("device", "kind"),
    )
    for device, kinds in gpu_memory_bytes().items():
        for kind, count in kinds.items():
            family.add_metric((device, kind), count)
    if family.samples:
        yield family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"clearclip_{name}", about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"clearclip_{name}", about, value=value)
