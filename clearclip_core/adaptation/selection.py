"""Which labels an adaptation moves, and how far, until held-out images speak against nothing.

A cautious choice comes first, with labels of which their words find nothing let go if that passes,
else as all others. What passes may move farther, one step after another, as long as each
step gains for certain and passes too, with no tolerance for losses above the bound, and as long as
it is all but certain that neither the step nor all steps together cost a label the bound, also
where that label is more frequent than in the corrected images. Who passes first may lose what few
images cannot tell; farther steps are not needed, and may not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clearclip_core.adaptation.acceptance import Comparison, falls_on_average, find_losing
from clearclip_core.adaptation.contradictions import BoolArray
from clearclip_core.adaptation.cross_validation import (
    CAUTIOUS,
    FREE,
    PRIORS,
    UNINFORMED,
    CrossValidation,
    Trial,
)

#: How often labels are left out and the rest is tried again.
_ROUNDS = 4

#: Variance of offsets in the last step, in the usual one.
_WIDE_OFFSETS = 10**0.5

#: IoU that a label has to gain on held-out images before it is let go farther alone.
_LABEL_GAIN = 0.05

#: How many times as frequent a label may be elsewhere, where a step may not cost it the bound.
#: A label that gives up places gains by that where it is rare, and loses where it is frequent.
_PREVALENCES = (1.0, 4.0)


@dataclass(frozen=True, eq=False)
class Refusal:
    """Labels that were tried and do not go live.

    Attributes:
        learning: (G,) bool, the labels that were tried.
        losing: (G,) bool, the labels that lost too much.
        comparison: with the text scores, on held-out images.
    """

    learning: BoolArray
    losing: BoolArray
    comparison: Comparison


class Selection:
    """A search for the labels that learn, and for their prior.

    Args:
        validation: of the evidence.
        label_loss: IoU that a label may lose at most, in [0, 1].
        labels: (G,) bool, the groups that are labels: their mean may not fall.

    Attributes:
        refusals: what was tried in vain, in order.
    """

    def __init__(self, validation: CrossValidation, label_loss: float, labels: BoolArray) -> None:
        self._validation = validation
        self._label_loss = label_loss
        self._labels = labels
        self.refusals: list[Refusal] = []

    def select(self, learning: BoolArray) -> Trial | None:
        """Search; None where the text scores stay.

        Labels that lose too much are left out. Where none does and the gain is not certain, nothing
        is selected: the same images would choose the labels and judge them.

        Args:
            learning: (G,) bool, the labels with enough images.
        """
        victims = np.zeros_like(learning)
        # A word that finds nothing may hold its label until that moves far enough.
        far = self._validation.choose(learning, UNINFORMED)
        if self._passes(far, victims):
            return self._farther(far)
        for _ in range(_ROUNDS):
            trial = self._validation.choose(learning, CAUTIOUS)
            losing = self._losing(trial, victims)
            victims |= losing
            passes = self._passes(trial, victims)
            if self.refusals:
                # A rest was chosen by the same images: what they say of it is too favourable.
                if passes:
                    return trial
            elif passes:
                return self._farther(trial)
            elif not (losing & learning).any():
                # What takes a label's place may do so because it may not move far enough itself.
                free = self._validation.choose(learning, FREE)
                if _differs(free, trial) and self._passes(free, _all(learning)):
                    return self._with_wide_offsets(free, first=free)
            self.refusals.append(Refusal(learning, losing, trial.comparison))
            left = _left(trial, losing)
            if not left.any():
                break
            learning = left
        return None

    def _farther(self, first: Trial) -> Trial:
        """Let labels move farther, as far as that gains for certain and no label loses too much."""
        free = self._validation.choose(first.learning, FREE)
        trial = self._better(first, free, first) if _differs(free, first) else first
        return self._one_by_one(self._with_wide_offsets(trial, first), first)

    def _with_wide_offsets(self, trial: Trial, first: Trial) -> Trial:
        """Let the offsets of all labels move farther, on the same conditions.

        Where that does not pass, let those of the labels that have moved far already.
        """
        far = trial.prior.precisions < PRIORS[0]
        is_part = far.any() and not far.all()
        for labels in (np.ones_like(far), far) if is_part else (np.ones_like(far),):
            variances = np.where(labels, _WIDE_OFFSETS, trial.prior.offset_variance)
            wide = replace(trial.prior, offset_variance=variances)
            other = self._better(trial, self._validation.attempt(trial.learning, wide), first)
            if other is not trial:
                return other
        return trial

    def _one_by_one(self, trial: Trial, first: Trial) -> Trial:
        """Let single labels move farther, on the same conditions: others need not bear them."""
        for row, precision in self._validation.smaller_priors(trial, _LABEL_GAIN):
            if precision < trial.prior.precisions[row]:
                prior = trial.prior.with_precision(row, precision)
                trial = self._better(trial, self._validation.attempt(trial.learning, prior), first)
        return trial

    def _better(self, trial: Trial, other: Trial, first: Trial) -> Trial:
        """Return the other trial where it gains for certain, and costs no label the bound.

        Neither as a whole, nor as a step from the trial, nor with all steps from the first trial
        that passed: of steps nine draws in ten have to say so, also where the label is more
        frequent.
        """
        passes = (
            self._validation.step(trial, other).gain_bound > 0
            and all(self._spares(before, other) for before in dict.fromkeys((trial, first)))
            and self._passes(other, _all(trial.learning))
        )
        return other if passes else trial

    def _spares(self, trial: Trial, other: Trial) -> bool:
        """Tell whether it is all but certain that the other trial costs no label the bound.

        What is lost of unlabeled things is the labels' that cover them.
        """
        steps = [self._validation.step(trial, other, each) for each in _PREVALENCES]
        return all(bool((step.lows >= -self._label_loss)[self._labels].all()) for step in steps)

    def _passes(self, trial: Trial, victims: BoolArray) -> bool:
        comparison = trial.comparison
        gains = comparison.gain_bound > 0 and not falls_on_average(comparison, self._labels)
        return gains and not self._losing(trial, victims).any()

    def _losing(self, trial: Trial, victims: BoolArray) -> BoolArray:
        return find_losing(trial.comparison, self._label_loss, victims)


def _left(trial: Trial, losing: BoolArray) -> BoolArray:
    """Return (G,) bool: the labels to try next.

    Those that do not lose, where labels lose that learn. Where only others lose, fewer labels would
    not help them: those that learn also hold their own places, and what they lose without that need
    not show on held-out images.
    """
    left: BoolArray = trial.learning & ~losing & (losing & trial.learning).any()
    return left


def _all(learning: BoolArray) -> BoolArray:
    return np.ones_like(learning)


def _differs(trial: Trial, other: Trial) -> bool:
    return not np.array_equal(trial.prior.precisions, other.prior.precisions)
