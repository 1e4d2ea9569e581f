"""Families of models, their size and what they take: known without loading anything.

``sizes.csv`` is written by ``python -m tests.core.clip.architecture_sizes``.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Pattern in the name of an architecture -> its family; the first that fits.
_FAMILIES: Final = {
    "^demo$": "demo",
    "tipsv2": "TIPSv2",
    "SigLIP2": "SigLIP2",
    "SigLIP|siglip": "SigLIP",
    "^PE-": "PE",
    "^EVA": "EVA",
    "^ViTamin": "ViTamin",
    "^MobileCLIP": "MobileCLIP",
    "^convnext": "ConvNeXt",
    "^RN": "ResNet",
    "^coca": "CoCa",
    "CLIPA": "CLIPA",
    "worldwide": "MetaCLIP 2",
    "^nllb": "NLLB-CLIP",
    "": "ViT",
}

_WINDOWS: Final = 4  # of a batch on a CPU
_BYTES: Final = 4  # of a number in fp32


@dataclass(frozen=True)
class ModelSize:
    """How large a model is, and what it takes in fp32."""

    image_millions: int  #: weights of the image tower in millions
    text_millions: int | None  #: of the text tower; None where it comes from Hugging Face
    window_mb: int  #: memory of one window of 448 px beside the weights, in MB

    @property
    def memory_gb(self) -> float | None:
        """Weights of both towers and a batch on a CPU in fp32, in GB; None without a text tower.

        In fp16 or bf16 it is half of that.

        >>> round(ModelSize(86, 63, 39).memory_gb, 1)
        0.8
        """
        if self.text_millions is None:
            return None
        weights_mb = _BYTES * (self.image_millions + self.text_millions)
        return (weights_mb + _WINDOWS * self.window_mb) / 1000

    def __str__(self) -> str:
        """Return both towers' weights, such as ``86+63 M``."""
        text = "?" if self.text_millions is None else self.text_millions
        return f"{self.image_millions}+{text} M"


def family_of(arch: str) -> str:
    """Return the family of an architecture of open_clip, or of a repository.

    >>> family_of("ViT-B-16-SigLIP2-256"), family_of("ViT-L-14-336")
    ('SigLIP2', 'ViT')
    """
    return next(family for pattern, family in _FAMILIES.items() if re.search(pattern, arch))


@functools.cache
def model_sizes() -> Mapping[str, ModelSize]:
    """Return the sizes of ``demo``, of open_clip's architectures and of TIPSv2's repositories."""
    text = Path(__file__).with_name("sizes.csv").read_text(encoding="utf-8")
    return {
        row["architecture"]: ModelSize(
            image_millions=int(row["image_millions"]),
            text_millions=int(row["text_millions"]) if row["text_millions"] else None,
            window_mb=int(row["window_mb"]),
        )
        for row in csv.DictReader(text.splitlines())
    }
