"""Paint that contradicts the other pictures and the words beyond what chance allows.

It is set aside until somebody trusts it: one careless annotator must not make the predictions of
the others worse.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.examples import UNLABELED
from clearclip_core.adaptation.sufficient_statistics import Float64Array

BoolArray = npt.NDArray[np.bool_]

BOX: Final = "Its paint is a box, which bounds a thing but does not fill it."
OUTLIER: Final = "It covers what the words and the other pictures take for other labels."
EXCHANGED: Final = "It covers other labels' things, and its own things are painted as other labels."
MOSTLY: Final = "Most of what is painted here contradicts the other pictures."

#: Agreement of a label's paint with the words: usual where three pictures in ten exceed it, so that
#: half of them may be wrong in the same way; and far below that.
_USUAL = 0.5
_USUAL_QUANTILE = 0.7
_OUTLYING = 0.2

#: Below this median agreement a label means something else than its word. Labels were exchanged
#: where the words see its thing all the same, more than this share of that is painted as other
#: labels, and it covers the things of a label that means something else too, or that nobody paints:
#: from this median share of its paint on.
_ANOTHER_MEANING = 0.3
_TAKEN_SHARE = 0.6
_COVERING_SHARE = 0.3

#: Things of a label on so many pictures at least, painted as what they are, say that it was not
#: exchanged.
_ENOUGH_PICTURES = 15

#: A patch shows a label where this share of it is painted, and the words are sure of a label from
#: this probability on.
_PAINTED = 0.9
_SURE = 0.5

#: Smallest number of patches that say something of a label on a picture.
_FEW_PATCHES = 2

#: Number of pictures that say that a label's word means nothing, at least.
_FEW_PICTURES = 2

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
    shares = _predicted_shares(batches, [each.predicted for each in batches])
    others = shares if held_out is None else _predicted_shares(batches, held_out)
    labels = np.array([name != UNLABELED for name in names])
    taken = _taken(batches)
    lost = labels & (1 - _medians(taken).diagonal() > _TAKEN_SHARE)
    exchanged = _exchanged(shares, taken, lost, labels)
    reasons[(reasons == "") & exchanged] = EXCHANGED
    lost &= exchanged | ~_is_meaningless(shares)
    shown = np.stack([batch.painted.max(axis=0, initial=0) > 0 for batch in batches])
    outlying = _outlying(shares, others, labels)
    by_words = _outlying(shares, shares, labels)
    outlying |= _alike(outlying, by_words, shares, shown) | _mutual(outlying, by_words, shares)
    outlying |= _replacing(shares, lost, shown)
    reasons[(reasons == "") & outlying] = OUTLIER
    for rows in (*_rows_of_annotators(batches), *([index] for index in range(len(batches)))):
        _judge_together(reasons, shown, rows)
    return [
        SetAside(batch.example, names[group], reasons[index, group])
        for index, batch in enumerate(batches)
        for group in np.flatnonzero(reasons[index] != "")
        if batch.example not in trusted and shown[index, group]
    ]


def _predicted_shares(
    batches: Sequence[Batch], predicted: Sequence[npt.NDArray[np.intp]]
) -> Float64Array:
    """Return (n, G, G) shares of each label's patches by what is predicted; nan for too few."""
    groups = batches[0].text.shape[1]
    shares = np.full((len(batches), groups, groups), np.nan)
    for index, (batch, found) in enumerate(zip(batches, predicted, strict=True)):
        painted = batch.painted > _PAINTED
        for group in np.flatnonzero(painted.sum(axis=0) >= _FEW_PATCHES):
            own = found[painted[:, group]]
            shares[index, group] = np.bincount(own, minlength=groups) / len(own)
    return shares


def _taken(batches: Sequence[Batch]) -> Float64Array:
    """Return (n, G, G) shares of the patches that show a label for sure, by how they are painted.

    Of patches with paint, where the words are sure of the first label, the share that is painted as
    the second; nan where there are too few such patches.
    """
    groups = batches[0].text.shape[1]
    taken = np.full((len(batches), groups, groups), np.nan)
    for index, batch in enumerate(batches):
        sure = (batch.words.max(axis=1) > _SURE) & (batch.covered > _PAINTED)
        painted = batch.painted >= _SURE
        for group in range(groups):
            own = sure & (batch.predicted == group)
            if own.sum() > _FEW_PATCHES:
                taken[index, group] = painted[own].mean(axis=0)
    return taken


def _outlying(shares: Float64Array, others: Float64Array, labels: BoolArray) -> BoolArray:
    """Return (n, G) bool: labels on pictures that differ from what they mean on others.

    A label means what its word says where that is usual, or where it does so on one picture and
    here covers a thing of another label whose word is usually right.

    Args:
        shares: (n, G, G) shares of each label's paint by what the words predict.
        others: (n, G, G) shares by what the other pictures' paint teaches.
        labels: (G,) bool, groups that are no contrast words.
    """
    agreement, learned = (np.diagonal(each, axis1=1, axis2=2) for each in (shares, others))
    agreed = np.nan_to_num(np.fmax(agreement, learned))
    shown = np.nan_to_num(agreement, nan=-1.0)
    usual = np.array(
        [
            np.quantile(each[each >= 0], _USUAL_QUANTILE) if each.max() >= 0 else 0
            for each in shown.T
        ]
    )
    reliable = labels & (usual > _USUAL)
    strange = _without_own(np.nan_to_num(shares))
    covers = (strange[..., reliable] > _USUAL).any(axis=2)
    meant = (usual > _USUAL) | ((shown.max(axis=0) > _USUAL) & covers)
    outlying: BoolArray = (shown >= 0) & (agreed < _OUTLYING) & meant
    return outlying


