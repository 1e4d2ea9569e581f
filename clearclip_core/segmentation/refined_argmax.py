"""Argmax over probabilities that a guided filter has refined.

In most tiles one label alone can win, see `tile_candidates`; the others are computed only where
several can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.detail import fit_with_detail
from clearclip_core.segmentation.guided_filter import (
    REFINEMENT,
    Float32s,
    GuidedFilter,
    Refinement,
)
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.square_strips import write_strip
from clearclip_core.segmentation.tile_candidates import TileCandidates
from clearclip_core.segmentation.upsampling import Matrix
from clearclip_core.thread_pools import one_blas_thread, one_thread

Labels = npt.NDArray[np.int16]

#: A label competes if its probability somewhere is at least this share of the winner's.
SHARE = 0.5


@one_thread()
def decide_refined(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
    patch_px: float | None = None,
) -> tuple[Labels, npt.NDArray[np.float16]]:
    """Compute the label map and probabilities as ``Scores.decide``, but from refined ones.

    Labels compete whose probability somewhere is at least half of the winner's. The contrast words
    compete as one label.

    Args:
        scores: scores of the image.
        image: (H, W, 3) uint8 RGB, the image itself.
        threshold: refined probability below which a pixel gets no label; one for all labels or
            one for each.
        refinement: parameters of the guided filter.
        patch_px: side in px of `image` of the patches that the filter is fitted to; those of the
            scores by default.

    Raises:
        ValueError: `image` is not of the size that was scored, or neither one threshold nor one
            for each label.

    Returns:
        (H, W) int16 labels, -1 where a contrast word wins or the probability is below the
        threshold; and (H, W) float16 refined probabilities in [0, 1] of the winners.
    """
    thresholds = scores.thresholds(threshold)
    check_size(scores, image)
    if patch_px is None:
        patch_px = scores.plan.patch_image_px
    guided_filter = GuidedFilter(image, patch_px, refinement)
    functions, labels_of_maps = _fit(scores, guided_filter)
    candidates = TileCandidates(guided_filter, functions)
    has_threshold, tile = bool(thresholds.any()), guided_filter.tile_px
    height, width = guided_filter.image_hw
    labels, confidence = np.empty((height, width), np.int16), np.empty((height, width), np.float16)
    # The labels of all pixels of a row of the image, by rows of tiles.
    row_owners = labels_of_maps[candidates.middle_argmax].repeat(tile, axis=1)[:, :width]
    for row, owners in enumerate(row_owners):
        labels[row * tile : (row + 1) * tile] = owners
    for rows, roots in guided_filter.row_blocks(candidates.corners):
        probability = roots.clamp_(0, 1).square_()
        torch.from_numpy(confidence[rows]).copy_(probability)
        if has_threshold:
            limits = torch.from_numpy(thresholds[row_owners[rows.start // tile]])
            torch.from_numpy(labels[rows]).masked_fill_(probability < limits, -1)
    # The first of equal maps has the largest code; 0 is none's.
    codes = np.arange(len(functions), 0, -1, dtype=np.min_scalar_type(len(functions)))
    labels_of_codes = np.append(np.int16(-1), labels_of_maps[::-1])
    for top, left, side, maps, at_corners in candidates.ambiguous_squares():
        values = guided_filter.strip_values(top, left, side, at_corners)
        winners, largest = _largest_code(values, codes[maps.T].repeat(side, axis=1))
        owners = labels_of_codes.take(winners)
        probability = torch.from_numpy(largest).clamp_(0, 1).square_()
        if has_threshold:
            owners[probability.numpy() < thresholds[owners]] = -1
        write_strip(labels, top, left, owners)
        write_strip(confidence, top, left, probability.half().numpy())
    return labels, confidence


def check_size(scores: Scores, image: RGBArray) -> None:
    """Check that an image has the size that was scored.

    Raises:
        ValueError: it has not.
    """
    if image.shape[:2] != scores.plan.image_hw:
        raise ValueError(
            f"Expected argument `image` to be of size {scores.plan.image_hw}, but got "
            f"{image.shape[:2]}."
        )


@one_blas_thread()
def competing_probabilities(scores: Scores, y_px: Matrix, x_px: Matrix) -> tuple[Float32s, Labels]:
    """Compute the probabilities of the labels that compete, at positions of the image.

    Args:
        scores: scores of the image.
        y_px: (m,) rows, pixel 0 has its centre at 0.
        x_px: (n,) columns.

    Returns:
        (K, m, n) probabilities, each that of the label's best query; and (K,) the labels, -1 for
        the contrast words.
    """
    probabilities, labels = _probabilities(scores, scores.logits_at(y_px, x_px))
    competing = _competing(probabilities)
    return probabilities[competing], labels[competing]


def _fit(scores: Scores, guided_filter: GuidedFilter) -> tuple[Float32s, Labels]:
    """Fit square roots of probabilities to the colours, see `fit_with_detail`.

    They add up to less where labels blend, and a thin object's small probability weighs more.

    Returns:
        (K, 4, rows + 1, columns + 1) functions; and (K,) the labels that compete, -1 for the
        contrast words.
    """
    corners_px = guided_filter.grid.corners_px
    probabilities, labels = _probabilities(scores, scores.logits_at(*corners_px))
    knots, _ = _probabilities(scores, scores.logits_at_knots(*corners_px))
    some = _competing(probabilities)
    roots, root_knots = np.sqrt(probabilities[some]), np.sqrt(knots[some])
    return fit_with_detail(guided_filter, roots, root_knots), labels[some]


def _probabilities(
    scores: Scores, bands: Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]
) -> tuple[Float32s, Labels]:
    """Return (L, m, n) probabilities of each label's best query; and (L,) the labels."""
    query_labels = np.asarray(scores.vocabulary.query_labels, np.int16)
    # A label's queries follow one another.
    first = np.flatnonzero(np.diff(query_labels, prepend=-2))
    made = []
    for _, logits in bands:  # (r, n, Q)
        exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
        best = np.maximum.reduceat(exponents, first, axis=2)
        total = exponents.sum(axis=2, keepdims=True, dtype=np.float64)  # in any order the same
        made.append((best / total).transpose(2, 0, 1))
    return np.concatenate(made, axis=1, dtype=np.float32), query_labels[first]


def _competing(probabilities: Float32s) -> npt.NDArray[np.bool_]:
    """Return (L,) which labels somewhere have at least their share of the winner's probability."""
    winner = probabilities.max(axis=0)
    return np.array([(label >= SHARE * winner).any() for label in probabilities])


def _largest_code(
    maps: Float32s, codes: npt.NDArray[np.unsignedinteger[Any]]
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], Float32s]:
    """Return the code of the largest of some maps at each pixel, and its value.

    Of equal values the largest code is returned.

    Args:
        maps: (K, h, n).
        codes: (K, n), the code of each map in each column, above 0.

    Returns:
        (h, n) codes, and (h, n) float32.
    """
    largest = np.maximum.reduce(maps)
    # To look the code up where it is the largest takes a branch a pixel.
    is_largest = np.equal(maps, largest).view(np.uint8)
    return np.maximum.reduce(is_largest * codes[:, None]), largest
