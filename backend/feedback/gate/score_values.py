"""The worth of a score: by label, how often regions of such a score needed no change.

The worth of a score is the share of pictures without a change among those whose score is at least
as high. One kept and one changed picture are added, so that few pictures are worth little
(Laplace's rule of succession). A higher score is worth at least as much as a lower one. So labels
whose scores mean different things become comparable, and one bound on the worth is a bound on the
score of each label.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backend.feedback.gate.outcomes import TaskOutcome


@dataclass(frozen=True)
class ScoreValues:
    """The worth of the scores of each label.

    Attributes:
        steps: name of a label -> scores and the worth from each of them on, both ascending.
    """

    steps: Mapping[str, tuple[tuple[float, float], ...]]

    @classmethod
    def of(cls, outcomes: Iterable[TaskOutcome]) -> ScoreValues:
        """Learn the worth of scores from outcomes."""
        seen: dict[str, list[tuple[float, bool]]] = {}
        for each in outcomes:
            for label, score in each.scores.items():
                seen.setdefault(label, []).append((score, label not in each.changed))
        return cls({label: _steps(pairs) for label, pairs in seen.items()})

    def of_task(self, scores: Mapping[str, float]) -> float:
        """Return the lowest worth of a task's labels; 0 where one is unknown, or it has none.

        >>> kept = TaskOutcome(1, (1,), {"car": 0.5}, frozenset())
        >>> values = ScoreValues.of([kept])
        >>> values.of_task({"car": 0.5}), values.of_task({"car": 0.4}), values.of_task({})
        (0.6666666666666666, 0.0, 0.0)
        """
        return min((self._worth(label, score) for label, score in scores.items()), default=0.0)

    def least_score(self, label: str, worth: float) -> float | None:
        """Return the lowest score of a label that is worth so much; None where none is."""
        return next((score for score, its in self.steps.get(label, ()) if its >= worth), None)

    def _worth(self, label: str, score: float) -> float:
        steps = self.steps.get(label, ())
        index = bisect_right(steps, score, key=lambda step: step[0])
        return steps[index - 1][1] if index else 0.0


def _steps(pairs: list[tuple[float, bool]]) -> tuple[tuple[float, float], ...]:
    """Return scores and the worth from each of them on, where it grows."""
    kept, worths = 0, {}
    for count, (score, is_kept) in enumerate(sorted(pairs, reverse=True), start=1):
        kept += is_kept
        worths[score] = (kept + 1) / (count + 2)  # the last of equal scores counts
    steps: list[tuple[float, float]] = []
    for score, worth in sorted(worths.items()):
        if not steps or worth > steps[-1][1]:
            steps.append((score, worth))
    return tuple(steps)
