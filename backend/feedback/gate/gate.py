"""Make an acceptance gate: the scores from which on predictions need no look.

A third of the corrected tasks, by lot, says what scores are worth (`ScoreValues`); the other tasks
check candidates of increasing coverage, which the first third has laid out beforehand
(`backend.feedback.gate.fixed_sequence`). So what was tuned is tested on tasks that tuned nothing.

What the bound says: of the tasks that pass, at least the wanted share needed no change at all, also
no thing added that the prediction missed, with the wanted confidence. It says so of tasks that are
like the corrected ones, which holds where these were drawn at random.

Where tasks are seen to be like those that were annotated just before them, as frames of one drive
that are corrected one after another, they count as fewer. That is seen where their scores are alike
or enough of them have changed, and not else (`backend.feedback.gate.serial_dependence`): the
promise needs random order.

Corrections come in over months, and whoever looks often enough sees luck. So gates are made at a
few numbers of corrected tasks that are fixed beforehand, `LOOKS`, which share the allowed error
(Bonferroni): the confidence is that of all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from backend.feedback.gate.fixed_sequence import fewest, last_rejected, p_value, upper_bound
from backend.feedback.gate.lots import lot
from backend.feedback.gate.outcomes import TaskOutcome
from backend.feedback.gate.score_values import ScoreValues
from backend.feedback.gate.serial_dependence import SerialDependence

Json = dict[str, Any]

#: Numbers of corrected tasks at which a gate is made.
LOOKS: Final = (200, 400, 800, 1600)

#: Share of the tasks that says what scores are worth.
_TUNING_SHARE: Final = 1 / 3

#: The strictest candidate has as many tasks as would do without any change, each next one so many
#: times more.
_GROWTH: Final = 1.2

#: Changes that the tuning tasks are taken to have more of than they have: a bound that they have
#: chosen themselves looks better on them than it is.
_PRIOR_CHANGES: Final = 0.5


class Judged(NamedTuple):
    """A task that tunes or checks.

    Attributes:
        value: what a bound is on, a score or a worth.
        changed: whether there was a change.
        place: of the task in the order of annotation, from 0.
    """

    value: float
    changed: bool
    place: int


@dataclass(frozen=True)
class _Test:
    """What candidates are tested for.

    Attributes:
        most: share of changes that is allowed.
        level: probability of an error.
        foreseen: how tasks depend on each other by their scores alone, by which candidates are laid
            out before any change of the checking tasks is looked at.
        dependence: the same by scores and changes.
    """

    most: float
    level: float
    foreseen: SerialDependence
    dependence: SerialDependence

    @classmethod
    def of(cls, ordered: Sequence[TaskOutcome], most: float, level: float) -> _Test:
        """Learn from tasks in the order of annotation how they depend on each other."""
        labels = sorted({label for each in ordered for label in each.scores})
        scores = [[each.scores.get(label, 0.0) for label in labels] for each in ordered]
        foreseen = SerialDependence.of(np.array(scores, np.float64))
        changed = np.array([[bool(each.changed)] for each in ordered], np.float64)
        return cls(most, level, foreseen, foreseen.joined(SerialDependence.of(changed)))


@dataclass(frozen=True)
class GatedLabel:
    """What the corrections say of one label.

    Attributes:
        label: its name.
        pictures: corrected pictures where it was predicted.
        kept: those of them where it needed no change.
        alone: the lowest score from which on the label by itself needed no change on enough
            pictures, with the wanted confidence; None: there is no such score yet.
        alone_pictures: pictures with that score or a higher one among those that checked it.
        alone_kept: those of them where the label needed no change.
        asked: the score that the gate asks of each region of the label; None: a task with this
            label does not pass.
    """

    label: str
    pictures: int
    kept: int
    alone: float | None = None
    alone_pictures: int = 0
    alone_kept: int = 0
    asked: float | None = None

    def to_json(self) -> Json:
        """Return the JSON that databases keep; these names stay."""
        return {
            "label": self.label,
            "pictures": self.pictures,
            "kept": self.kept,
            "alone": self.alone,
            "alone_pictures": self.alone_pictures,
            "alone_kept": self.alone_kept,
            "asked": self.asked,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GatedLabel:
        """Read what `to_json` has written."""
        return cls(
            label=value["label"],
            pictures=value["pictures"],
            kept=value["kept"],
            alone=value["alone"],
            alone_pictures=value["alone_pictures"],
            alone_kept=value["alone_kept"],
            asked=value["asked"],
        )


@dataclass(frozen=True)
class Gate:
    """An acceptance gate.

    Attributes:
        share: the least share of passing tasks that needed no change.
        confidence: the probability with which that holds.
        pictures: corrected tasks that it was made from.
        checked: pictures of them that checked it.
        passed: those that pass.
        changed: those that pass and needed a change.
        bound: upper bound of the share of passing tasks that needed a change, by the last test
            alone: what the choice among tests promises is `share`. None: nothing passes.
        labels: by label, in alphabetical order.
        independent: how many independent pictures those that checked it count as; None where an
            earlier release made it.
    """

    share: float
    confidence: float
    pictures: int
    checked: int
    passed: int = 0
    changed: int = 0
    bound: float | None = None
    labels: tuple[GatedLabel, ...] = ()
    independent: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether any task can pass."""
        return self.passed > 0

    @property
    def coverage(self) -> float:
        """Share of the checked tasks that pass, in [0, 1]."""
        return self.passed / self.checked if self.checked else 0.0

    def passes(self, scores: Mapping[str, float]) -> bool:
        """Return whether a task passes: it has a region, and each reaches the score of its label.

        Args:
            scores: name of a label -> the lowest score of its regions.
        """
        asked = {each.label: each.asked for each in self.labels}
        return bool(scores) and all(
            (least := asked.get(label)) is not None and score >= least
            for label, score in scores.items()
        )

    def to_json(self) -> Json:
        """Return the JSON that databases keep; these names stay."""
        return {
            "share": self.share,
            "confidence": self.confidence,
            "pictures": self.pictures,
            "checked": self.checked,
            "passed": self.passed,
            "changed": self.changed,
            "bound": self.bound,
            "labels": [label.to_json() for label in self.labels],
            "independent": self.independent,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Gate:
        """Read what `to_json` has written."""
        return cls(
            share=value["share"],
            confidence=value["confidence"],
            pictures=value["pictures"],
            checked=value["checked"],
            passed=value["passed"],
            changed=value["changed"],
            bound=value["bound"],
            labels=tuple(GatedLabel.from_json(each) for each in value["labels"]),
            independent=value.get("independent"),
        )


def looks_reached(pictures: int) -> int:
    """Return how many of `LOOKS` a number of corrected pictures has reached.

    >>> looks_reached(199), looks_reached(200), looks_reached(5000)
    (0, 1, 4)
    """
    return sum(pictures >= each for each in LOOKS)


def make_gate(outcomes: Sequence[TaskOutcome], share: float, confidence: float) -> Gate:
    """Make the gate of one look.

    Args:
        outcomes: of tasks.
        share: the least share of passing tasks that shall need no change, in (0, 1).
        confidence: the probability with which that shall hold over all looks, in (0, 1).
    """
    ordered = sorted(outcomes, key=lambda each: (min(each.annotations, default=0), each.task))
    test = _Test.of(ordered, 1 - share, (1 - confidence) / len(LOOKS))
    tuning, checking = (
        [
            (place, each)
            for place, each in enumerate(ordered)
            if (lot("tuning", each.task) < _TUNING_SHARE) == is_tuning
        ]
        for is_tuning in (True, False)
    )
    values = ScoreValues.of(each for _, each in tuning)
    tuned, judged = (
        [Judged(values.of_task(each.scores), bool(each.changed), place) for place, each in part]
        for part in (tuning, checking)
    )
    worth, changed, passed, bound = _choose(judged, _candidates(tuned, judged, test), test)
    labels = sorted({label for each in outcomes for label in (*each.scores, *each.changed)})
    return Gate(
        share,
        confidence,
        len(outcomes),
        len(checking),
        passed,
        changed,
        bound,
        tuple(_label(each, tuning, checking, values, worth, test) for each in labels),
        round(test.dependence.effective([place for place, _ in checking]), 1),
    )


def _candidates(tuning: Sequence[Judged], checking: Sequence[Judged], test: _Test) -> list[float]:
    """Lay out bounds of growing coverage, from the one on that is most likely to be rejected.

    Which one that is, the tuning tasks say ("split fixed-sequence testing", ibid.): a stricter one
    leaves too few tasks to be sure of anything, a wider one lets changes in.

    Args:
        tuning: the tuning tasks.
        checking: the checking tasks, whose changes are not looked at.
        test: what the bounds are tested for.
    """
    ordered = sorted((each for each in tuning if each.value > 0), reverse=True)
    found: dict[float, float] = {}  # bound -> p-value that is expected for it
    wanted = fewest(test.most, test.level) / len(checking) if checking else math.inf
    while ordered and wanted <= _GROWTH:
        bound = ordered[min(len(ordered), max(1, round(wanted * len(tuning)))) - 1].value
        passing = [each.changed for each in ordered if each.value >= bound]
        places = [each.place for each in checking if each.value >= bound]
        expected = test.foreseen.effective(places)
        share = (sum(passing) + _PRIOR_CHANGES) / (len(passing) + 1)
        found[bound] = p_value(share * expected, expected, test.most)
        wanted *= _GROWTH
    bounds = sorted(found, reverse=True)
    first = min(bounds, key=lambda bound: (found[bound], bound), default=0.0)
    return [bound for bound in bounds if bound <= first]


def _choose(
    judged: Sequence[Judged], bounds: Sequence[float], test: _Test
) -> tuple[float | None, int, int, float | None]:
    """Return the chosen bound, and the changed and all tasks that reach it; None: none is chosen.

    The last is the upper bound of their share of changes, by the last test.

    Args:
        judged: the checking tasks.
        bounds: the candidates, the strictest first.
        test: what they are tested for.
    """
    seen, counts = [], []
    for bound in bounds:
        passing = [each for each in judged if each.value >= bound]
        changed = sum(each.changed for each in passing)
        worth = test.dependence.effective([each.place for each in passing])
        seen.append((changed, len(passing)))
        counts.append((changed * worth / len(passing) if passing else 0.0, worth))
    index = last_rejected(counts, test.most, test.level)
    if index is None:
        return None, 0, 0, None
    return bounds[index], *seen[index], upper_bound(*counts[index], test.level)


def _label(
    label: str,
    tuning: Sequence[tuple[int, TaskOutcome]],
    checking: Sequence[tuple[int, TaskOutcome]],
    values: ScoreValues,
    worth: float | None,
    test: _Test,
) -> GatedLabel:
    """Sum up one label, and find the score from which on it needs no look by itself."""
    tuned, judged = (
        [
            Judged(each.scores[label], label in each.changed, place)
            for place, each in part
            if label in each.scores
        ]
        for part in (tuning, checking)
    )
    alone, changed, passed, _ = _choose(judged, _candidates(tuned, judged, test), test)
    return GatedLabel(
        label,
        len(tuned) + len(judged),
        sum(not each.changed for each in (*tuned, *judged)),
        alone,
        passed,
        passed - changed,
        None if worth is None else values.least_score(label, worth),
    )
