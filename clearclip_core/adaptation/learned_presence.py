"""What was learned of the presence of labels in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.serialization import check_names, check_shape
from clearclip_core.segmentation.scores import TEMPERATURE

#: Least probability of presence: no label is ruled out.
_LEAST = 0.02


def cls_scores(
    embeddings: torch.Tensor, image_cls: torch.Tensor, owners: Sequence[str]
) -> dict[str, float]:
    """Return name of each label -> its CLS score: the cosine of the image with its best query.

    Args:
        embeddings: (Q, D) unit text embeddings of queries.
        image_cls: (D,) unit CLS feature of the image.
        owners: Q names of the labels that the queries belong to.
    """
    scores: dict[str, float] = {}
    cosines = embeddings.double().cpu() @ image_cls.double().cpu()
    for name, cosine in zip(owners, cosines.tolist(), strict=True):
        scores[name] = max(cosine, scores.get(name, cosine))
    return scores


@dataclass(frozen=True, eq=False)
class LearnedPresence:
    """The probability that a label is in an image: ``sigmoid(intercept + slope · CLS score)``.

    Attributes:
        names: names of the labels, sorted.
        intercepts: (K,) float32, log odds at a CLS score of 0.
        slopes: (K,) float32, log odds for each unit of the cosine.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.
    """

    names: tuple[str, ...]
    intercepts: npt.NDArray[np.float32]
    slopes: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        check_names(self.names)
        check_shape("intercepts", self.intercepts, (len(self.names),))
        check_shape("slopes", self.slopes, (len(self.names),))

    def of(self, scores: Mapping[str, float], names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return what presence adds to the cosines of some labels in one image.

        Args:
            scores: name of the label -> its CLS score in the image.
            names: N names of labels; those of which nothing was learned get 0.

        Returns:
            (N,) float64 in ``[log(0.02) / temperature, 0]``.

        >>> half = LearnedPresence(("sky",), np.zeros(1, np.float32), np.zeros(1, np.float32))
        >>> (TEMPERATURE * half.of({"sky": 0.2, "sea": 0.1}, ["sea", "sky"])).round(3).tolist()
        [0.0, -0.693]
        """
        rows = {name: row for row, name in enumerate(self.names)}
        offsets = np.zeros(len(names))
        for place, name in enumerate(names):
            if name in rows:
                row = rows[name]
                odds = float(self.intercepts[row]) + float(self.slopes[row]) * scores[name]
                chance = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
                offsets[place] = np.log(max(chance, _LEAST)) / TEMPERATURE
        return offsets
