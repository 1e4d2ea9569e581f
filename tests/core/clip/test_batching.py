"""Batches of windows: their default size, and their order when they are joined and split."""

from __future__ import annotations

import open_clip
import pytest
import torch

from clearclip_core import METHODS, DenseEncoder, WindowFeatures
from clearclip_core.clip.dense_encoder import (
    batches,
    choose_windows_at_once,
    join_windows,
    split_windows,
)


def test_a_batch_on_cuda_takes_half_of_the_free_memory(
    clip_model: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = DenseEncoder(clip_model, METHODS["clearclip"])
    assert choose_windows_at_once(encoder, 64) == 4
    monkeypatch.setattr(DenseEncoder, "device", torch.device("cuda:0"))
    one_window = encoder.activation_bytes((64, 64))
    assert one_window == 17 * 16 * 64 * 4  # tokens, widths, width, bytes
    for windows, chosen in ((0.5, 1), (1, 1), (20.5, 20), (1000, 64)):
        free = int(2 * windows * one_window)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**12))
        assert choose_windows_at_once(encoder, 64) == chosen


def test_batches_keep_the_order_and_the_last_one_holds_the_rest() -> None:
    windows = [torch.full((3, 2, 2), float(index)) for index in range(5)]
    made = [batch[:, 0, 0, 0].tolist() for batch in batches(iter(windows), 2)]
    assert made == [[0, 1], [2, 3], [4]]


def test_joined_windows_are_split_into_the_same_groups() -> None:
    patches, cls = torch.arange(5.0).reshape(5, 1, 1, 1), torch.arange(5.0, 10).reshape(5, 1)
    joined = join_windows(
        [WindowFeatures(patches[:2], cls[:2]), WindowFeatures(patches[2:], cls[2:])]
    )
    groups = list(split_windows(joined, [1, 4]))
    assert [group.patches.flatten().tolist() for group in groups] == [[0], [1, 2, 3, 4]]
    assert [group.cls.flatten().tolist() for group in groups if group.cls is not None] == [
        [5],
        [6, 7, 8, 9],
    ]
