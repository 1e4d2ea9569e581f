"""Count requests and tasks as Prometheus metrics, in a registry of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from backend.errors import ModelUnavailable
from backend.inference.engine import Snapshot
from backend.label_studio.image_loader import ImageCacheStats
from backend.learning.versions import Summary
from backend.services import Services
from backend.telemetry.task_tracker import HandledTask

log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Upper bounds in seconds: a click takes tenths of a second, an image of a batch may wait minutes.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Methods that are a label of their own: clients can invent any number of others.
_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}


class Metrics:
    """Count requests and tasks as they end; read the engine and the database at each scrape.

    Labels take few values: routes as they are declared, classes of errors, stages. Projects and
    tasks are no labels, as their number has no bound; they are in the logs and in ``/status``.
    """

    def __init__(self, services: Services) -> None:
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
        registry.register(StateCollector(services))
        ProcessCollector(registry=registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has been answered.

        Args:
            route: the route as it is declared, or "other"; never the path that a client sent.
            method: the HTTP method.
            status: the HTTP status.
            seconds: how long the request took.
        """
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def task(self, record: HandledTask) -> None:
        """Count a task whose work has ended."""
        for stage, seconds in record.stages.items():
            self._stage_s.labels(stage).observe(seconds)
        if record.failed:
            self._failures.labels(record.reason).inc()
        else:
            self._tasks.labels(record.priority).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format; see `CONTENT_TYPE`."""
        text: bytes = generate_latest(self._registry)
        return text


class StateCollector(Collector):
    """Collect what the engine counts, the GPU memory, and what projects have learned."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: else the registry would read all of it when this is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Collect all metrics of one moment."""
        now = self._services.engine.snapshot()
        loaded = float(now.status.state == "ready")
        yield _gauge("model_loaded", "Whether the model is loaded.", loaded)
        yield _queue(now)
        yield _gauge(
            "queue_vocabularies", "Vocabularies that are being embedded.", now.vocabularies
        )
        yield _images(now)
        yield _counter("batches", "Batches of windows that were encoded.", now.batches)
        yield _counter("windows", "Windows that were encoded.", now.windows)
        yield from _caches(now, self._services.images.cache_stats)
        yield from _gpu_memory()
        try:
            yield from _learned(self._services.versions.summary())
        except ModelUnavailable:  # examples belong to a model, which is unknown without weights
            return
        except SQLAlchemyError as error:
            log.warning("What projects have learned cannot be read: %s", error)


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


def _learned(summary: Summary) -> Iterator[Metric]:
    about = "Projects that predict by what they have learned."
    yield _gauge("learned_versions_live", about, summary.live)
    about = "Corrected pictures that are learned from."
    yield _gauge("learned_pictures", about, summary.pictures)
    if summary.newest is not None:
        ious = GaugeMetricFamily(
            "clearclip_learned_iou",
            "Mean IoU on held-out corrections at the last step of any project.",
            labels=("scores",),
        )
        ious.add_metric(("words",), summary.newest.text_iou)
        ious.add_metric(("learned",), summary.newest.adapted_iou)
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


def gpu_memory_bytes() -> dict[str, dict[str, int]]:
    """Return memory by CUDA device that this process uses: allocated, reserved, free and total.

    The result is empty where torch has not begun to use CUDA; asking does not initialize CUDA.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    return {f"cuda:{i}": _memory(i) for i in range(torch.cuda.device_count()) if _is_used(i)}


def _is_used(device: int) -> bool:
    """Tell whether torch has taken memory there: `mem_get_info` would make an idle device busy."""
    return bool(torch.cuda.memory_allocated(device) or torch.cuda.memory_reserved(device))


def _memory(device: int) -> dict[str, int]:
    free, total = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "free": free,
        "total": total,
    }
