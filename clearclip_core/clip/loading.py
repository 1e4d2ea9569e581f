"""Model names -> open_clip models with their weights, on a device, in a precision.

Nothing here unpickles code: safetensors, ``weights_only`` state dicts, and TorchScript archives of
which only the tensors are taken.
"""

from __future__ import annotations

import os
import pickle
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
from safetensors import SafetensorError
from torch import nn

from clearclip_core.clip.dense_encoder import checked_visual, encode_text
from clearclip_core.clip.weights import (
    ModelName,
    WeightsNotFoundError,
    existing_path,
    fetch_weights,
    find_weights,
    how_to_bring,
    is_torchscript,
    tag_of_checksum,
    uses_quick_gelu,
    verify_checksum,
)
from clearclip_core.demo.scenes.render import SCENE_LABELS

DEMO_NOTICE = (
    "These are demo weights: a tiny CLIP trained on drawn scenes. They know 18 drawn things and "
    "are not for photographs."
)

_READ_ERRORS = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    SafetensorError,
)

#: Generic words for what no label names; where they win, nothing is predicted.
STUFF_WORDS: tuple[str, ...] = (
    "sky",
    "cloud",
    "wall",
    "floor",
    "ceiling",
    "ground",
    "soil",
    "road",
    "pavement",
    "grass",
    "plant",
    "tree",
    "building",
    "water",
    "sea",
    "mountain",
    "rock",
    "sand",
    "snow",
    "fence",
    "window",
    "door",
    "curtain",
    "furniture",
    "cloth",
    "paper",
    "metal",
    "wood",
    "shadow",
    "background",
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A CLIP model with what belongs to it.

    Attributes:
        name: its model name.
        clip: open_clip's model, in eval mode.
        tokenize: sentences -> (S, context) token ids.
        mean: per RGB channel, in units of 0-255.
        std: likewise.
        contrast: words for what no label names, that this model understands.
        notice: what a user has to know before trusting it, if anything.
    """

    name: str
    clip: nn.Module
    tokenize: Callable[[Sequence[str]], torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    contrast: tuple[str, ...] = STUFF_WORDS
    notice: str | None = None

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Sentences -> (S, D) float32 text embeddings, not normalised, on the model's device."""
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
        name: see `clearclip_core.clip.weights`.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``; see `choose_precision`.
        folder: where weights are looked for first and kept when they are downloaded; without one
            a tag's are looked for in `DEFAULT_FOLDER` too, and kept in open_clip's own cache.
        download: whether weights that are not on disk may be fetched.

    Raises:
        ValueError: unknown name, device or precision, or an architecture that cannot be read out
            densely.
        WeightsNotFoundError: no weights; the message says how to bring them.

    >>> load_model("demo", device="cpu").notice is not None
    True
    """
    parsed = ModelName.parse(name)
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    clip, tokenizer_name = _create(parsed, folder, download)
    checked_visual(clip)
    mean, std = _mean_std(parsed, clip)
    is_demo = parsed.kind == "demo"
    return LoadedModel(
        name=name,
        clip=clip.eval().requires_grad_(False).to(where, dtype),
        tokenize=_tokenizer(parsed, tokenizer_name, folder),
        mean=mean,
        std=std,
        contrast=SCENE_LABELS if is_demo else STUFF_WORDS,
        notice=DEMO_NOTICE if is_demo else None,
    )


def choose_device(device: str) -> torch.device:
    """Resolve a device by name.

    Raises:
        ValueError: unknown, or not there.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        known = where.type in ("cpu", "cuda", "mps")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(
            f"Expected argument `device` to be auto, cpu, cuda or mps, but got {device!r}."
        )
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"Device {device!r} is not there: torch finds no Metal.")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Device {device!r} is not there: {torch.cuda.device_count()} CUDA devices found."
        )
    return where


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Resolve a precision by name.

    ``auto`` is fp16 on CUDA; on a CPU bf16 where its flags say that it multiplies bf16 in
    hardware, else fp32.

    Raises:
        ValueError: unknown, fp16 on a CPU, or bf16 on a card that cannot multiply it.

    >>> choose_precision("fp32", torch.device("cpu"))
    torch.float32
    """
    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32
    if precision not in known:
        raise ValueError(
            f"Expected argument `precision` to be auto, {', '.join(known)}, but got {precision!r}."
        )
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("Precision fp16 needs a GPU; on a CPU take bf16, fp32 or auto.")
    if precision == "bf16" and device.type == "cuda" and not _card_has_bf16(device):
        card = torch.cuda.get_device_name(device)
        raise ValueError(f"Precision bf16 needs Ampere or later, but {card} is older: take fp16.")
    return known[precision]


def _card_has_bf16(device: torch.device) -> bool:
    """`torch.cuda.is_bf16_supported` asks the current card only, and slow emulation will do."""
    return torch.cuda.get_device_capability(device)[0] >= 8


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU's flags name bf16 arithmetic (AMX or AVX-512 on x86, BF16 on Arm).

    False where the flags cannot be read.
    """
    if not cpuinfo.exists():
        return False
    for line in cpuinfo.read_text().splitlines():
        if line.lower().startswith(("flags", "features")):
            return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(line.split()))
    return False


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many CPUs this process may keep busy: its affinity, and the quota of its container.

    torch starts a thread for each CPU that it sees, also where a container may only use some of
    their time; then the threads wait for one another. A program hands this number to
    ``torch.set_num_threads`` at its start; the library itself never does.

    Args:
        cgroup: where the cgroup's files are mounted, of version 2 (``cpu.max``) or 1.

    >>> usable_cpus() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return cpus if quota is None else max(1, min(cpus, int(quota + 0.5)))


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs' worth of time that a cgroup may use, None for no limit."""
    v2 = cgroup / "cpu.max"
    v1 = (cgroup / "cpu" / "cpu.cfs_quota_us", cgroup / "cpu" / "cpu.cfs_period_us")
    try:
        words = v2.read_text().split() if v2.exists() else [path.read_text() for path in v1]
        quota_us, period_us = (float(word) for word in words)
    except (OSError, ValueError):  # no cgroups, or "max"
        return None
    return quota_us / period_us if quota_us > 0 else None  # version 1 writes -1 for no limit


