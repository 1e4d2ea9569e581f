"""Prometheus metrics, in a registry of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from backend.errors import ModelUnavailable
from backend.feedback.learning.versions import Summary
from backend.inference.engine import Snapshot
from backend.label_studio.image_loader import ImageCacheStats
from backend.telemetry.task_tracker import TaskRecord

log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Seconds: a click takes tenths of one, a picture of a batch may wait for minutes.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


#: Of others, which anybody may invent, there would be no end.
_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}


class Metrics:
    """Counts requests and tasks as they end, and asks the engine when it is asked itself.

    Labels take few values only: routes as they are declared, classes of errors, stages. Projects
    and tasks are no labels, for there is no end of them; they are in the logs and in ``/status``.

    Args:
        snapshot: what the engine has done and has before it.
        image_cache_stats: the pictures that annotators have open.
        learned: what projects have learned.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        image_cache_stats: Callable[[], ImageCacheStats],
        learned: Callable[[], Summary] = Summary,
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "clearclip_requests",
            "Requests by route, method and HTTP status.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._request_s = Histogram(
            "clearclip_request_seconds",
            "Seconds that a request took.",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._stage_s = Histogram(
            "clearclip_stage_seconds",
            "Seconds that a task spent in a stage; wait is that for the model.",
            ("stage",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._tasks = Counter(
            "clearclip_tasks",
            "Tasks that got a prediction, by who waited.",
            ("urgency",),
            registry=registry,
        )
        self._failures = Counter(
            "clearclip_failures",
            "Tasks that got none, by the class of the error.",
            ("reason",),
            registry=registry,
        )
        registry.register(_EngineCollector(snapshot, image_cache_stats))
        registry.register(_LearningCollector(learned))
        ProcessCollector(registry=registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has been answered; `route` is as declared, never a path from outside."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def task(self, record: TaskRecord) -> None:
        """The work on a task has ended."""
        for stage, seconds in record.stages.items():
            self._stage_s.labels(stage).observe(seconds)
        if record.failed:
            self._failures.labels(record.reason).inc()
        else:
            self._tasks.labels(record.priority).inc()

    def render(self) -> bytes:
        """All of them, as Prometheus reads it; see `CONTENT_TYPE`."""
        text: bytes = generate_latest(self._registry)
        return text


class _EngineCollector(Collector):
    """What the engine counts itself, asked for at each scrape."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], image_cache_stats: Callable[[], ImageCacheStats]
    ) -> None:
        self._snapshot = snapshot
        self._image_cache_stats = image_cache_stats

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would ask the engine for names when it is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of one moment."""
        now = self._snapshot()
        loaded = float(now.status.state == "ready")
        yield _gauge("model_loaded", "Whether the model is loaded.", loaded)
        queue = GaugeMetricFamily(
            "clearclip_queue_pictures",
            "Pictures that wait for the model, or are in it, by who waits.",
            labels=("urgency",),
        )
        for priority, count in now.waiting.items():
            queue.add_metric((priority.word,), count)
        yield queue
        yield _gauge(
            "queue_vocabularies", "Vocabularies that are being embedded.", now.vocabularies
        )
        pictures = CounterMetricFamily(
            "clearclip_pictures", "Pictures that the model was asked for.", labels=("outcome",)
        )
        pictures.add_metric(("done",), now.done)
        pictures.add_metric(("failed",), now.failed)
        yield pictures
        yield _counter("batches", "Batches of windows that were encoded.", now.batches)
        yield _counter("windows", "Windows that were encoded.", now.windows)
        yield from self._caches(now)
        yield from _gpu_memory()

    def _caches(self, now: Snapshot) -> Iterator[Metric]:
        kept = self._image_cache_stats()
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
            ("pictures", kept.hits, kept.misses),
        ):
            hits.add_metric((name,), hit)
            misses.add_metric((name,), miss)
        size.add_metric(("features",), now.cache.bytes)
        size.add_metric(("pictures",), kept.bytes)
        yield from (hits, misses, size)


class _LearningCollector(Collector):
    """What projects have learned, asked for at each scrape; left out where that cannot be read."""

    def __init__(self, learned: Callable[[], Summary]) -> None:
        self._learned = learned

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would ask the database for names when it is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of one moment."""
        try:
            found = self._learned()
        except ModelUnavailable:  # without weights nobody knows whose lessons are meant
            return
        except SQLAlchemyError as error:
            log.warning("What projects have learned cannot be read: %s", error)
            return
        yield _gauge(
            "learned_versions_live", "Projects that predict by what they have learned.", found.live
        )
        yield _gauge(
            "learned_pictures", "Corrected pictures that are learned from.", found.pictures
        )
        newest = found.newest
        if newest is not None and newest.text_iou is not None and newest.adapted_iou is not None:
            ious = GaugeMetricFamily(
                "clearclip_learned_iou",
                "Mean IoU on held-out corrections at the last step of any project.",
                labels=("scores",),
            )
            ious.add_metric(("words",), newest.text_iou)
            ious.add_metric(("learned",), newest.adapted_iou)
            yield ious


def gpu_memory_bytes() -> dict[str, dict[str, int]]:
    """Memory by CUDA device that this process uses: allocated, reserved, free and total.

    Empty where torch has not begun to use CUDA; asking never makes it begin.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    memory = {}
    for index in range(torch.cuda.device_count()):
        allocated = torch.cuda.memory_allocated(index)
        if allocated or torch.cuda.memory_reserved(index):
            free, total = torch.cuda.mem_get_info(index)
            memory[f"cuda:{index}"] = {
                "allocated": allocated,
                "reserved": torch.cuda.memory_reserved(index),
                "free": free,
                "total": total,
            }
    return memory


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
