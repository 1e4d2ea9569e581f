"""Sink channels of weights: a table of published ones, and those found from pictures, on disk.

A few channels of a trained ViT are extreme in tokens of high norm. They belong to the weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.readout import sink_shares
from clearclip_core.clip.weights import (
    DEFAULT_FOLDER,
    ModelName,
    existing_path,
    is_torchscript,
    weights_id,
)

#: Model name -> sink channels as the authors of RF-CLIP give them.
PUBLISHED: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "ViT-B-16/openai": (4, 162, 189, 326, 429, 474, 633, 713),
        "ViT-L-14/openai": (250, 261, 437, 650, 720, 779, 936, 1005),
    }
)

#: Channels at most, as many as the published ones.
_MOST = 8

#: A token is of high norm if its norm is above this many times its window's median.
_HIGH_NORM = 2.0


def sink_channels(name: str, folder: Path | None = None) -> tuple[int, ...] | None:
    """Return the sink channels of a model's weights; None where they are not known.

    Args:
        folder: folder of weights; `DEFAULT_FOLDER` by default.

    Raises:
        ValueError: an unknown name, or a file that `save_sink_channels` did not write.
        WeightsNotFoundError: the file or folder of the weights is missing.
    """
    parsed = ModelName.parse(name)
    published = PUBLISHED.get(_published_name(parsed))
    if published is not None:
        return published
    path = _path(name, folder)
    if not path.exists():
        return None
    try:
        channels = json.loads(path.read_text(encoding="utf-8"))["sink_channels"]
        return tuple(int(channel) for channel in channels)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {path} to be written by `clearclip sinks`, but it is not."
        ) from error


def save_sink_channels(name: str, channels: Iterable[int], folder: Path | None = None) -> Path:
    """Write the sink channels of a model's weights, where `sink_channels` finds them.

    Returns:
        The file.
    """
    path = _path(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"sink_channels": list(channels)}) + "\n", encoding="utf-8")
    return path


@torch.inference_mode()
def find_sink_channels(encoder: DenseEncoder, windows: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Find the channels that are extreme in tokens of high norm.

    Looked at is the last block's input. A token is of high norm if its norm is above twice the
    median of its window. A channel is a sink channel if its share in these tokens is above the
    limit for sinks on average, and in the others is not; at most the eight with the largest share.
    This is the project's own rule: the authors of RF-CLIP give channels, but not how to find them.

    Args:
        encoder: of a method that reads out the last block alone.
        windows: batches (B, 3, H, W), see `DenseEncoder.encode`.

    Returns:
        Channels in ascending order; none where no token is of high norm, or no channel extreme.
    """
    high_sum = low_sum = torch.zeros(())
    high_count = low_count = 0
    for batch in windows:
        patches = encoder.run_trunk(batch)[:, 1:].float()
        norms = patches.norm(dim=-1)
        high = norms > _HIGH_NORM * norms.median(dim=1, keepdim=True).values
        shares = sink_shares(patches, slice(None))
        high_sum = high_sum.to(shares.device) + shares[high].sum(dim=0)
        low_sum = low_sum.to(shares.device) + shares[~high].sum(dim=0)
        high_count += int(high.sum())
        low_count += int((~high).sum())
    if not high_count:
        return ()
    extreme = high_sum / high_count
    extreme[low_sum / max(low_count, 1) > 1] = 0
    values, channels = extreme.topk(min(_MOST, len(extreme)))
    return tuple(sorted(channels[values > 1].tolist()))


def _published_name(name: ModelName) -> str:
    """Return the model name of OpenAI's own archive, else the name as it was written."""
    if name.kind != "file":
        return name.name
    path = existing_path(name)
    is_openai = is_torchscript(path) or path.stem == f"{name.arch}--openai"
    return f"{name.arch}/openai" if is_openai else name.name


def _path(name: str, folder: Path | None) -> Path:
    safe = re.sub(r"[^\w.-]+", "-", weights_id(name))
    return (folder or DEFAULT_FOLDER).expanduser() / "sink-channels" / f"{safe}.json"
