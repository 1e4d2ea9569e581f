"""Batches of windows: how many windows a batch holds, and how batches are joined and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, repeat

import torch

from clearclip_core.clip.dense_encoder import DenseEncoder, WindowFeatures

#: Windows of a batch on a CPU: larger batches outgrow the cache.
_CPU_WINDOWS = 4
_CUDA_WINDOWS = 64
_OTHER_WINDOWS = 8


def batches(windows: Iterator[torch.Tensor], batch_size: int) -> Iterator[torch.Tensor]:
    """Stack windows of one size into batches.

    Args:
        windows: (3, h, w) each.
        batch_size: windows of a batch; the last batch may hold fewer.

    Yields:
        (B, 3, h, w).
    """
    while batch := list(islice(windows, batch_size)):
        yield torch.stack(batch)


def join_windows(encoded: Sequence[WindowFeatures]) -> WindowFeatures:
    """Join the features of several batches into one, in the order given."""
    patches = torch.cat([batch.patches for batch in encoded])
    cls = [batch.cls for batch in encoded if batch.cls is not None]
    return WindowFeatures(patches, torch.cat(cls) if cls else None)


def split_windows(windows: WindowFeatures, counts: Sequence[int]) -> Iterator[WindowFeatures]:
    """Split features into consecutive groups of windows.

    Args:
        windows: features of ``sum(counts)`` windows.
        counts: windows of each group.

    Yields:
        The features of each group. Where there are several, each is a copy, so that dropping one
        group frees its memory.
    """
    patches = torch.split(windows.patches, list(counts))
    cls = repeat(None) if windows.cls is None else torch.split(windows.cls, list(counts))
    for group, group_cls in zip(patches, cls, strict=False):
        if len(counts) == 1:
            yield WindowFeatures(group, group_cls)
        else:
            yield WindowFeatures(group.clone(), None if group_cls is None else group_cls.clone())


def choose_windows_at_once(encoder: DenseEncoder, window_px: int) -> int:
    """Choose the default batch size for an encoder's device.

    On a CPU 4. On CUDA as many windows as fit into half of the free memory, 64 at most. On other
    devices 8, because their free memory cannot be read.

    Args:
        encoder: the encoder that gets the batches.
        window_px: side of the square window.
    """
    if encoder.device.type == "cpu":
        return _CPU_WINDOWS
    if encoder.device.type != "cuda":
        return _OTHER_WINDOWS
    free, _ = torch.cuda.mem_get_info(encoder.device)
    fitting = free // 2 // encoder.activation_bytes((window_px, window_px))
    return int(min(max(fitting, 1), _CUDA_WINDOWS))


def check_windows_at_once(windows: int) -> None:
    """Check a batch size.

    Raises:
        ValueError: `windows` is below 1.
    """
    if windows < 1:
        raise ValueError(f"Expected argument `windows_at_once` to be 1 or more, but got {windows}.")
