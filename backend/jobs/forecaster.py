"""Keep the forecasts of projects up to date: how many hours of annotation are left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from backend.errors import StudioRefused
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.forecast.forecast_store import ForecastStore
from backend.feedback.forecast.hours_left import HoursLeft, foretell
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter

log = logging.getLogger(__name__)

#: How often projects are looked at, in seconds.
_LOOK_EVERY_S: Final = 60.0

#: A forecast stays so long at least, in seconds, and so many times as long as making it took: on a
#: large project Label Studio lists tasks for minutes.
_LEAST_AGE_S: Final = 600.0
_COST: Final = 100.0


@dataclass
class Forecaster:
    """Makes forecasts of what was read of annotations and of the tasks that are left.

    Args:
        annotations: what was read.
        forecasts: where forecasts are kept.
        client: Label Studio; None: none is made.
        clock: the time in seconds, for intervals.
    """

    annotations: AnnotationStore
    forecasts: ForecastStore
    client: LabelStudioClient | None
    clock: Callable[[], float] = time.monotonic
    _next_look: float = field(default=0.0, init=False)

    def check(self) -> bool:
        """Make the forecasts that are due, once a minute; return False: there is no hurry.

        Raises:
            StudioUnreachable: Label Studio does not answer.
        """
        if self.client is None or self.clock() < self._next_look:
            return False
        self._next_look = self.clock() + _LOOK_EVERY_S
        for project, count in self.annotations.count_times().items():
            if self.forecasts.claim(project, count):
                try:
                    self.make(project)
                except StudioRefused as error:
                    log.warning("The hours left in project %d are not known: %s", project, error)
        return False

    def make(self, project: int, tell: Callable[[HoursLeft], None] = lambda _: None) -> None:
        """Make the forecast for a project and keep it.

        Args:
            project: its id.
            tell: is told the forecast before the database is asked to keep it.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        assert self.client is not None, "asked for without a token"
        began = self.clock()
        scores = dict(self.client.scores.read(project, TaskFilter(labeled=True)))
        left = [score for _, score in self.client.scores.read(project, TaskFilter(unlabeled=True))]
        forecast = foretell(
            self.annotations.times(project),
            scores,
            self.client.count(project, TaskFilter(unlabeled=True)),
            left,
            self.annotations.now,
        )
        age_s = max(_LEAST_AGE_S, _COST * (self.clock() - began))
        tell(forecast)
        self.forecasts.keep(project, forecast, age_s)