def _alike(
    outlying: BoolArray, by_words: BoolArray, shares: Float64Array, shown: BoolArray
) -> BoolArray:
    """Return (n, G) bool: labels that differ on a picture as they do on others, which are outlying.

    Paint of the same error may bear itself out: what covers another label's things on one picture
    is predicted so from the pictures where it does too. So where the label covers the things of
    another, of which nothing is painted on the picture, and most such pictures are outlying, all
    of them are.

    Args:
        outlying: (n, G) bool, by the words and by what the other pictures' paint teaches.
        by_words: (n, G) bool, by the words alone.
        shares: (n, G, G) shares of each label's paint by what the words predict.
        shown: (n, G) bool, labels that are painted on a picture.
    """
    covers = _without_own(np.nan_to_num(shares)) > _USUAL
    alike = by_words[..., None] & covers & ~shown[:, None]
    most = (alike & outlying[..., None]).sum(axis=0) > alike.sum(axis=0) / 2
    found: BoolArray = (alike & most).any(axis=2)
    return found


def _mutual(outlying: BoolArray, by_words: BoolArray, shares: Float64Array) -> BoolArray:
    """Return (n, G) bool: labels that cover an outlying label's things, which covers theirs.

    Two labels are exchanged on such a picture, and one of both shows it.

    Args:
        outlying: (n, G) bool, by the words and by what the other pictures' paint teaches.
        by_words: (n, G) bool, by the words alone.
        shares: (n, G, G) shares of each label's paint by what the words predict.
    """
    covered = _without_own(np.nan_to_num(shares)).argmax(axis=2)
    back = np.take_along_axis(covered, covered, axis=1) == np.arange(covered.shape[1])
    found: BoolArray = by_words & back & np.take_along_axis(outlying, covered, axis=1)
    return found


def _replacing(shares: Float64Array, lost: BoolArray, shown: BoolArray) -> BoolArray:
    """Return (n, G) bool: labels that cover lost labels' things, and elsewhere mean their own.

    Nothing held-out shows what that costs: the lost labels are nowhere painted as they should be.
    One lost label's things are enough. Several labels that are lost by a little each count
    together only where none of their paint is on the picture: weak words see things of theirs
    everywhere, and who paints these labels where they are has not forgotten them.

    Args:
        shares: (n, G, G) shares of each label's paint by what the words predict.
        lost: (G,) bool, labels with words of a meaning whose things are painted as other labels.
        shown: (n, G) bool, labels that are painted on a picture.
    """
    agreement = np.nan_to_num(np.diagonal(shares, axis1=1, axis2=2))
    covered = _without_own(np.nan_to_num(shares))[..., lost]
    forgotten = np.where(shown[:, None, lost], 0, covered).sum(axis=2)
    covers = np.maximum(forgotten, covered.max(axis=2, initial=0)) > _COVERING_SHARE
    replacing: BoolArray = covers & (agreement.max(axis=0) > _USUAL)
    return replacing


def _is_meaningless(shares: Float64Array) -> BoolArray:
    """Return (G,) bool: the labels that are painted on several pictures, never as words say."""
    agreement = np.diagonal(shares, axis1=1, axis2=2)
    painted = np.isfinite(agreement).sum(axis=0) >= _FEW_PICTURES
    meaningless: BoolArray = painted & (np.nan_to_num(agreement).max(axis=0) < _ANOTHER_MEANING)
    return meaningless


def _exchanged(
    shares: Float64Array, taken: Float64Array, lost: BoolArray, labels: BoolArray
) -> BoolArray:
    """Return (G,) bool: the labels that were exchanged with others.

    A label whose words mean nothing may win on things of other labels too, and is no such label: it
    covers what the words take for none, or for a label that is painted where they see it. Nor is
    one whose words are often wrong, where enough pictures say so: what they take for it is painted
    as labels that mean what their words say.

    Args:
        shares: (n, G, G) shares of each label's paint by what the words predict.
        taken: (n, G, G) shares of what the words take for each label, by how it is painted.
        lost: (G,) bool, labels whose things are painted as other labels.
        labels: (G,) bool, groups that are no contrast words.
    """
    covering = _medians(shares)  # (G, G), nan for labels that nobody paints
    agreement = covering.diagonal()
    victims = labels & ~(agreement >= _ANOTHER_MEANING)
    covers = (covering > _COVERING_SHARE)[:, victims].any(axis=1)
    means_another = labels & (agreement < _ANOTHER_MEANING)
    takers = _without_own(_medians(taken))[:, means_another]
    pictures = np.isfinite(taken).all(axis=2).sum(axis=0)
    is_taken = (takers > _COVERING_SHARE).any(axis=1) | (pictures < _ENOUGH_PICTURES)
    exchanged: BoolArray = means_another & lost & covers & is_taken
    return exchanged


def _without_own(values: Float64Array) -> Float64Array:
    """Return values (..., G, G) with a diagonal of 0."""
    others: Float64Array = np.where(np.eye(values.shape[-1], dtype=bool), 0, values)
    return others


def _medians(values: Float64Array) -> Float64Array:
    """Return the medians over the first axis, of what is not nan; nan where all is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what is nan on all pictures
        medians: Float64Array = np.nanmedian(values, axis=0)
    return medians


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
