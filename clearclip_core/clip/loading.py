"""Load open_clip models with their weights by name, on a device, in a precision.

Nothing here unpickles code: safetensors, ``weights_only`` state dicts, and TorchScript archives of
which only the tensors are taken.
"""

from __future__ import annotations

import json
import pickle
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import huggingface_hub
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from safetensors import SafetensorError
from torch import nn

from clearclip_core.clip.dense_encoder import DenseEncoder, checked_visual
from clearclip_core.clip.devices import choose_device, choose_precision
from clearclip_core.clip.readout import sink_shares
from clearclip_core.clip.transformer import feed_forward, project, project_out
from clearclip_core.clip.weights import (
    DEFAULT_FOLDER,
    ModelName,
    WeightsNotFoundError,
    existing_path,
    fetch_weights,
    find_weights,
    is_torchscript,
    missing_weights_help,
    tag_of_file,
    uses_quick_gelu,
    verify_checksum,
    weights_id,
)
from clearclip_core.vocabulary import DEMO_WORDS, STUFF_WORDS

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


def encode_text(clip_model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Embed token ids by a model's own text tower; embeddings are not normalised: (B, D) float32.

    In a causal tower that reads out the end-of-text token, a token depends on those before it
    alone. So what follows the last end, most of the context, is left out.

    Args:
        tokens: (B, context) int64 token ids.
    """
    tower: Any = clip_model
    if not _reads_end_of_text(tower):
        return tower.encode_text(tokens).float()  # type: ignore[no-any-return]
    ends = tokens.argmax(dim=-1)  # the end-of-text token has the largest id
    length = int(ends.max()) + 1
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    for block in tower.transformer.resblocks:
        parts: Any = project(block, x, "qk")
        attended = F.scaled_dot_product_attention(
            parts.query, parts.key, parts.value, is_causal=True
        )
        x = x + project_out(block, attended)
        x = x + feed_forward(block, x)
    x = tower.ln_final(x[torch.arange(len(ends), device=ends.device), ends])  # (B, width)
    return (x @ tower.text_projection).float()  # type: ignore[no-any-return]


def _reads_end_of_text(tower: Any) -> bool:
    """Whether a tower is causal, of stock blocks, and reads out the end-of-text token."""
    return (
        getattr(tower, "text_pool_type", None) == "argmax"
        and getattr(tower, "attn_mask", None) is not None
        and isinstance(tower.text_projection, nn.Parameter)
        and all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
    )


DEMO_NOTICE = (
    "These are demo weights: a tiny CLIP trained on drawn scenes. They know 18 drawn things and "
    "are not for photographs."
)

#: Errors of torch, safetensors and open_clip for a bad file of weights.
READ_ERRORS = (
    AssertionError,
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    StopIteration,
    ValueError,
    TypeError,
    pickle.UnpicklingError,
    SafetensorError,
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A CLIP model with its tokenizer, preprocessing statistics and contrast words.

    Attributes:
        tokenize: sentences -> (S, context) token ids.
        mean: mean of each RGB channel, in units of 0-255.
        std: standard deviation of each RGB channel, in units of 0-255.
        notice: a warning to users about the model's limits, if there is one.
        sink_channels: sink channels of the weights, see `sink_channels`; None
            where they are not known.
    """

    name: str
    clip: nn.Module
    tokenize: Callable[[Sequence[str]], torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    contrast: tuple[str, ...] = STUFF_WORDS
    notice: str | None = None
    sink_channels: tuple[int, ...] | None = None

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Embed sentences: (S, D) float32, not normalised, on the model's device."""
        device = next(self.clip.parameters()).device
        with torch.inference_mode():
            return encode_text(self.clip, self.tokenize(list(sentences)).to(device))


def load_model(
    name: str,
    device: str = "auto",
    precision: str = "auto",
    folder: Path | None = None,
    download: bool = True,
) -> LoadedModel:
    """Load a model by name.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``; see `choose_precision`.
        folder: folder in which weights are looked up first, and kept when they are downloaded.
            Without one, a tag's weights are also looked up in `DEFAULT_FOLDER`, and kept in
            open_clip's own cache.
        download: whether weights that are not on disk may be fetched.

    Raises:
        ValueError: unknown name, device or precision, or an architecture that cannot be read out
            densely.
        WeightsNotFoundError: no weights; the message says how to bring them.

    >>> load_model("demo", device="cpu").notice is not None
    True
    """
    parsed = ModelName.parse(name)
    torch_device = choose_device(device)
    dtype = choose_precision(precision, torch_device)
    clip, tokenizer_name = _create(parsed, folder, download)
    checked_visual(clip)
    mean, std = _mean_std(parsed, clip)
    is_demo = parsed.kind == "demo"
    return LoadedModel(
        name=name,
        clip=clip.eval().requires_grad_(False).to(torch_device, dtype),
        tokenize=_tokenizer(parsed, tokenizer_name, folder),
        mean=mean,
        std=std,
        contrast=DEMO_WORDS if is_demo else STUFF_WORDS,
        notice=DEMO_NOTICE if is_demo else None,
        sink_channels=sink_channels(name, folder),
    )


def _create(name: ModelName, folder: Path | None, download: bool) -> tuple[nn.Module, str]:
    """Create the model with its weights; return it with open_clip's name of its tokenizer."""
    if name.kind in ("demo", "local-dir"):
        schema = f"local-dir:{existing_path(name)}"
        with _read_errors(schema):
            return open_clip.create_model(schema, require_pretrained=True), schema
    if name.kind == "hf-hub":
        schema = name.name if download else f"local-dir:{_hub_snapshot(name, folder)}"
        try:
            cache = {"cache_dir": folder} if download else {}
            return open_clip.create_model(schema, require_pretrained=True, **cache), schema
        except (OSError, RuntimeError) as error:
            raise WeightsNotFoundError(missing_weights_help(name)) from error
    if name.kind == "random":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # equal weights in every process
            return open_clip.create_model(name.arch, load_weights=False), name.arch
    if name.kind == "file":
        path = existing_path(name)
        verify_checksum(path)
        return _create_from_file(name.arch, path, _quick_gelu_of_file(name, path)), name.arch
    found = find_weights(name, folder) or (fetch_weights(name, folder) if download else None)
    if found is None:
        raise WeightsNotFoundError(missing_weights_help(name))
    verify_checksum(found)
    quick_gelu = uses_quick_gelu(name.arch, name.source)
    return _create_from_file(name.arch, found, quick_gelu), name.arch


def _tokenizer(name: ModelName, schema: str, folder: Path | None) -> Any:
    """Create the tokenizer; those of Hugging Face are read from files of their own."""
    try:
        return open_clip.get_tokenizer(schema, cache_dir=folder if name.kind == "hf-hub" else None)
    except (ImportError, OSError, ValueError) as error:
        raise WeightsNotFoundError(
            f"The tokenizer of {name.name} cannot be loaded ({error_reason(error)}). It needs "
            "pip install 'clearclip-label-studio[hf]', and where there is no network the Hugging "
            "Face cache (HF_HOME) of a machine that has loaded this model."
        ) from error


def _hub_snapshot(name: ModelName, folder: Path | None) -> str:
    try:
        return huggingface_hub.snapshot_download(
            name.source, cache_dir=folder, local_files_only=True
        )
    except OSError as error:
        raise WeightsNotFoundError(missing_weights_help(name)) from error


def _create_from_file(arch: str, path: Path, quick_gelu: bool) -> nn.Module:
    with _read_errors(f"{arch}@{path}"):
        if is_torchscript(path):
            return _create_from_torchscript(arch, path)
        return open_clip.create_model(  # type: ignore[no-any-return]
            arch, pretrained=str(path), quick_gelu=quick_gelu, require_pretrained=True
        )


def _create_from_torchscript(arch: str, path: Path) -> nn.Module:
    """Load the tensors of OpenAI's TorchScript archive without running its code."""
    tensors = torch.jit.load(str(path), "cpu").state_dict()  # type: ignore[no-untyped-call]
    for key in ("input_resolution", "context_length", "vocab_size"):
        tensors.pop(key, None)
    config = open_clip.get_model_config(arch)
    shape = {part: config[part] for part in ("embed_dim", "vision_cfg", "text_cfg")}
    model: nn.Module = open_clip.CLIP(**shape, quick_gelu=True)
    model.load_state_dict(tensors)
    return model


@contextmanager
def _read_errors(weights: str) -> Iterator[None]:
    """Turn the errors of torch, safetensors and open_clip for a bad file into one sentence."""
    try:
        yield
    except READ_ERRORS as error:
        reason = error_reason(error)
        if _is_of_another_architecture(error):
            reason = f"they are another architecture's ({reason})."
        raise ValueError(f"The weights of {weights} cannot be read: {reason}") from error


def _is_of_another_architecture(error: Exception) -> bool:
    """Whether an error of open_clip or torch says that tensors do not fit a model."""
    return isinstance(error, AssertionError) or "in loading state_dict" in str(error)


def error_reason(error: Exception) -> str:
    """Return an error's message in 200 characters at most; its type where it has none."""
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__


def _quick_gelu_of_file(name: ModelName, path: Path) -> bool:
    """Whether a file's model was trained with QuickGELU, by its model name or its file's."""
    if is_torchscript(path):  # only OpenAI's own archives are
        return True
    written = name.name.split("@", 1)[0]
    if written.endswith(("-quickgelu", "-gelu")):
        return written.endswith("-quickgelu")
    known = tag_of_file(name.arch, path)
    if known is None:
        raise ValueError(
            f"{path} does not say whether it was trained with QuickGELU: write "
            f"{name.arch}-quickgelu@… (OpenAI, MetaCLIP, DFN) or {name.arch}-gelu@… (LAION, "
            "DataComp)."
        )
    return uses_quick_gelu(name.arch, known)


def _mean_std(name: ModelName, clip: nn.Module) -> Any:
    """Return mean and std in units of 0-255: the tag's own, otherwise the model config's."""
    config = open_clip.get_model_preprocess_cfg(clip)
    if name.kind == "tag":
        config = {**config, **open_clip.get_pretrained_cfg(name.arch, name.source)}
    mean = config.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = config.get("std") or open_clip.OPENAI_DATASET_STD
    return tuple(255 * x for x in mean), tuple(255 * x for x in std)
