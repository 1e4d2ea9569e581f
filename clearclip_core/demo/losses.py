"""Training losses of the demo model's image tower, from image-level labels alone."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.methods import METHODS
from clearclip_core.demo.architecture import MEAN, STD
from clearclip_core.demo.crops import Crops

#: Temperature of the softmax over labels, as in the readout.
_TEMPERATURE = 50.0

#: One patch in this many has to show a label that is present.
_BEST = 24


class PresenceLosses(nn.Module):
    """Three losses of a batch of crops, from the labels that are present and absent in each crop.

    - ``whole``: sigmoid loss over (crop, label) of the CLS token, the stock output; scale and
      bias are learned. It trains the model as an ordinary CLIP.
    - ``possible``: each patch of ClearCLIP's readout shows one of the labels that are not absent:
      ``-log Σ p`` over these labels, p the softmax over labels at the readout's temperature.
    - ``found``: some patches show each label that is present: ``-log`` of its mean p over the
      best 24th of the patches.

    The last two losses train the dense readout, from the labels of each crop, or of each cell.

    Args:
        model: the open_clip model whose image tower is trained.
        texts: (L, D) unit text embeddings of the labels; embeddings that follow those of the
            crops' labels are of words that no crop shows.
        in_bfloat16: multiply matrices in bfloat16.
    """

    texts: torch.Tensor

    def __init__(self, model: nn.Module, texts: torch.Tensor, in_bfloat16: bool = True) -> None:
        super().__init__()
        self.in_bfloat16 = in_bfloat16
        self.encoder = DenseEncoder(model, METHODS["clearclip"])
        self.register_buffer("texts", texts)
        self.scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, batch: Crops) -> dict[str, torch.Tensor]:
        """Return the three losses by name, scalars."""
        batch = batch.padded(len(self.texts))
        whole, patches = self.cosines(batch.pixels)  # (B, L), (B, N, L)
        log_p = by_cell((patches * _TEMPERATURE).log_softmax(-1), batch)
        return {
            "whole": self._whole(whole, batch),
            "possible": possible_loss(log_p, batch),
            "found": found_loss(log_p, batch),
        }

    def cosines(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels' cosines with the CLS token, (B, L), and with each patch, (B, N, L).

        Args:
            pixels: (B, 3, S, S) in 0..1, with S a multiple of the patch.
        """
        side = pixels.shape[-1] // self.encoder.patch_size_hw[0]
        # The fused CPU kernel is the slower one for few tokens.
        kernel = SDPBackend.MATH if side <= 12 else SDPBackend.FLASH_ATTENTION
        with torch.autocast("cpu", torch.bfloat16, self.in_bfloat16), sdpa_kernel(kernel):
            tokens = self.encoder.embed((pixels - MEAN) / STD, (side, side))
            for block in self.encoder.trunk:
                tokens = block(tokens)
            dense = self.encoder.last(tokens)[:, 1:]  # (B, N, width)
            cls = _stock_cls(self.encoder.last.blocks[-1], tokens)  # (B, width)
        return self._compare(cls), self._compare(dense)

    def _compare(self, features: torch.Tensor) -> torch.Tensor:
        visual = self.encoder.visual
        unit = F.normalize(visual.ln_post(features.float()) @ visual.proj, dim=-1)
        return unit @ self.texts.T

    def _whole(self, cosines: torch.Tensor, batch: Crops) -> torch.Tensor:
        logits = cosines * self.scale.exp() + self.bias
        known = batch.present | batch.absent
        target = batch.present[known].float()
        return F.binary_cross_entropy_with_logits(logits[known], target)


def by_cell(patches: torch.Tensor, batch: Crops) -> torch.Tensor:
    """Group the patches of each cell: (B, N, L) -> (B * C * C, N / (C * C), L)."""
    cells = math.isqrt(batch.cell_present.shape[1])
    side = math.isqrt(patches.shape[1]) // cells
    grid = patches.reshape(-1, cells, side, cells, side, patches.shape[-1])
    return grid.transpose(2, 3).reshape(-1, side * side, patches.shape[-1])


def possible_loss(log_p: torch.Tensor, batch: Crops) -> torch.Tensor:
    """Return ``possible`` of `PresenceLosses` from `by_cell` of the log probabilities."""
    absent = batch.cell_absent.flatten(0, 1)  # (B * C * C, L)
    known = ~absent.all(-1)  # where no label is possible, nothing is known of the patches
    possible = log_p[known].masked_fill(absent[known, None], -1e4)
    return -possible.logsumexp(-1).sum() / max(1, possible.shape[0] * possible.shape[1])


def found_loss(log_p: torch.Tensor, batch: Crops) -> torch.Tensor:
    """Return ``found`` of `PresenceLosses` from `by_cell` of the log probabilities."""
    present = batch.cell_present.flatten(0, 1)
    best = log_p.topk(max(1, log_p.shape[1] // _BEST), dim=1).values  # (B * C * C, k, L)
    shown = best.exp().mean(1).clamp(1e-4, 1 - 1e-4)  # (B * C * C, L)
    return -shown[present].log().sum() / present.sum().clamp(min=1)


def _stock_cls(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Run the last block as open_clip does, for the CLS token: (B, N, width) -> (B, width)."""
    normed = block.ln_1(tokens)
    attended, _ = block.attn(normed[:, :1], normed, normed, need_weights=False)
    cls = tokens[:, :1] + attended
    return (cls + block.mlp(block.ln_2(cls)))[:, 0]  # type: ignore[no-any-return]
