"""A run over a project: what was asked for, and how a kind of run makes a report of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from backend.database.database import Database
    from backend.inference.engine import Engine
    from backend.label_studio.client import LabelStudioClient
    from backend.label_studio.image_loader import ImageReader
    from backend.learning.examples import ExampleStore
    from backend.learning.versions import VersionStore
    from backend.settings import Settings

RunState = Literal["queued", "running", "done", "failed", "cancelled"]

OVER: Final = ("done", "failed", "cancelled")  # states in which nothing more happens

#: The most that is asked for at once; here, where a command's help loads no torch.
MOST_WORD_IMAGES: Final = 24

MOST_LEFT_OUT: Final = 100  # the most tasks of which a report says why they were left out

Asked = TypeVar("Asked", bound=msgspec.Struct)
Report = TypeVar("Report", bound=msgspec.Struct)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are in seconds since the epoch."""

    id: int  # its number; 0 for a run of a command, until it is kept
    kind: str
    project: int
    asked: dict[str, Any]  # what was asked for, as JSON
    state: RunState = "queued"  # "running" once a backend works on it; at the end one of `OVER`
    done: int = 0
    total: int | None = None  # steps in all; None where that is not known
    reason: str = ""
    created: float = 0.0
    finished: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in OVER


class AskedNothing(msgspec.Struct, frozen=True):
    """What is asked of a kind without choices."""


class Progress(Protocol):
    """Is told of steps that are done; what it raises ends the run."""

    def __call__(self, done: int, total: int | None) -> None:
        """Record progress: steps done, of how many."""


@dataclass(frozen=True, eq=False)
class RunParts:
    """What reports are made with."""

    client: LabelStudioClient
    images: ImageReader
    engine: Engine
    settings: Settings
    examples: ExampleStore
    versions: VersionStore
    database: Database


@dataclass(frozen=True, eq=False)
class RunKind(Generic[Asked, Report]):
    """A kind of run."""

    name: str
    title: str  # what people call it; also the title of its view in Label Studio
    use: str  # what Label Studio is needed for, as a sentence without its end
    asked: type[Asked]  # what is asked for; all its fields have defaults
    report: type[Report]
    make: Callable[[RunParts, Run, Asked, Progress], Report]
    tasks: Callable[[Report], Collection[int]] | None = None  # that a view in Label Studio lists
    needs_model: bool = True
    forget: Callable[[Settings, Run], None] = lambda _settings, _run: None  # removes what it left

    def read_asked(self, run: Run) -> Asked:
        """Return what was asked for.

        Raises:
            ValueError: another version of the backend has asked for it, in its own way.
        """
        try:
            return msgspec.convert(run.asked, self.asked)
        except msgspec.ValidationError:
            reason = "Another version of the backend was asked for it: ask again."
            raise ValueError(reason) from None
