"""TIPSv2 as transformers has it: a tower whose patches were trained to agree with text.

So its patches are read as they are; no block is changed, and every method means the same.

Source: Cao et al., TIPSv2: Advancing Vision-Language Pretraining with Enhanced Patch-Text
Alignment, 2026 (arXiv 2604.12012); its code is that of transformers.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.clip.dense_encoder import WindowFeatures, grid_of
from clearclip_core.clip.snapshots import read_snapshot
from clearclip_core.clip.towers import Tower

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Pictures are given as values from 0 to 1, neither centred nor scaled; in units of 0-255.
MEAN: Final = (0.0, 0.0, 0.0)
STD: Final = (255.0, 255.0, 255.0)

_MODEL_TYPE: Final = "tipsv2"  # in the config of transformers' format


class Tipsv2Clip(nn.Module):
    """Both towers of a TIPSv2 model, with the members of open_clip's models that are used here.

    Args:
        model: a ``Tipsv2Model`` of transformers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.visual: PreTrainedModel = model.vision_model
        self.text: PreTrainedModel = model.text_model
        self.logit_scale = 1 / float(model.temperature.detach())

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed sentences: the mean over the places that are no padding.

        Args:
            tokens: (S, n) int64 token ids, padded behind.

        Returns:
            (S, D), not normalised, in the model's dtype.
        """
        is_token = tokens != self.text.config.pad_token_id
        embedded: torch.Tensor = self.text(
            input_ids=tokens, attention_mask=is_token.long()
        ).pooler_output
        return embedded


class Tipsv2Tower(Tower):
    """The image tower of TIPSv2; position embeddings are resized as transformers does."""

    @classmethod
    def fits(cls, visual: object) -> bool:
        return type(visual).__name__ == "Tipsv2VisionModel"

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        side_px = int(self.visual.config.patch_size)
        return side_px, side_px

    @property
    def _width(self) -> int:
        return int(self.visual.config.hidden_size)

    def forward(self, pixels: torch.Tensor, proxy: torch.Tensor | None = None) -> WindowFeatures:
        """Encode pixels from 0 to 1; see `DenseEncoder.forward`.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        height, width = grid_of(pixels, self.patch_size_hw)
        tokens = self.visual(pixel_values=pixels).last_hidden_state  # (B, 1 + registers + h*w, D)
        patches = F.normalize(tokens[:, -height * width :], dim=-1)
        return WindowFeatures(patches.reshape(len(pixels), height, width, -1))


def is_tipsv2_folder(folder: Path) -> bool:
    """Whether a folder holds a TIPSv2 model in transformers' format, by its config.

    >>> is_tipsv2_folder(Path(__file__).parent)
    False
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == _MODEL_TYPE


def read_tipsv2(folder: Path) -> tuple[Tipsv2Clip, Callable[[Sequence[str]], torch.Tensor]]:
    """Read a folder of transformers' format, see `read_snapshot`.

    Returns:
        The model, and its tokenizer: sentences -> (S, n) int64 token ids, padded to the longest.

    Raises:
        ValueError: weights are missing.
        ImportError: transformers, or what its tokenizer needs, is not installed.
    """
    from transformers import Tipsv2Model, Tipsv2Tokenizer

    model = read_snapshot(Tipsv2Model, folder)
    has_tokens = (folder / "tokenizer.json").is_file()
    if not has_tokens and importlib.util.find_spec("sentencepiece") is None:
        raise ImportError("sentencepiece reads its tokenizer.model")
    tokenizer = Tipsv2Tokenizer.from_pretrained(folder, local_files_only=True)
    longest = int(model.config.text_config.max_position_embeddings)

    def tokenize(sentences: Sequence[str]) -> torch.Tensor:
        made = tokenizer(
            list(sentences),
            padding="longest",
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        tokens: torch.Tensor = made.input_ids
        return tokens

    return Tipsv2Clip(model), tokenize
