"""Which predictions a review page shows: those that nobody has judged, each on one open page."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from cachetools import LRUCache, TTLCache

from backend.annotations.annotated_image import find_images
from backend.annotations.regions import Provenance
from backend.errors import BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import PredictedRow, PredictionRegions
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.projects.task_scope import TaskScope
from backend.review.verdicts import ReviewStore

#: Pictures of a page, and tasks of a page of Label Studio's list.
PICTURES: Final = 40

_MOST_PAGES: Final = 27  # of Label Studio's list, that are looked through

_KEPT_S: Final = 900.0  # how long an open page keeps its tasks for itself, in seconds


class AskedPage(msgspec.Struct, frozen=True):
    """Which pictures a page shows."""

    label: Annotated[str, msgspec.Meta(max_length=200)] = ""  # crops of this label alone
    view: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)] | None = None
    least: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0  # score of a prediction


class Card(msgspec.Struct, frozen=True):
    """A prediction on the page."""

    task: int
    prediction: int
    version: str
    score: float
    is_old: bool  # of another version than the one in use
    has_others: bool  # whether it has other labels than the one that is shown


@dataclass(frozen=True, eq=False)
class OpenPages:
    """What the open review pages of a process show; threads share it."""

    #: project and task -> the open page that shows it
    seats: TTLCache[tuple[int, int], str] = field(default_factory=lambda: TTLCache(1e5, _KEPT_S))
    #: project, task and prediction -> what was read for a page, until its picture is drawn
    to_draw: LRUCache[tuple[int, int, int], tuple[Task, PredictionRegions]] = field(
        default_factory=lambda: LRUCache(3 * PICTURES)
    )
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass(frozen=True, eq=False, kw_only=True)
class Queue:
    """Finds the tasks of a page: predicted, not annotated, not judged, and on nobody's page."""

    scope: TaskScope
    reviews: ReviewStore
    client: LabelStudioClient
    project: int
    config: LabelConfig
    current: str  # the model version in use
    asked: AskedPage
    pages: OpenPages

    def cards(self, seat: str, *, ahead: bool) -> list[Card]:
        """Return the next predictions; `ahead`: those after the ones that the page has."""
        free = (None,) if ahead else (None, seat)
        found = [*islice(filter(None, (self._card(row, free) for row in self._rows())), PICTURES)]

        with self.pages.lock:  # of two pages that ask at once, each takes what the other has not
            seats = self.pages.seats
            owners = [seats.setdefault((self.project, each.task), seat) for each in found]
        return [each for each, owner in zip(found, owners, strict=True) if owner == seat]

    def _rows(self) -> Iterator[PredictedRow]:
        """Yield the tasks that wait for a review: of the first page, then from the last judged on.

        Those that were judged and have no annotation yet stay in the list, the first of it.
        """
        order = by_score(highest_first=self.config.score == "confidence")
        wanted = self.scope.to_review(self.project, least_score=self.asked.least, order=order)
        if wanted is None:
            return

        rows, total = self._listed(1, wanted)
        yield from self._open(rows)

        last = -(-total // PICTURES)
        start = min(last, self.reviews.count_waiting(self.project) // PICTURES)
        for number in islice((*range(start + 1, last + 1), *range(2, start + 1)), _MOST_PAGES):
            if number > 1:
                yield from self._open(self._listed(number, wanted)[0])

    def _listed(self, page: int, wanted: TaskFilter) -> tuple[list[PredictedRow], int]:
        """Return the tasks of a page of Label Studio's list, and how many all pages have."""
        return self.client.listed(
            self.project, page, self.asked.view, wanted, PredictedRow, PICTURES
        )

    def _open(self, rows: Sequence[PredictedRow]) -> Iterator[PredictedRow]:
        """Yield tasks that nobody has judged, or that have a prediction in use since then."""
        among = self.reviews.among(self.project, [row.id for row in rows])
        judged = {each.id for each in rows if among.get(each.id, ("", 0))[1] > each.created}
        old = tuple(task for task in judged if among[task][0] != self.current)
        new = TaskFilter(ids=old, with_version=self.current)
        again = {*self.client.ids(self.project, new)} if old else set()
        for row in rows:
            is_open = row.id not in judged or row.id in again
            if is_open and row.predictions and not row.annotations:
                yield row

    def _card(self, row: PredictedRow, free: tuple[str | None, ...]) -> Card | None:
        """Return the newest prediction of a task; None on another page, or without the label."""
        newest, label = max(row.predictions, key=lambda one: one.id), self.asked.label
        task = Task(row.id, self.project, row.data)
        labels = self._labels(task, newest) if label else set()

        with self.pages.lock:
            is_free = self.pages.seats.get((self.project, row.id)) in free
            if not is_free or (label and label not in labels):
                return None
            self.pages.to_draw[self.project, row.id, newest.id] = task, newest
        return Card(
            task=row.id,
            prediction=newest.id,
            version=newest.version,
            score=row.predictions_score or 0.0,
            is_old=newest.version != self.current,
            has_others=bool(labels - {label}),
        )

    def _labels(self, task: Task, made: PredictionRegions) -> set[str]:
        with suppress(BadRequest):  # a region is broken: its picture says so
            images = find_images(task, [as_version(made)], self.config)
            return {region.label for image in images for region in image.versions[0]}
        return set()


def by_score(*, highest_first: bool) -> str:
    """Return Label Studio's order of tasks by the scores of their predictions."""
    return f"{'-' if highest_first else ''}tasks:predictions_score"


def as_version(prediction: PredictionRegions) -> tuple[Sequence[Any], Provenance]:
    """Return the regions of a prediction and where they come from, as `find_images` takes them."""
    return prediction.regions, Provenance("prediction", prediction.version)
