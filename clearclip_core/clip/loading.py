"""Load open_clip models with their weights by name, on a device, in a precision.

Nothing here unpickles code: safetensors, ``weights_only`` state dicts, and TorchScript archives of
which only the tensors are taken.
"""

import pickle
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import huggingface_hub
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from safetensors import SafetensorError
from torch import nn

from clearclip_core.clip.encoders import check_tower
from clearclip_core.clip.tipsv2 import MEAN, STD, is_tipsv2_folder, read_tipsv2
from clearclip_core.clip.transformer import feed_forward, project, project_out
from clearclip_core.clip.weights import (
    ModelName,
    WeightsNotFoundError,
    existing_path,
    has_timm_tower,
    is_torchscript,
    missing_weights_help,
    snapshot_folder,
    tag_of_file,
    uses_quick_gelu,
    weights_file,
)
from clearclip_core.devices import choose_device, choose_precision
from clearclip_core.vocabulary import DEMO_WORDS, STUFF_WORDS, TEMPERATURE


def encode_text(tower: open_clip.CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Embed (B, context) int64 token ids by a model's own text tower: (B, D) float32, unnormalised.

    In a causal tower that reads out the end-of-text token, a token depends on those before it
    alone. So what follows the last end, most of the context, is left out.
    """
    if not _reads_end_of_text(tower):
        return tower.encode_text(tokens).float()  # type: ignore[no-any-return]

    ends = tokens.argmax(dim=-1)  # the end-of-text token has the largest id
    length = int(ends.max()) + 1
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    for block in tower.transformer.resblocks:
        parts = project(block, x, "qk")
        assert parts.query is not None
        assert parts.key is not None
        attended = F.scaled_dot_product_attention(
            parts.query, parts.key, parts.value, is_causal=True
        )
        x = x + project_out(block, attended)
        x = x + feed_forward(block, x)

    x = tower.ln_final(x[torch.arange(len(ends), device=ends.device), ends])  # (B, width)
    return (x @ tower.text_projection).float()  # type: ignore[no-any-return]


def _reads_end_of_text(tower: open_clip.CLIP) -> bool:
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
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    ValueError,
    TypeError,
    pickle.UnpicklingError,
    SafetensorError,
)

#: Model name -> sink channels of its weights, as the authors of RF-CLIP give them.
SINK_CHANNELS: Final[Mapping[str, tuple[int, ...]]] = {
    "ViT-B-16/openai": (4, 162, 189, 326, 429, 474, 633, 713),
    "ViT-L-14/openai": (250, 261, 437, 650, 720, 779, 936, 1005),
}


def _sink_channels(name: ModelName) -> tuple[int, ...] | None:
    if name.kind != "file":
        return SINK_CHANNELS.get(name.name)
    path = existing_path(name)  # OpenAI's own archive under a name of its own, or one of ours
    is_openai = is_torchscript(path) or path.stem == f"{name.arch}--openai"
    return SINK_CHANNELS.get(f"{name.arch}/openai") if is_openai else None


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A CLIP model with its tokenizer, preprocessing statistics and contrast words."""

    name: str
    clip: nn.Module
    tokenize: Callable[[Sequence[str]], torch.Tensor]  # sentences -> (S, context) token ids
    mean: tuple[float, float, float]  # mean of each RGB channel, in units of 0-255
    std: tuple[float, float, float]  # standard deviation of each RGB channel, in units of 0-255
    contrast: tuple[str, ...] = STUFF_WORDS
    notice: str | None = None  # a warning to users about the model's limits, if there is one
    #: That are extreme in tokens of high norm, if known.
    sink_channels: tuple[int, ...] | None = None
    temperature: float = TEMPERATURE  # factor on cosines before the softmax over labels; no unit

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
    """Load a model by name; see `clearclip_core.Segmenter.load` for the arguments and errors.

    >>> load_model("demo", device="cpu").notice is not None
    True
    """
    parsed = ModelName.parse(name)
    torch_device = choose_device(device)
    dtype = choose_precision(precision, torch_device)
    snapshot = _tipsv2_folder(parsed, folder, download)
    if snapshot is None:
        made = _read_open_clip(parsed, folder, download)
    else:
        made = _read_tipsv2(parsed, snapshot)

    made.clip.eval().requires_grad_(False).to(torch_device, dtype)
    return made


def _tipsv2_folder(name: ModelName, folder: Path | None, download: bool) -> Path | None:
    """Return the folder of a TIPSv2 model; None for a model of open_clip."""
    if name.kind == "transformers":
        return snapshot_folder(name, folder, download)
    if name.kind == "local-dir" and is_tipsv2_folder(existing_path(name)):
        return snapshot_folder(name, folder, download)
    return None


def _read_tipsv2(name: ModelName, snapshot: Path) -> LoadedModel:
    try:
        with read_errors(name.name):
            clip, tokenize = read_tipsv2(snapshot)
            check_finite(clip)
    except ImportError as error:
        raise ValueError(
            f"{name.name} needs the extra: pip install 'clearclip-label-studio[hf]' "
            f"({error_reason(error)})."
        ) from error
    return LoadedModel(
        name.name, clip, tokenize, MEAN, STD, temperature=temperature_of(clip.logit_scale)
    )


def _read_open_clip(name: ModelName, folder: Path | None, download: bool) -> LoadedModel:
    clip, tokenizer_name = _create(name, folder, download)
    check_tower(clip)
    if hasattr(clip, "text_decoder"):  # CoCa's, which writes captions: a quarter of its weights
        del clip.text_decoder
    mean, std = _mean_std(name, clip)
    is_demo = name.kind == "demo"
    return LoadedModel(
        name=name.name,
        clip=clip,
        tokenize=_tokenizer(name, tokenizer_name, folder),
        mean=mean,
        std=std,
        contrast=DEMO_WORDS if is_demo else STUFF_WORDS,
        notice=DEMO_NOTICE if is_demo else None,
        sink_channels=_sink_channels(name),
        temperature=_temperature(clip),
    )


def temperature_of(logit_scale: float) -> float:
    """Compute the factor on cosines before the softmax over labels.

    CLIP was trained with 100, and the paper reads patches with 50. So it is half of what any model
    was trained with.

    Args:
        logit_scale: factor on cosines of whole pictures and texts in training.

    >>> temperature_of(100.0)
    50.0
    """
    return TEMPERATURE * logit_scale / 100


def _temperature(clip: nn.Module) -> float:
    """Return the temperature of a model of open_clip: CLIP's, but for models of a sigmoid.

    In the training of all others the scale was held at 100, where it ends. The bias of a sigmoid is
    the same for all labels, so a softmax over these does not see it.
    """
    if getattr(clip, "logit_bias", None) is None:
        return TEMPERATURE
    scale = clip.get_parameter("logit_scale").detach().exp()
    return temperature_of(float(scale))


def _create(name: ModelName, folder: Path | None, download: bool) -> tuple[nn.Module, str]:
    """Create the model with its weights; return it with open_clip's name of its tokenizer."""
    if name.kind in ("demo", "local-dir"):
        schema = f"local-dir:{existing_path(name)}"
        with read_errors(schema):
            return open_clip.create_model(schema, require_pretrained=True), schema
    if name.kind == "hf-hub":
        schema = name.name if download else f"local-dir:{_hub_snapshot(name, folder)}"
        try:
            cache = {"cache_dir": folder} if download else {}
            return open_clip.create_model(schema, require_pretrained=True, **cache), schema
        except (OSError, RuntimeError) as error:
            raise WeightsNotFoundError(missing_weights_help(name, error)) from None
    if name.kind == "random":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # equal weights in every process
            return open_clip.create_model(name.arch, load_weights=False), name.arch
    path = weights_file(name, folder, download)
    return _create_from_file(name, path), name.arch


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
    except OSError:
        raise WeightsNotFoundError(missing_weights_help(name)) from None


def _create_from_file(name: ModelName, path: Path) -> nn.Module:
    is_file = name.kind == "file"
    quick_gelu = (
        _quick_gelu_of_file(name, path) if is_file else uses_quick_gelu(name.arch, name.source)
    )
    with read_errors(f"{name.arch}@{path}"):
        if is_torchscript(path):
            model = _create_from_torchscript(name.arch, path)
        else:
            model = open_clip.create_model(
                name.arch, pretrained=str(path), quick_gelu=quick_gelu, require_pretrained=True
            )
        check_finite(model)
    return model


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
def read_errors(weights: str) -> Iterator[None]:
    """Turn the errors of torch, safetensors and open_clip for a bad file into one sentence."""
    try:
        yield
    except READ_ERRORS as error:
        reason = error_reason(error)
        if isinstance(error, IndexError) or "weights_only" in reason:  # of the unpickler
            reason = "the file holds no weights, or code beside them, which is never run."
        if isinstance(error, AssertionError) or "in loading state_dict" in str(error):
            reason = f"they are another architecture's ({reason})."
        raise ValueError(f"The weights of {weights} cannot be read: {reason}") from error


def check_finite(model: nn.Module) -> None:
    """Check that all weights of a model are finite numbers.

    Raises:
        ValueError: some are not; the file is damaged, or training has failed.
    """
    for name, weights in model.state_dict().items():
        if not bool(weights.isfinite().all()):
            raise ValueError(f"{name} holds numbers that are not finite.")


def error_reason(error: Exception) -> str:
    """Return an error's message in 200 characters at most; its type where it has none."""
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__


def _quick_gelu_of_file(name: ModelName, path: Path) -> bool:
    """Whether a file's model was trained with QuickGELU, by its model name or its file's."""
    if is_torchscript(path):  # only OpenAI's own archives are
        return True
    if has_timm_tower(name.arch):  # its config says it, and no two sorts of weights share it
        return False
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
