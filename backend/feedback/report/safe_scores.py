"""Finds the score from which on a label's masks needed no change.

A mask is all that was predicted of a label on a picture; its score is the lowest of its regions. It
needed no change where all its regions were accepted and the annotator added none. The table tells
people where errors are rare; nothing is accepted unseen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from scipy.special import betaincinv

from backend.feedback.sums import GroupSums, LabelSums, by_name

#: Share of the masks that shall need no change, and the confidence that it is at least that.
SAFE_SHARE: Final = 0.9
_CONFIDENCE: Final = 0.95

#: What stands in a model version behind the model and the method.
_HASH: Final = re.compile(r" [0-9a-f]{8}\b.*", re.DOTALL)


@dataclass(frozen=True)
class SafeScore:
    """The lowest score from which on the masks of a label hardly needed a change.

    Attributes:
        score: the lowest score, in hundredths, for which `lower_bound` is at least `SAFE_SHARE`;
            None where there is none: then the figures are those of all masks of the label.
        unchanged: those of them that needed no change.
    """

    score: int | None
    masks: int
    unchanged: int

    @property
    def share(self) -> float:
        """Share of the masks that needed no change, in [0, 1]."""
        return self.unchanged / self.masks

    @property
    def lower_bound(self) -> float:
        """One-sided lower bound of the share (Clopper and Pearson, 1934), at `_CONFIDENCE`."""
        return lower_bound(self.unchanged, self.masks)

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON; the score is in [0, 1], shares to six digits."""
        return {
            "score": None if self.score is None else self.score / 100,
            "masks": self.masks,
            "unchanged": self.unchanged,
            "share": round(self.share, 6),
            "lower_bound": round(self.lower_bound, 6),
        }


def lower_bound(successes: int, trials: int) -> float:
    """Return the share of successes that is exceeded with `_CONFIDENCE`.

    >>> round(lower_bound(29, 29), 3), lower_bound(0, 5)
    (0.902, 0.0)
    """
    if not successes:
        return 0.0
    return float(betaincinv(successes, trials - successes + 1, 1 - _CONFIDENCE))


def safe_scores(versions: Mapping[str, GroupSums]) -> dict[str, SafeScore]:
    """Find the safe score of each label, sorted by name.

    Scores of another model or method mean something else: only masks of the newest count, with
    whatever words, and with whatever was learned.

    Args:
        versions: model version -> its sums, the version seen last comes last.
    """
    found: dict[str, LabelSums] = {}
    for version, group in versions.items():
        if _HASH.sub("", version) == _HASH.sub("", [*versions][-1]):
            for label, sums in group.labels.items():
                found.setdefault(label, LabelSums()).add_all(sums)
    return {
        label: _safe_score(sums.scored, sums.unchanged)
        for label, sums in by_name(found).items()
        if sums.scored
    }


def _safe_score(masks: Mapping[int, int], unchanged: Mapping[int, int]) -> SafeScore:
    safe, count, kept = None, 0, 0
    for score in sorted(masks, reverse=True):
        count += masks[score]
        kept += unchanged.get(score, 0)
        if lower_bound(kept, count) >= SAFE_SHARE:
            safe = SafeScore(score, count, kept)
    return safe or SafeScore(None, count, kept)
