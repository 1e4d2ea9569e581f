"""What the dashboard and ``/status`` say of a backend at one moment."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from backend.inference.feature_cache import CacheUse
from backend.label_studio.image_loader import ImageCacheStats
from backend.projects.failures import FailureCount
from backend.views.jobs import Failure, JobView, ProjectFigures, errors_head
from backend.views.text import Colour, Pill, ago, count_with_noun, duration, pace, size
from clearclip_core.quantities import grouped

_URGENCIES: Final = {"interactive": "a click", "opened": "an opened task", "batch": "a batch"}

_STAGES: Final = {
    "": "starting",
    "load": "waiting for the model to load",
    "fetch": "fetching the picture",
    "prepare": "resizing the picture",
    "wait": "waiting for the model",
    "model": "in the model",
    "regions": "proposing regions",
    "decide": "choosing the labels",
    "draw": "drawing the regions",
}

#: State of the model -> what is said of it, in which colour, and before the title of the page.
_STATES: Final[dict[str, tuple[str, Colour, str]]] = {
    "ready": ("Ready", "good", ""),
    "loading": ("Loading the model", "wait", "Loading – "),
    "failed": ("The model could not be loaded", "bad", "Failed – "),
}


class ModelStatus(Struct, frozen=True, kw_only=True):
    """The model that predicts."""

    name: str
    clicks: str  # what answers clicks and boxes, where that is another one
    method: str
    device: str | None
    precision: str | None
    state: str
    reason: str  # why it could not be loaded

    @property
    def pill(self) -> Pill:
        text, colour, _ = _STATES[self.state]
        return Pill(text, colour)

    @property
    def title(self) -> str:
        """The title of the page, which begins with what is wrong."""
        _, _, before = _STATES[self.state]
        return f"{before}ClearCLIP for Label Studio"

    @property
    def details(self) -> list[str]:
        """How it predicts and on what, and what answers clicks in its place."""
        where = f" on {self.device}, {self.precision}" if self.device else ""
        works = f"{self.method}{where}"
        return [works, self.clicks] if self.clicks else [works]


class RunningTask(Struct, frozen=True, kw_only=True):
    """A task that is being worked on."""

    task: int | str | None
    project: int | None
    urgency: str
    seconds: float
    stage: str
    url: str | None

    @property
    def name(self) -> str:
        return "No task number" if self.task is None else f"Task {self.task}"

    @property
    def purpose(self) -> str:
        """Who waits for it."""
        return purpose(self.urgency)

    @property
    def doing(self) -> str:
        """What is done with it now."""
        return _STAGES.get(self.stage, self.stage)


class WaitingTasks(Struct, frozen=True, kw_only=True):
    """How many tasks of a project wait."""

    urgency: str
    project: Hashable  # its number; None where a request does not tell it
    count: int

    @property
    def purpose(self) -> str:
        """Who waits for them."""
        return purpose(self.urgency)


def purpose(urgency: str) -> str:
    """Say what predictions are for, by the word of their priority.

    >>> purpose("opened")
    'an opened task'
    """
    return _URGENCIES.get(urgency, urgency)


class PolledProject(Struct, frozen=True, kw_only=True):
    """A project that is asked for changes."""

    project: int
    url: str | None  # in Label Studio; None where people cannot reach it
    at: float | None  # when it was asked last without an error; None: never
    tasks: int | None  # how many it had then
    trouble: str  # why its changes could not be read; "" where they could


class ConnectionStatus(Struct, frozen=True, kw_only=True):
    """What background threads have found out about Label Studio."""

    trouble: str  # why it cannot be used, as a sentence; "" where it can
    poll_interval_s: float | None  # None: projects are not asked for changes
    polled: tuple[PolledProject, ...]

    @property
    def troubled(self) -> tuple[PolledProject, ...]:
        """Projects whose changes cannot be read; none where Label Studio itself is the trouble."""
        return () if self.trouble else tuple(each for each in self.polled if each.trouble)


class WordsUse(Struct, frozen=True):
    """How often the words of a picture were embedded before it came, and how often not."""

    hits: int
    misses: int


class CachesUse(Struct, frozen=True, kw_only=True):
    """What the caches have spared since the start, and what they hold."""

    features: CacheUse
    words: WordsUse
    pictures: ImageCacheStats

    @property
    def lines(self) -> Mapping[str, str]:
        """Name of each cache -> what is said of it."""
        return {
            "Features": f"{_fill(self.features)}, {_hits(self.features)}",
            "Words": _hits(self.words),
            "Pictures": f"{_fill(self.pictures)}, {_hits(self.pictures)}",
        }


def _fill(cache: CacheUse | ImageCacheStats) -> str:
    return f"{size(cache.bytes)} of {size(cache.limit_bytes)}"


def _hits(cache: CacheUse | WordsUse | ImageCacheStats) -> str:
    misses = count_with_noun(cache.misses, "miss", "misses")
    return f"{count_with_noun(cache.hits, 'hit')}, {misses}"


class DeviceMemory(Struct, frozen=True):
    """Memory of a GPU in bytes."""

    reserved: int  # by this process
    free: int
    total: int

    @property
    def line(self) -> str:
        """What is said of it."""
        return f"{size(self.reserved)} held, {size(self.free)} free of {size(self.total)}"


class Total(NamedTuple):
    """A large figure of the dashboard, and what it counts."""

    figure: str
    what: str
    unit: str = ""
    is_bad: bool = False


class Status(Struct, frozen=True, kw_only=True):
    """A backend at one moment. Times are in seconds since the epoch."""

    at: float
    started_at: float
    label_studio: str | None  # address of Label Studio for browsers; None: not known
    connection: ConnectionStatus
    model: ModelStatus
    waiting: tuple[WaitingTasks, ...]
    vocabularies: int  # sets of labels that wait for the model to embed their words
    running: tuple[RunningTask, ...]
    done: int  # tasks predicted since the start
    remaining: int  # tasks that jobs and others have still to be predicted
    pictures_per_second: float  # in the last minute
    eta_s: float | None  # until the last running job ends; None: not known
    jobs: tuple[JobView, ...]  # the newest ones; those that are not over come first
    jobs_trouble: str  # why the database cannot be read, as a sentence; "" where it can
    served: tuple[ProjectFigures, ...]
    errors: tuple[Failure, ...]  # the last ones first
    failing: FailureCount
    caches: CachesUse
    gpu_memory_bytes: Mapping[str, DeviceMemory]  # by device; empty without one
    versions: Mapping[str, str]  # by package

    MOST_RUNNING = 10  # tasks at work that the dashboard names

    @property
    def is_at_work(self) -> bool:
        """Whether some task is being worked on, or waits."""
        return bool(self.running or self.waiting or self.vocabularies)

    @property
    def more_running(self) -> str:
        """How many tasks are worked on beside those that are named; "" where all are."""
        more = len(self.running) - self.MOST_RUNNING
        return f"and {grouped(more)} more" if more > 0 else ""

    @property
    def errors_head(self) -> str:
        """How many tasks have no prediction."""
        return errors_head(self.failing.tasks, len(self.errors))

    @property
    def totals(self) -> tuple[Total, ...]:
        """The large figures; () where nothing has happened yet."""
        if not (self.served or self.jobs or self.done):
            return ()

        failing = self.failing.tasks
        done = Total(grouped(self.done), f"predicted since the start, {ago(self.started_at)}")
        without = Total(grouped(failing), "without a prediction", is_bad=failing > 0)
        remaining = Total(grouped(self.remaining), "remaining")
        speed = Total(pace(self.pictures_per_second), "in the last minute", unit="pictures/s")
        left = Total(duration(self.eta_s), "until done")
        return done, without, remaining, speed, left
