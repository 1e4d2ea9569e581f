"""Count requests and tasks as Prometheus metrics, in a registry of their own."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import version

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from backend.errors import (
    BackendError,
    ModelUnavailable,
    StudioBusy,
    StudioUnreachable,
    TaskError,
)
from backend.services import Services
from backend.telemetry.task_tracker import TrackedTask

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Upper bounds in seconds: a click takes tenths of a second, an image of a batch may wait minutes.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Methods that are a label of their own: clients can invent any number of others.
_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}


class Metrics:
    """Count requests and tasks as they end; read engine and database at each scrape.

    Labels take few values: routes as they are declared, classes of errors, stages. Projects and
    tasks are no labels, as their number has no bound; they are in the logs and in ``/status``.
    """

    def __init__(self, services: Services) -> None:
        self._registry = registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_BUCKETS)

        told = "Requests by route, method and HTTP status."
        self._requests = counter("clearclip_requests", told, ("route", "method", "status"))
        told = "Seconds that a request took, of one for predictions also by who waits."
        self._request_s = histogram("clearclip_request_seconds", told, ("route", "urgency"))
        told = "Seconds that a task spent in a stage; wait is that for the model."
        self._stage_s = histogram("clearclip_stage_seconds", told, ("stage",))
        told = "Tasks that got a prediction, by who waited."
        self._tasks = counter("clearclip_tasks", told, ("urgency",))

        told = "Tasks that got none, by the class of the error."
        self._failures = counter("clearclip_failures", told, ("reason",))

        expected: list[type[BackendError]] = [ModelUnavailable, StudioUnreachable, StudioBusy]
        for error in (*expected, *TaskError.__subclasses__()):
            self._failures.labels(error.__name__)  # from 0 on: else an increase lacks the first

        told = "What runs here: the package's version, the model and the method."
        build = Info("clearclip_build", told, registry=registry)
        build.info(
            {
                "version": version("clearclip-label-studio"),
                "model": services.settings.encoders,
                "method": services.settings.method,
            }
        )

        registry.register(StateCollector(services))
        ProcessCollector(registry=registry)

    def request(
        self, route: str, method: str, status: int, seconds: float, urgency: str = ""
    ) -> None:
        """Count an answered request by its route as declared, or "other"; never by its path."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._request_s.labels(route, urgency).observe(seconds)

    def task(self, work: TrackedTask) -> None:
        """Count a task whose work has ended."""
        for stage, seconds in work.stages.seconds.items():
            self._stage_s.labels(stage).observe(seconds)
        if work.has_prediction:
            self._tasks.labels(work.priority).inc()
        else:
            self._failures.labels(type(work.error).__name__).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format; see `CONTENT_TYPE`."""
        text: bytes = generate_latest(self._registry)
        return text


class StateCollector(Collector):
    """Collect the state of the model, its queue, caches, GPU memory, Label Studio and jobs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: else the registry would read all of it when this is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        now, pictures = self._services.engine.snapshot(), self._services.images.cache_stats
        loaded = float(now.status.state == "ready")
        yield GaugeMetricFamily("clearclip_model_loaded", "Whether the model is loaded.", loaded)

        queue = GaugeMetricFamily(
            "clearclip_queue_pictures",
            "Pictures that wait for the model, or are in it, by kind of request.",
            labels=("urgency",),
        )
        for priority, count in now.waiting.items():
            queue.add_metric((priority.word,), count)

        hits = CounterMetricFamily(
            "clearclip_cache_hits", "What was there when it was needed.", labels=("cache",)
        )
        misses = CounterMetricFamily(
            "clearclip_cache_misses", "What had to be made or fetched.", labels=("cache",)
        )
        for name, hit, miss in (
            ("features", now.cache.hits, now.cache.misses),
            ("words", now.words_known, now.words_new),
            ("pictures", pictures.hits, pictures.misses),
        ):
            hits.add_metric((name,), hit)
            misses.add_metric((name,), miss)

        memory = GaugeMetricFamily(
            "clearclip_gpu_memory_bytes",
            "GPU memory: that which torch holds, and what the device has.",
            labels=("device", "kind"),
        )
        for device, kinds in gpu_memory_bytes().items():
            for kind, n_bytes in kinds.items():
                memory.add_metric((device, kind), n_bytes)

        yield from (queue, hits, misses, memory)
        if self._services.client is not None:
            told = "Whether Label Studio answered, and took the token, when it was tried last."
            up = float(not self._services.connection_watch.trouble)
            yield GaugeMetricFamily("clearclip_label_studio_up", told, up)
        with suppress(SQLAlchemyError):  # what is in memory is still told
            yield from self._collect_stored()

    def _collect_stored(self) -> Iterator[Metric]:
        """Collect what the database holds: jobs, and when projects were asked for changes."""
        jobs = GaugeMetricFamily("clearclip_jobs", "Jobs by state.", labels=("state",))
        for state, count in self._services.store.count_states().items():
            jobs.add_metric((state,), count)
        yield jobs
        polls = self._services.change_poller.polls
        told = "Seconds since the last poll of the project whose last poll is the oldest."
        times = [poll.polled for poll in polls.list_polls() if poll.polled]
        if times:
            yield GaugeMetricFamily("clearclip_poll_age_seconds", told, polls.now - min(times))


def gpu_memory_bytes() -> dict[str, dict[str, int]]:
    """Return memory by CUDA device that this process uses: reserved, free and total.

    The result is empty where torch has not begun to use CUDA; asking does not initialize CUDA.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    # `mem_get_info` would make an idle device busy.
    reserved = {i: torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count())}
    found = {}
    for device, n_bytes in reserved.items():
        if n_bytes:
            free, total = torch.cuda.mem_get_info(device)
            found[f"cuda:{device}"] = {"reserved": n_bytes, "free": free, "total": total}
    return found
