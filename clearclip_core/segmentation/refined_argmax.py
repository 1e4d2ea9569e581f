"""Argmax over probabilities that a guided filter has refined."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import (
    REFINEMENT,
    Float32s,
    GuidedFilter,
    Refinement,
)
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Indices, Matrix
from clearclip_core.thread_pools import one_blas_thread, one_thread

Int16s = npt.NDArray[np.int16]

#: A label competes if its probability somewhere is at least this share of the winner's.
SHARE = 0.5


@one_thread()
def decide_refined(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
    patch_px: float | None = None,
) -> tuple[Int16s, npt.NDArray[np.float16]]:
    """Compute the label map and probabilities as ``Scores.decide``, but from refined ones.

    Labels compete whose probability somewhere is at least half of the winner's. The contrast words
    compete as one label.

    Args:
        image: (H, W, 3) uint8 RGB, the image itself.
        threshold: refined probability below which a pixel gets no label; one for all labels or
            one for each.
        patch_px: side in px of `image` of the patches that the filter is fitted to; those of the
            scores by default.

    Returns:
        (H, W) int16 labels, -1 where a contrast word wins or the probability is below the
        threshold; and (H, W) float16 refined probabilities in [0, 1] of the winners.
    """
    thresholds = scores.thresholds(threshold)
    check_image_size(scores, image)
    if patch_px is None:
        patch_px = scores.plan.patch_image_px
    guided_filter = GuidedFilter(image, patch_px, refinement)
    functions, owners = _fit(scores, guided_filter)
    labels = np.empty(scores.plan.image_hw, np.int16)
    confidence = np.empty(scores.plan.image_hw, np.float16)
    for band in guided_filter.argmax(functions, owners).bands():
        labels[band.rows] = band.labels
        probability = torch.from_numpy(band.values).clamp_(0, 1).square_()
        torch.from_numpy(confidence[band.rows]).copy_(probability)
        if thresholds.any():
            labels[band.rows][band.values < thresholds[band.labels]] = -1
    return labels, confidence


def check_image_size(scores: Scores, image: RGBArray) -> None:
    """Check that an image has the size that was scored.

    Raises:
        ValueError: it has not.
    """
    if image.shape[:2] != scores.plan.image_hw:
        raise ValueError(
            f"Expected argument `image` to be of size {scores.plan.image_hw}, but got "
            f"{image.shape[:2]}."
        )


#: Yields logits at rows and columns of the image, of some queries or all: ``Scores.logits_at``.
LogitsAt = Callable[
    [Matrix, Matrix, Indices | None], Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]
]


@one_blas_thread()
def competing_probabilities(
    query_labels: Int16s,
    logits_at: LogitsAt,
    y_px: Matrix,
    x_px: Matrix,
    labels: Int16s | None = None,
) -> tuple[Float32s, Int16s]:
    """Compute the probabilities of the labels that compete, at positions of the image.

    Of the other labels no more is kept than a band of rows.

    Args:
        query_labels: (Q,) the label of each query, -1 for the contrast words.
        y_px: (m,) rows, pixel 0 has its centre at 0.
        x_px: (n,) columns.
        labels: the labels that compete, if they are known.

    Returns:
        (K, m, n) probabilities, each that of the label's best query; and (K,) the labels.
    """
    first = _first_queries(query_labels)
    competes, logs = np.zeros(len(first), np.bool_), []
    for _, logits in logits_at(y_px, x_px, None):  # (r, n, Q)
        most = logits.max(axis=2, keepdims=True)
        logits -= most
        best = np.maximum.reduceat(logits, first, axis=2)
        competes |= (best >= math.log(SHARE)).any(axis=(0, 1))
        total = np.exp(logits, out=logits).sum(axis=2, dtype=np.float64)  # in any order the same
        logs.append(most[..., 0] + np.log(total))
    if labels is None:
        labels = query_labels[first][competes]
    queries = np.flatnonzero(np.isin(query_labels, labels))
    first, made = _first_queries(query_labels[queries]), []
    every_log = np.concatenate(logs)[..., None]
    for rows, logits in logits_at(y_px, x_px, queries):
        best = np.maximum.reduceat(logits, first, axis=2)
        made.append(np.exp(best - every_log[rows], dtype=np.float32).transpose(2, 0, 1))
    return np.concatenate(made, axis=1), labels


def _first_queries(query_labels: Int16s) -> Indices:
    """Return the index of each label's first query; a label's queries follow one another."""
    return np.flatnonzero(np.diff(query_labels, prepend=-2))


def _fit(scores: Scores, guided_filter: GuidedFilter) -> tuple[torch.Tensor, Int16s]:
    """Fit square roots of probabilities to the colours, see ``ColourFit.fit_with_detail``.

    They add up to less where labels blend, and a thin object's small probability weighs more.

    Returns:
        (K, 4, rows + 1, columns + 1) functions; and (K,) the labels that compete, -1 for the
        contrast words.
    """
    at = guided_filter.grid.corners_px
    query_labels = np.asarray(scores.vocabulary.query_labels, np.int16)
    probabilities, labels = competing_probabilities(query_labels, scores.logits_at, *at)
    knots, _ = competing_probabilities(query_labels, scores.logits_at_knots, *at, labels)
    roots, root_knots = (torch.from_numpy(each).sqrt() for each in (probabilities, knots))
    return guided_filter.colour_fit.fit_with_detail(roots, root_knots), labels
