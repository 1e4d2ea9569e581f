"""Model names: their forms, and which architectures can be read out densely.

==================  ===========================================================================
``arch/tag``        open_clip's own pair, such as ``ViT-B-16/openai``; from the folder given,
                    otherwise from open_clip's cache, otherwise downloaded
``arch@file``       a weights file: safetensors, a state dict, or OpenAI's TorchScript archive
``local-dir:path``  a folder with ``open_clip_config.json`` and weights
``hf-hub:org/repo`` such a folder from Hugging Face
``demo``            the tiny model in this package, for drawn scenes only
``arch/random``     random weights, equal in every process, for benchmarks only
==================  ===========================================================================
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import open_clip

WeightsSource = Literal["tag", "file", "local-dir", "hf-hub", "demo", "random"]

DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "weights"


@dataclass(frozen=True)
class ModelName:
    """A parsed model name.

    Attributes:
        name: the name as it was written.
        kind: its form, see this module's docstring.
        arch: open_clip's architecture, ``""`` where a folder's config holds it.
        source: tag, file, folder or repository.
    """

    name: str
    kind: WeightsSource
    arch: str
    source: str

    @classmethod
    def parse(cls, name: str) -> ModelName:
        """Parse a model name without loading anything.

        Raises:
            ValueError: another form, an unknown architecture or tag, or an architecture that
                cannot be read out densely.

        >>> ModelName.parse("ViT-B-16/openai").source
        'openai'
        """
        kind: WeightsSource
        for kind in ("local-dir", "hf-hub"):
            if name.startswith(f"{kind}:"):
                return cls(name, kind, "", _source(name, name.removeprefix(f"{kind}:")))
        if name == "demo":
            return cls(name, "demo", "", str(DEMO_FOLDER))
        if "@" in name:
            arch, path = name.split("@", 1)
            return cls(name, "file", _checked_arch(_file_arch(arch)), _source(name, path))
        arch, _, tag = name.partition("/")
        if not tag:
            raise _not_a_name(name)
        _checked_arch(arch)
        if tag != "random" and tag not in open_clip.list_pretrained_tags_by_model(arch):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
            raise ValueError(f"{arch} has no weights named {tag!r}; open_clip knows: {tags}.")
        return cls(name, "random" if tag == "random" else "tag", arch, tag)


def _source(name: str, source: str) -> str:
    """Return the part of a name after its prefix, which must not be empty."""
    if not source:
        raise _not_a_name(name)
    return source


def _not_a_name(name: str) -> ValueError:
    return ValueError(
        "Expected a model name of the form 'arch/tag', 'arch@file', 'local-dir:path', "
        f"'hf-hub:org/repo' or 'demo', but got {name!r}. `clearclip models` lists them."
    )


def _file_arch(written: str) -> str:
    """Return the architecture of `arch@file`, without a suffix -gelu or -quickgelu."""
    if written.endswith("-quickgelu") and open_clip.get_model_config(written) is None:
        return written.removesuffix("-quickgelu")
    return written.removesuffix("-gelu")


def _checked_arch(arch: str) -> str:
    if open_clip.get_model_config(arch) is None:
        raise ValueError(
            f"open_clip knows no architecture {arch!r}; `clearclip models` lists them."
        )
    if not is_native(arch):
        raise ValueError(
            f"{arch} cannot be read out densely: ClearCLIP needs a native Vision Transformer with "
            "a CLS token, without attention pooling or a norm after pooling. `clearclip models` "
            "lists what works."
        )
    if needs_hf(arch) and importlib.util.find_spec("transformers") is None:
        raise ValueError(f"{arch} needs the extra: pip install 'clearclip-label-studio[hf]'.")
    return arch


def needs_hf(arch: str) -> bool:
    """Whether the text tower, or its tokenizer alone, comes from Hugging Face."""
    text = open_clip.get_model_config(arch)["text_cfg"]
    return "hf_model_name" in text or "hf_tokenizer_name" in text


def is_native(arch: str) -> bool:
    """Whether an architecture of open_clip has a native ViT that can be read out densely."""
    config = open_clip.get_model_config(arch)
    vision = config["vision_cfg"]
    return (
        "timm_model_name" not in vision
        and isinstance(vision.get("layers", 12), int)
        and not vision.get("attentional_pool")
        and not vision.get("final_ln_after_pool")
        and "multimodal_cfg" not in config
    )
