"""Which predictions a review page shows: those that nobody has judged, each on one open page."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from backend.projects.scores import Score, ScoreStore
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
    labels: tuple[str, ...]  # that it has, in the config's order
    has_others: bool  # whether it has other labels than the one that is shown


@dataclass(frozen=True, eq=False)
class OpenPages:
    """What the open review pages of a process show; threads share it.

    A page has its tasks for itself, and no others: what is asked for ahead is anybody's until it is
    shown.
    """

    #: project and task -> the open page that shows it
    seats: TTLCache[tuple[int, int], str] = field(default_factory=lambda: TTLCache(1e5, _KEPT_S))
    #: project, task and page -> what a page has moved on from without a verdict
    passed: TTLCache[tuple[int, int, str], bool] = field(
        default_factory=lambda: TTLCache(1e5, _KEPT_S)
    )
    #: project, task and prediction -> what was read for a page, until its picture is drawn
    to_draw: LRUCache[tuple[int, int, int], tuple[Task, PredictionRegions]] = field(
        default_factory=lambda: LRUCache(3 * PICTURES)
    )
    lock: threading.RLock = field(default_factory=threading.RLock)

    def is_free(self, project: int, task: int, seat: str, *, ahead: bool) -> bool:
        """Return whether a page may show a task; `ahead`: beside those that it shows now."""
        with self.lock:
            owner = self.seats.get((project, task))
            is_passed = (project, task, seat) in self.passed
        return owner is None and not is_passed if ahead else owner in (None, seat)

    def hold(self, project: int, seat: str, tasks: Sequence[int]) -> list[int]:
        """Let a page have these tasks of a project, and no others; return those that it has got.

        Others have the rest already. The time for which it keeps them begins anew.
        """
        with self.lock:
            for task in self._of(project, seat):
                del self.seats[project, task]
            got = [task for task in tasks if (project, task) not in self.seats]
            for task in got:
                self.seats[project, task] = seat
        return got

    def move_on(self, project: int, seat: str, tasks: Sequence[int]) -> list[int]:
        """Let a page have the tasks that it asked for ahead; return those that it has not got.

        It is not shown again by itself what it has left.
        """
        with self.lock:
            left = self._of(project, seat)
            got = self.hold(project, seat, tasks)
            for task in set(left) - set(got):
                self.passed[project, task, seat] = True
        return [task for task in tasks if task not in got]

    def renew(self, project: int, seat: str) -> None:
        """Let a page keep its tasks for longer."""
        with self.lock:
            self.hold(project, seat, self._of(project, seat))

    def unknown(self, project: int, tasks: Sequence[int]) -> list[int]:
        """Return those of some tasks that no open page of a project shows."""
        with self.lock:
            return [task for task in tasks if (project, task) not in self.seats]

    def _of(self, project: int, seat: str) -> list[int]:
        return [
            task for (of, task), owner in [*self.seats.items()] if (of, owner) == (project, seat)
        ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Queue:
    """Finds the tasks of a page: predicted, not annotated, not judged, and on nobody's page."""

    scope: TaskScope
    reviews: ReviewStore
    scores: ScoreStore
    client: LabelStudioClient
    project: int
    config: LabelConfig
    current: str  # the model version in use
    asked: AskedPage
    pages: OpenPages

    def cards(self, seat: str, *, ahead: bool) -> list[Card]:
        """Return the next predictions; `ahead`: those after the ones that the page has."""

        def is_free(task: int) -> bool:
            return self.pages.is_free(self.project, task, seat, ahead=ahead)

        wanted = self.scope.to_review(self.project)
        if wanted is None:
            return []

        rows = self._of_view() if self.asked.view else self._by_score(wanted, is_free)
        cards = (self._card(row) for row in rows if is_free(row.id))
        found = [*islice(filter(None, cards), PICTURES)]
        if ahead:
            return found
        # of two pages that ask at once, each takes what the other has not
        own = set(self.pages.hold(self.project, seat, [each.task for each in found]))
        return [each for each in found if each.task in own]

    def _by_score(
        self, wanted: TaskFilter, is_free: Callable[[int], bool]
    ) -> Iterator[PredictedRow]:
        """Yield the tasks that wait for a review by their scores, then those without one."""
        asked = islice(self._scored(is_free), _MOST_PAGES)
        for tasks in asked:
            there = {row.id: row for row in self._listed(1, replace(wanted, ids=tuple(tasks)))[0]}
            self.scores.close(self.project, there.keys() ^ set(tasks))
            yield from self._open([there[task] for task in tasks if task in there])

        after = self.scores.walk(self.project).cursor
        for _ in range(_MOST_PAGES):
            rows = self._listed(1, replace(wanted, after_id=after))[0]
            known = self.scores.known(self.project, [row.id for row in rows])
            yield from self._open([row for row in rows if row.id not in known])
            if len(rows) < PICTURES:
                return
            after = rows[-1].id

    def _scored(self, is_free: Callable[[int], bool]) -> Iterator[list[int]]:
        """Yield tasks that have a score, in its order, as many as a page at a time."""
        in_order = self.scores.in_order(
            self.project,
            self.current,
            highest_first=self.config.score == "confidence",
            least=self.asked.least,
        )
        tasks = (
            each.task for some in in_order for each in self._not_judged(some) if is_free(each.task)
        )
        while page := [*islice(tasks, PICTURES)]:
            yield page

    def _not_judged(self, scores: Sequence[Score]) -> Iterator[Score]:
        """Yield the scores whose prediction nobody has judged, by its version and its time."""
        among = self.reviews.among(self.project, [each.task for each in scores])
        for each in scores:
            version, at = among.get(each.task, ("", 0.0))
            if version != each.version or at < each.at:
                yield each

    def _of_view(self) -> Iterator[PredictedRow]:
        """Yield the tasks of a view in its own order: of the first page, then from those judged on.

        Those that were judged and have no annotation yet stay in the list, the first of it.
        """
        rows, total = self._listed(1, TaskFilter())
        yield from self._open(rows)

        last = -(-total // PICTURES)
        start = min(last, self.reviews.count_waiting(self.project) // PICTURES)
        for number in islice((*range(start + 1, last + 1), *range(2, start + 1)), _MOST_PAGES):
            if number > 1:
                yield from self._open(self._listed(number, TaskFilter())[0])

    def _listed(self, page: int, wanted: TaskFilter) -> tuple[list[PredictedRow], int]:
        """Return the tasks of a page of Label Studio's list, and how many all pages have."""
        return self.client.listed(
            self.project, page, self.asked.view, wanted, kind=PredictedRow, size=PICTURES
        )

    def _open(self, rows: Sequence[PredictedRow]) -> Iterator[PredictedRow]:
        """Yield tasks that nobody has judged, or that have a prediction in use since then."""
        closed = self._closed(rows)
        for row in rows:
            if row.id not in closed and row.predictions and not row.annotations:
                yield row

    def _closed(self, rows: Sequence[PredictedRow]) -> set[int]:
        """Return the tasks that were judged, without those predicted anew since by the current."""
        among = self.reviews.among(self.project, [row.id for row in rows])
        judged = {each.id for each in rows if among.get(each.id, ("", 0))[1] > each.created}
        old = tuple(task for task in judged if among[task][0] != self.current)
        if not old:
            return judged
        return judged.difference(
            self.client.ids(self.project, TaskFilter(ids=old, with_version=self.current))
        )

    def _card(self, row: PredictedRow) -> Card | None:
        """Return the newest prediction of a task; None without the label, or below the score."""
        newest, label = max(row.predictions, key=lambda one: one.id), self.asked.label
        task, score = Task(row.id, self.project, row.data), newest.score or 0.0
        labels = self._labels(task, newest)
        in_order = tuple(each.name for each in self.config.labels if each.name in labels)
        if score < self.asked.least or (label and label not in labels):
            return None

        with self.pages.lock:
            self.pages.to_draw[self.project, row.id, newest.id] = task, newest
        return Card(
            task=row.id,
            prediction=newest.id,
            version=newest.version,
            score=score,
            is_old=newest.version != self.current,
            labels=in_order,
            has_others=bool(label and labels - {label}),
        )

    def _labels(self, task: Task, made: PredictionRegions) -> set[str]:
        with suppress(BadRequest):  # a region is broken: its picture says so
            images = find_images(task, [as_version(made)], self.config)
            return {region.label for image in images for region in image.versions[0]}
        return set()


def as_version(prediction: PredictionRegions) -> tuple[Sequence[Any], Provenance]:
    """Return the regions of a prediction and where they come from, as `find_images` takes them."""
    return prediction.regions, Provenance("prediction", prediction.version)
