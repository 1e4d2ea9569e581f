"""What is learned beside directions and offsets: joined words, and the presence of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from clearclip_core.adaptation.acceptance import Comparison
from clearclip_core.adaptation.adaptation import Adaptation, group_names
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.examples import Example
from clearclip_core.adaptation.fit import Fit, mean_iou
from clearclip_core.adaptation.presence import learn_presence
from clearclip_core.adaptation.synonyms import learn_synonyms
from clearclip_core.quantities import quantity
from clearclip_core.vocabulary import Vocabulary


class Lessons:
    """Lessons that are added to a fit one after another, each judged on top of those before it.

    Args:
        examples: n training examples.
        embeddings: (Q, D) unit text embeddings of the vocabulary's queries.
        vocabulary: the words.
        label_loss: IoU in [0, 1] that a label may lose at most.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        embeddings: torch.Tensor,
        vocabulary: Vocabulary,
        label_loss: float,
    ) -> None:
        self._examples = examples
        self._embeddings = embeddings
        self._vocabulary = vocabulary
        self._names = group_names(vocabulary)
        self._label_loss = label_loss

    def join_synonyms(
        self, fit: Fit, evidence: Sequence[Evidence]
    ) -> tuple[Fit, Sequence[Evidence]]:
        """Join the words of labels where that gains.

        Args:
            fit: the fit so far.
            evidence: what the n examples say.

        Returns:
            The fit, and the evidence with the text logits of joined words.
        """
        found = learn_synonyms(
            self._examples,
            evidence,
            self._embeddings,
            self._vocabulary,
            self._names,
            fit.adaptation,
            self._label_loss,
        )
        if not found.joined or found.comparison is None:
            return replace(fit, synonyms=found.refused), evidence
        labels = ", ".join(f"“{name}”" for name in found.joined)
        text = f"The words of {labels} are joined; {_change(found.comparison)}"
        adaptation = replace(self._adaptation(fit), joined=found.joined)
        fit = self._changed(replace(fit, adaptation=adaptation), found.comparison)
        return replace(fit, synonyms=text), found.evidence

    def learn_presence(self, fit: Fit, evidence: Sequence[Evidence]) -> Fit:
        """Learn how likely labels are in an image at all, where that gains.

        Args:
            fit: the fit so far.
            evidence: what the n examples say.
        """
        found = learn_presence(
            self._examples,
            evidence,
            self._embeddings,
            self._vocabulary,
            self._names,
            fit.adaptation,
            self._label_loss,
        )
        if found.presence is None or found.comparison is None:
            return replace(fit, presence=found.refused)
        labels = quantity(len(found.presence.names), "label")
        text = f"Learned of {labels}; {_change(found.comparison)}"
        adaptation = replace(self._adaptation(fit), presence=found.presence)
        fit = self._changed(replace(fit, adaptation=adaptation), found.comparison)
        return replace(fit, presence=text)

    def _adaptation(self, fit: Fit) -> Adaptation:
        """Return the adaptation of a fit, or one without a label."""
        nothing = np.zeros((0, self._embeddings.shape[1]), np.float32), np.zeros(0, np.float32)
        return fit.adaptation or Adaptation((), *nothing, fit.pictures)

    def _changed(self, fit: Fit, comparison: Comparison) -> Fit:
        """Change the IoUs of a fit by what a lesson changes on held-out images."""
        changes = dict(
            zip(self._names, (comparison.after - comparison.before).tolist(), strict=True)
        )
        ious = {
            name: min(max(iou + changes[name], 0.0), 1.0) for name, iou in fit.adapted_ious.items()
        }
        return replace(fit, adapted_ious=ious, adapted_iou=mean_iou(ious))


def _change(comparison: Comparison) -> str:
    return f"with it the IoU on held-out pictures changes by {100 * comparison.gain:+.1f} points."
