"""Count requests and tasks as Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from backend.feedback.learning.versions import Summary
from backend.inference.engine import Snapshot
from backend.label_studio.image_loader import ImageCacheStats
from backend.telemetry.task_tracker import TaskRecord
from backend.web.metric_collectors import EngineCollector, LearningCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Upper bounds in seconds: a click takes tenths of a second, an image of a batch may wait minutes.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Methods that are a label of their own: clients can invent any number of others.
_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}


class Metrics:
    """Count requests and tasks as they end; read the engine and the database at each scrape.

    Labels take few values: routes as they are declared, classes of errors, stages. Projects and
    tasks are no labels, as their number has no bound; they are in the logs and in ``/status``.

    Args:
        snapshot: reads the state of the inference engine.
        image_cache_stats: reads the cache of images that annotators have open.
        learned: reads what projects have learned.
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
        registry.register(EngineCollector(snapshot, image_cache_stats))
        registry.register(LearningCollector(learned))
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

    def task(self, record: TaskRecord) -> None:
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
