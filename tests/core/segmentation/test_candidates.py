"""Batches of cells with their candidates, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation.candidates import candidate_batches, first_maximum


@pytest.mark.parametrize("elements", [1, 1 << 19])
def test_every_cell_is_batched_once_with_all_its_candidates(
    monkeypatch: pytest.MonkeyPatch, elements: int
) -> None:
    monkeypatch.setattr("clearclip_core.segmentation.candidates.BATCH_ELEMENTS", elements)
    possible = np.random.default_rng(1).random((200, 12)) < 0.4
    possible[:, 5] = True
    found = {
        int(cell): row.tolist()
        for cells, candidates in candidate_batches(possible, values_per_cell=9)
        for cell, row in zip(cells, candidates, strict=True)
    }
    assert sorted(found) == list(range(200))
    for cell, row in found.items():
        own = np.flatnonzero(possible[cell]).tolist()
        assert row[: len(own)] == own
        assert set(row[len(own) :]) <= {own[-1]}  # the last one is repeated


def test_batches_have_at_most_so_many_cells() -> None:
    possible = np.ones((7, 2), np.bool_)
    sizes = [len(cells) for cells, _ in candidate_batches(possible, 1, most_cells=3)]
    assert sizes == [3, 3, 1]


def test_the_first_of_equal_values_wins() -> None:
    values = np.array([[[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]])
    winner, largest = first_maximum(values, np.array([[7, 4]], np.int16))
    assert winner.tolist() == [[7, 4, 7]]
    assert largest.tolist() == [[1.0, 3.0, 3.0]]


@pytest.mark.parametrize("count", [1, 2, 12, 300])
def test_the_largest_of_any_number_of_candidates_wins(count: int) -> None:
    generator = np.random.default_rng(2)
    values = generator.integers(0, 40, (5, count, 50)) / 8  # many are equal
    labels = generator.permutation(5 * count).reshape(5, count).astype(np.int16) - 1
    winner, largest = first_maximum(values, labels)
    assert np.array_equal(largest, values.max(axis=1))
    assert np.array_equal(winner, np.take_along_axis(labels, values.argmax(axis=1), axis=1))
