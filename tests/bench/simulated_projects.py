"""Projects of simulated annotators, with the times that all their annotations take.

Annotators differ in speed and get faster with each task that they do, by an amount and at a pace
of their own; each day goes a little better or worse. Times are lognormal, and longer where the
score of the prediction says that there is more to correct. Some annotations are left open over
lunch; that is measured, and is no work. Practice has another form than the one that
`backend.feedback.forecast` fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backend.feedback.forecast.lead_times import FloatArray, IntArray, TimedAnnotation

_DAY_S = 86400.0
#: Share of annotations that are left open, and for how many seconds.
_LEFT_OPEN, _OPEN_S = 0.03, (1200.0, 5400.0)


@dataclass(frozen=True, eq=False)
class SimulatedProject:
    """A project of n tasks, in the order in which they are annotated.

    Attributes:
        scores: (n,) the score of each prediction, in [0, 1].
        annotators: (n,) who annotates each task.
        created: (n,) when, in seconds since the epoch.
        seconds: (n,) time of work on each with a prediction.
        from_nothing: (n,) time of work on each without.
        open_s: (n,) time that each is left open beside.
        before: number of tasks that were annotated from nothing, the first ones.
    """

    scores: FloatArray
    annotators: IntArray
    created: FloatArray
    seconds: FloatArray
    from_nothing: FloatArray
    open_s: FloatArray
    before: int

    def times(self, count: int) -> list[TimedAnnotation]:
        """Return what was measured when `count` tasks with a prediction are annotated."""
        made = []
        for task in range(self.before + count):
            predicted = task >= self.before
            worked = (self.seconds if predicted else self.from_nothing)[task]
            measured = float(worked + self.open_s[task])
            annotator, created = int(self.annotators[task]), float(self.created[task])
            made.append(TimedAnnotation(task, annotator, measured, created, predicted))
        return made

    def left(self, count: int) -> tuple[float, float]:
        """Return the hours of work on the other tasks, with and without predictions."""
        rest = slice(self.before + count, None)
        return self.seconds[rest].sum() / 3600, self.from_nothing[rest].sum() / 3600

    def forgets_scores(self) -> SimulatedProject:
        """Return the project as if no prediction had a score that tells anything."""
        return replace(self, scores=np.full(len(self.scores), 0.5))


def simulate(seed: int, hardest_first: bool) -> SimulatedProject:
    """Simulate a project.

    Args:
        seed: of all that is left to chance.
        hardest_first: whether tasks are annotated by their scores; else in random order.
    """
    rng = np.random.default_rng(seed)
    n, people = int(rng.integers(300, 2000)), int(rng.integers(1, 5))
    scores = rng.beta(2, 5, n)
    if hardest_first:
        scores = np.sort(scores)[::-1]
    typical_s = rng.uniform(40, 180) * rng.lognormal(0, 0.3, people)
    gain, pace = rng.uniform(0, 0.4, people), rng.uniform(30, 150, people)
    a_day = rng.integers(40, 150, people)
    annotators = rng.choice(people, n, p=a_day / a_day.sum())
    slope, spread = rng.uniform(0, 0.8), rng.uniform(0.3, 0.6)
    harder = slope * (scores - 2 / 7) / 0.16
    seconds, created = np.zeros(n), np.zeros(n)
    for person in range(people):
        own = np.flatnonzero(annotators == person)
        done = np.arange(len(own))
        day = done // a_day[person]
        mood = rng.lognormal(0, 0.05, day.max() + 1)[day] if len(own) else day
        seconds[own] = typical_s[person] * (1 + gain[person] / (1 + done / pace[person])) * mood
        created[own] = _DAY_S * (20000 + day) + 8 * 3600 + 300.0 * (done % a_day[person])
    order = np.argsort(created, kind="stable")
    annotators, seconds, created = annotators[order], seconds[order], created[order]
    from_nothing = seconds * rng.uniform(1.3, 3.0) * rng.lognormal(0, spread, n)
    is_open = rng.random(n) < _LEFT_OPEN
    return SimulatedProject(
        scores,
        annotators,
        created,
        seconds * np.exp(harder) * rng.lognormal(0, spread, n),
        from_nothing,
        np.where(is_open, rng.uniform(*_OPEN_S, n), 0.0),
        int(rng.integers(12, 40)),
    )
