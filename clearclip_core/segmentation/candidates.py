"""Cells of an image with the candidates that can win in them, in batches of similar size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.upsampling import Indices, Values

#: A batch holds about this many values, which fit into the cache of one CPU core.
BATCH_ELEMENTS = 1 << 19


def candidate_batches(
    possible: npt.NDArray[np.bool_], values_per_cell: int, most_cells: int | None = None
) -> Iterator[tuple[Indices, Indices]]:
    """Batch cells that have about the same number of candidates.

    Args:
        possible: (N, Q) bool, whether candidate q can win somewhere in a cell; at least one can in
            each cell.
        values_per_cell: values that a cell has for each candidate. It sets the size of a batch.
        most_cells: most cells of a batch; any number by default.

    Yields:
        (n,) indices of cells, and (n, K) their candidates in ascending order. Where a cell has
        fewer than K, its last candidate is repeated.
    """
    _, candidates = np.nonzero(possible)
    counts = possible.sum(axis=1)
    starts = np.cumsum(counts) - counts
    order = np.argsort(counts, kind="stable")
    done, most_cells = 0, most_cells or len(order)
    while done < len(order):
        # At most a quarter more candidates than the cell with the fewest, to waste few values.
        most = counts[order[done]] * 5 // 4 + 1
        stop = int(np.searchsorted(counts[order], most, side="right"))
        stop = min(stop, done + max(1, BATCH_ELEMENTS // int(most * values_per_cell)))
        stop = min(stop, done + most_cells)
        cells = order[done:stop]
        rank = np.minimum(np.arange(counts[cells].max()), counts[cells, None] - 1)
        yield cells, candidates[starts[cells, None] + rank]
        done = stop


def first_maximum(
    values: Values, labels: npt.NDArray[np.int16]
) -> tuple[npt.NDArray[np.int16], Values]:
    """Return the label of the largest value of each pixel, and that value.

    Of equal values the first wins.

    Args:
        values: (N, K, P), K candidates in P pixels of N cells.
        labels: (N, K), the label of each candidate.

    Returns:
        (N, P) int16 labels and (N, P) values.
    """
    largest = values[:, 0].copy()
    count, better = values.shape[1], np.empty(largest.shape, np.bool_)
    # The winner is the last one that was better than all before it, so its index is the largest.
    winner = np.zeros(largest.shape, np.min_scalar_type(count - 1))
    for index in range(1, count):
        np.greater(values[:, index], largest, out=better)
        np.maximum(largest, values[:, index], out=largest)
        # To copy the index where it is better takes a branch a pixel.
        np.maximum(winner, better.view(np.uint8) * winner.dtype.type(index), out=winner)
    return labels.ravel().take(winner + count * np.arange(len(labels))[:, None]), largest
