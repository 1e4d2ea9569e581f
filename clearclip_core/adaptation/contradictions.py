"""Paint that contradicts the other pictures and the words beyond what chance allows.

It is set aside until somebody trusts it: one careless annotator must not make the predictions of
the others worse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.sufficient_statistics import Float64Array

BoolArray = npt.NDArray[np.bool_]

BOX: Final = "Its paint is a box, which bounds a thing but does not fill it."
OUTLIER: Final = "It covers what the words and the other pictures take for other labels."
EXCHANGED: Final = "It covers other labels' things, and its own things are painted as other labels."
MOSTLY: Final = "Most of what is painted here contradicts the other pictures."

#: Agreement of a label's paint with the words: usual on most pictures, and far below that.
_USUAL = 0.5
_OUTLYING = 0.2

#: Below this median agreement a label means something else than its word. Where the words see its
#: thing all the same, and more than this share of that is painted as other labels, labels were
#: exchanged; a label whose word means nothing has no such thing.
_ANOTHER_MEANING = 0.3
_TAKEN_SHARE = 0.6

#: A patch shows a label where this share of it is painted, and the words are sure of a label from
#: this probability on.
_PAINTED = 0.9
_SURE = 0.5

#: Smallest number of patches that say something of a label on a picture.
_FEW_PATCHES = 2

#: Where at least this share of an annotator's or an example's labels is set aside, all is.
_MOST = 0.5


@dataclass(frozen=True)
class SetAside:
    """A label's paint on an example that is not learned from.

    Attributes:
        example: digest of the training example.
        label: name of the label.
        reason: why, as a sentence about the label.
    """

    example: str
    label: str
    reason: str


def find_contradictions(
    batches: Sequence[Batch],
    names: Sequence[str],
    trusted: Collection[str] = (),
    held_out: Sequence[npt.NDArray[np.intp]] | None = None,
) -> list[SetAside]:
    """Find the paint that is not learned from.

    Words are often wrong on some pictures only, and such corrections teach most. So paint that only
    the words contradict is learned from where the other pictures' paint agrees with it.

    Args:
        batches: n examples for one vocabulary.
        names: names of its G groups.
        trusted: digests of examples of which nothing is set aside.
        held_out: for each example the (N,) groups of its patches by an adaptation to the others;
            None trusts the words.
    """
    reasons = np.full((len(batches), len(names)), "", object)
    for index, batch in enumerate(batches):
        reasons[index, batch.boxes] = BOX
    agreement, taken = _agreement(batches, [each.predicted for each in batches]), _taken(batches)
    others = agreement if held_out is None else _agreement(batches, held_out)
    for group in range(len(names)):
        _judge(reasons[:, group], agreement[:, group], others[:, group], taken[:, group])
    shown = np.stack([batch.painted.max(axis=0, initial=0) > 0 for batch in batches])
    for rows in (*_rows_of_annotators(batches), *([index] for index in range(len(batches)))):
        _judge_together(reasons, shown, rows)
    return [
        SetAside(batch.example, names[group], reasons[index, group])
        for index, batch in enumerate(batches)
        for group in np.flatnonzero(reasons[index] != "")
        if batch.example not in trusted and shown[index, group]
    ]


def _agreement(batches: Sequence[Batch], predicted: Sequence[npt.NDArray[np.intp]]) -> Float64Array:
    """Return (n, G) shares of each label's patches that are predicted so; nan for too few."""
    agreement = np.full((len(batches), batches[0].text.shape[1]), np.nan)
    for index, (batch, groups) in enumerate(zip(batches, predicted, strict=True)):
        painted = batch.painted > _PAINTED
        for group in np.flatnonzero(painted.sum(axis=0) >= _FEW_PATCHES):
            agreement[index, group] = (groups[painted[:, group]] == group).mean()
    return agreement


def _taken(batches: Sequence[Batch]) -> Float64Array:
    """Return (n, G) shares of painted patches of which the words are sure that go to other labels.

    It is nan where there are too few such patches.
    """
    taken = np.full((len(batches), batches[0].text.shape[1]), np.nan)
    for index, batch in enumerate(batches):
        sure = (batch.words.max(axis=1) > _SURE) & (batch.covered > _PAINTED)
        for group in range(taken.shape[1]):
            own = sure & (batch.predicted == group)
            if own.sum() > _FEW_PATCHES:
                taken[index, group] = (batch.painted[own, group] < _SURE).mean()
    return taken


def _judge(
    reasons: npt.NDArray[np.object_],
    agreement: Float64Array,
    others: Float64Array,
    taken: Float64Array,
) -> None:
    """Write down why a label is set aside on pictures; all arrays are (n,)."""
    painted = np.isfinite(agreement)
    if not painted.any():
        return
    usual = np.median(agreement[painted])
    if usual > _USUAL:
        outlying = np.maximum(np.nan_to_num(agreement), np.nan_to_num(others)) < _OUTLYING
        reasons[painted & outlying & (reasons == "")] = OUTLIER
    seen = np.isfinite(taken)
    if usual < _ANOTHER_MEANING and seen.any() and np.median(taken[seen]) > _TAKEN_SHARE:
        reasons[reasons == ""] = EXCHANGED


def _rows_of_annotators(batches: Sequence[Batch]) -> Iterable[list[int]]:
    """Return the indices of each annotator's examples, where several annotators are known."""
    annotators = {batch.annotator for batch in batches}
    if len(annotators) < 2:
        return []
    return [
        [index for index, batch in enumerate(batches) if batch.annotator == each]
        for each in sorted(annotators - {""})
    ]


def _judge_together(
    reasons: npt.NDArray[np.object_], shown: BoolArray, rows: Sequence[int]
) -> None:
    """Set all of some examples aside where most of them contradict, boxes not counted."""
    contradicts = np.isin(reasons[rows], (OUTLIER, EXCHANGED)) & shown[rows]
    counted = shown[rows] & (reasons[rows] != BOX)
    if contradicts.sum() > _FEW_PATCHES and contradicts.sum() >= _MOST * counted.sum():
        reasons[rows] = np.where(reasons[rows] == "", MOSTLY, reasons[rows])
