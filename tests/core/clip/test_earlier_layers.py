"""Layers of models of another depth than the authors'."""

from __future__ import annotations

from clearclip_core.clip.earlier_layers import AFFINITIES, LAYERS, scaled_layer


def test_layers_of_twelve_blocks_are_the_published_ones() -> None:
    assert [scaled_layer(layer, 12) for layer in range(1, 12)] == list(range(1, 12))
    assert (AFFINITIES["middle"].layer, AFFINITIES["middle"].smoothing) == (9, 4)
    assert LAYERS["middle"].layers == (4, 5, 6, 7, 8, 9, 10)


def test_layers_of_other_depths_lie_at_the_same_share() -> None:
    assert [scaled_layer(layer, 24) for layer in (4, 9, 10)] == [8, 18, 20]
    assert [scaled_layer(layer, 5) for layer in (4, 9, 10)] == [2, 4, 4]
    assert [scaled_layer(layer, 2) for layer in (1, 12)] == [1, 1]
    assert scaled_layer(9, 1) == 0  # a single block has its own input alone
