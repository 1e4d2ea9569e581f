"""Takes apart what a training example says of a label, patch by patch.

The rule is that of `backend.feedback.learning.thresholds`, in shares of patches in place of pixels.
An example of version 0.1 does not say what was kept or removed: all its paint counts as drawn.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearclip_core import Example
from clearclip_core.adaptation.examples import UNLABELED

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JudgedPatches:
    """What an example says of one label, as shares of its sampled patches.

    Attributes:
        drawn: (N,) float64, the share that is the label, as the annotator drew it.
        kept: (N,) float64, the share that the annotator kept as the label.
        wrong: (N,) float64, the share that is not the label.
    """

    drawn: Shares
    kept: Shares
    wrong: Shares


@dataclass(frozen=True, eq=False)
class PatchEvidence:
    """What an example says of all its labels.

    Attributes:
        example: the example.
        drawn: (N, K) float64, the share of each patch that each of its names covers and that was
            not kept as predicted.
        kept: (N, K) float64, the share that was kept.
        lost: (N,) float64, the share of names that are no label any more.
    """

    example: Example
    drawn: Shares
    kept: Shares
    lost: Shares

    @classmethod
    def of(cls, example: Example, names: Collection[str]) -> PatchEvidence:
        """Take an example apart; `names` are the labels of today, and ""."""
        coverage = example.coverage.astype(np.float64)
        kept = np.zeros_like(coverage) if example.kept is None else example.kept.astype(np.float64)
        gone = [index for index, name in enumerate(example.names) if name not in names]
        return cls(example, (coverage - kept).clip(0), kept, coverage[:, gone].sum(axis=1))

    def judge(self, label: str) -> JudgedPatches:
        """Return what the example says of a label."""
        own, kept = self._column(self.drawn, label), self._column(self.kept, label)
        names = enumerate(self.example.names)
        others = [index for index, name in names if name not in (UNLABELED, label)]
        wrong = self.drawn[:, others].sum(axis=1)
        if own.any():  # the image's rest is not the label, except where others were kept
            wrong = np.maximum(wrong, 1 - own - kept - self.kept[:, others].sum(axis=1))
        else:
            wrong = np.maximum(wrong, self._removed(label))
        return JudgedPatches(own, kept, (wrong.clip(0, 1 - own - kept) - self.lost).clip(0))

    def _column(self, shares: Shares, label: str) -> Shares:
        names = self.example.names
        return shares[:, names.index(label)] if label in names else np.zeros(len(shares))

    def _removed(self, label: str) -> Shares:
        removed, names = self.example.removed, self.example.removed_names
        if removed is None or label not in names:
            return np.zeros(len(self.example.weights))
        return removed[:, names.index(label)].astype(np.float64)