def _create(name: ModelName, folder: Path | None, download: bool) -> tuple[nn.Module, str]:
    """The model with its weights, and the name under which open_clip knows its tokenizer."""
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
            raise WeightsNotFoundError(how_to_bring(name)) from error
    if name.kind == "random":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the same ones in every process
            return open_clip.create_model(name.arch, load_weights=False), name.arch
    if name.kind == "file":
        path = existing_path(name)
        verify_checksum(path)
        return _create_from_file(name.arch, path, _quick_gelu_of_file(name, path)), name.arch
    found = find_weights(name, folder) or (fetch_weights(name, folder) if download else None)
    if found is None:
        raise WeightsNotFoundError(how_to_bring(name))
    verify_checksum(found)
    quick_gelu = uses_quick_gelu(name.arch, name.source)
    return _create_from_file(name.arch, found, quick_gelu), name.arch


def _tokenizer(name: ModelName, schema: str, folder: Path | None) -> Any:
    """open_clip's tokenizer; some are Hugging Face's, which have files of their own."""
    try:
        return open_clip.get_tokenizer(schema, cache_dir=folder if name.kind == "hf-hub" else None)
    except (ImportError, OSError, ValueError) as error:
        raise WeightsNotFoundError(
            f"The tokenizer of {name.name} cannot be loaded ({_reason(error)}). It needs "
            "pip install 'clearclip-label-studio[hf]', and where there is no network the Hugging "
            "Face cache (HF_HOME) of a machine that has loaded this model."
        ) from error


def _hub_snapshot(name: ModelName, folder: Path | None) -> str:
    try:
        return huggingface_hub.snapshot_download(
            name.source, cache_dir=folder, local_files_only=True
        )
    except OSError as error:
        raise WeightsNotFoundError(how_to_bring(name)) from error


def _create_from_file(arch: str, path: Path, quick_gelu: bool) -> nn.Module:
    with _read_errors(f"{arch}@{path}"):
        if is_torchscript(path):
            return _create_from_torchscript(arch, path)
        return open_clip.create_model(  # type: ignore[no-any-return]
            arch, pretrained=str(path), quick_gelu=quick_gelu, require_pretrained=True
        )


def _create_from_torchscript(arch: str, path: Path) -> nn.Module:
    """OpenAI's archive: its tensors are taken, its code is not run."""
    tensors = torch.jit.load(str(path), "cpu").state_dict()  # type: ignore[no-untyped-call]
    for key in ("input_resolution", "context_length", "vocab_size"):
        tensors.pop(key, None)
    config = open_clip.get_model_config(arch)
    shape = {part: config[part] for part in ("embed_dim", "vision_cfg", "text_cfg")}
    model: nn.Module = open_clip.CLIP(**shape, quick_gelu=True)
    model.load_state_dict(tensors)
    return model


@contextmanager
def _read_errors(what: str) -> Iterator[None]:
    """What torch, safetensors and open_clip say of a bad file, as one sentence."""
    try:
        yield
    except _READ_ERRORS as error:
        raise ValueError(f"The weights of {what} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__


def _quick_gelu_of_file(name: ModelName, path: Path) -> bool:
    """Whether a bare file's model was trained with QuickGELU: asked for, or known by checksum."""
    if is_torchscript(path):  # only OpenAI's own archives are
        return True
    written = name.name.split("@", 1)[0]
    if written.endswith(("-quickgelu", "-gelu")):
        return written.endswith("-quickgelu")
    known = tag_of_checksum(name.arch, path)
    if known is None:
        raise ValueError(
            f"{path} does not say whether it was trained with QuickGELU: write "
            f"{name.arch}-quickgelu@… (OpenAI, MetaCLIP, DFN) or {name.arch}-gelu@… (LAION, "
            "DataComp)."
        )
    return uses_quick_gelu(name.arch, known)


def _mean_std(name: ModelName, clip: nn.Module) -> Any:
    """Mean and std in units of 0-255: the tag's own, else the model config's."""
    config = open_clip.get_model_preprocess_cfg(clip)
    if name.kind == "tag":
        config = {**config, **open_clip.get_pretrained_cfg(name.arch, name.source)}
    mean = config.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = config.get("std") or open_clip.OPENAI_DATASET_STD
    return tuple(255 * x for x in mean), tuple(255 * x for x in std)
