"""A second frozen image encoder beside CLIP's: it knows edges and parts, and no words.

Self-supervised and classification encoders separate parts of a picture that CLIP's patches blur.
Adaptations are linear in the features, so it may use both; words are compared with
CLIP's alone. Any model of timm serves whose `forward_intermediates` takes pictures of any size.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.models import load_state_dict
from torch import nn

from clearclip_core.clip.loading import check_finite, read_errors
from clearclip_core.clip.weights import ModelName, weights_file
from clearclip_core.devices import choose_device, choose_precision
from clearclip_core.images.preprocessing import RGBArray

#: Stride in px from which on a network is shown pictures at twice CLIP's size: its cells are twice
#: as large as CLIP's patches.
_COARSE_STRIDE_PX = 32

#: Limit of the pixels of a resized picture, whatever its shape: memory grows with them.
_MOST_PX = 2048 * 2048


class _TimmModel(Protocol):
    """What timm's models have beside `nn.Module`, as it is used here."""

    feature_info: Sequence[Mapping[str, Any]]
    pretrained_cfg: Mapping[str, Any]

    def forward_intermediates(
        self, x: torch.Tensor, *, indices: int, norm: bool, intermediates_only: bool
    ) -> list[torch.Tensor]: ...


@dataclass(frozen=True, eq=False)
class SecondEncoder:
    """A model of timm and which of its maps are used."""

    name: str
    model: nn.Module
    mean: tuple[float, float, float]  # mean of each RGB channel, in units of 0-255
    std: tuple[float, float, float]  # standard deviation of each RGB channel, in units of 0-255
    stride_px: int  # side of a cell of its coarsest map; pictures are resized to multiples of it
    trained_px: int  # side of the pictures that it was trained on; 0 where nobody says
    #: How many of its last maps are used: of a Vision Transformer the last one, of a network with a
    #: pyramid those of the last two strides.
    maps: int

    @classmethod
    def of(cls, name: str, model: nn.Module) -> "SecondEncoder":
        """Describe a model of timm.

        Raises:
            ValueError: it gives no maps of pictures of any size.
        """
        of_timm = cast(_TimmModel, model)
        try:
            strides = [int(each["reduction"]) for each in of_timm.feature_info]
            maps = 2 if strides[-2] != strides[-1] else 1
            config = of_timm.pretrained_cfg
            mean, std = (tuple(255 * x for x in config[key]) for key in ("mean", "std"))
            trained_px = int(config.get("input_size", (3, 0, 0))[-1])
            made = cls(
                name=name,
                model=model.eval().requires_grad_(False),
                mean=mean,
                std=std,
                stride_px=strides[-1],
                trained_px=trained_px,
                maps=maps,
            )

            with torch.inference_mode():
                made._maps(torch.zeros(1, 3, 2 * strides[-1], 3 * strides[-1]))
        except (AttributeError, AssertionError, LookupError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{name} cannot be the second encoder: it gives no feature maps of pictures of any "
                "size. DINOv2's and DINOv3's models of timm do."
            ) from error
        return made

    @property
    def facts(self) -> tuple[object, ...]:
        """Everything but the weights on which its features depend."""
        return type(self.model).__name__, self.mean, self.std, self.stride_px, self.maps

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the model and of its features."""
        return next(self.model.parameters()).dtype

    def in_fp32(self) -> "SecondEncoder":
        """Return a copy in fp32."""
        return replace(self, model=deepcopy(self.model).float())

    def default_short_side_px(self, words_px: int) -> int:
        """Choose the short side of its pictures.

        Args:
            words_px: short side of the pictures that CLIP gets.

        Returns:
            Twice that for a network of a stride of 32 px or more; else that, or the side that it
            was trained on where it is larger.
        """
        if self.stride_px >= _COARSE_STRIDE_PX:
            return 2 * words_px
        return max(words_px, self.trained_px)

    def resize(self, rgb: RGBArray, short_side_px: int) -> RGBArray:
        """Resize a picture for this encoder: antialiased where it shrinks, else bicubic.

        Args:
            rgb: (H, W, 3) uint8.
            short_side_px: wanted short side. A picture of more than 4.2 megapixels then, such as a
                panorama, gets as many.

        Returns:
            (h, w, 3) uint8, both sides multiples of `stride_px`.
        """
        sides_px = rgb.shape[:2]
        scale = min(short_side_px / min(sides_px), (_MOST_PX / (sides_px[0] * sides_px[1])) ** 0.5)
        height, width = (
            max(1, round(side * scale / self.stride_px)) * self.stride_px for side in sides_px
        )
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)

    def __call__(
        self, pixels: torch.Tensor, rows: Sequence[float], columns: Sequence[float]
    ) -> torch.Tensor:
        """Encode whole pictures in one pass, and sample the maps.

        Args:
            pixels: (B, 3, H, W) float32, normalised with `mean` and `std`; sides are multiples of
                `stride_px`, see `resize`.
            rows: n positions as shares of the height; `columns` alike.

        Returns:
            (B, n, m, S) in the model's dtype, S of all maps together, each map's of length 1.
        """
        y, x = (2 * torch.tensor(at, device=pixels.device) - 1 for at in (rows, columns))
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (n, m, 2), x first
        places = grid.expand(len(pixels), -1, -1, -1)
        sampled = (
            F.grid_sample(each.float(), places, padding_mode="border", align_corners=False)
            for each in self._maps(pixels.to(self.dtype))
        )
        joined = torch.cat([F.normalize(each, dim=1) for each in sampled], dim=1)
        return joined.permute(0, 2, 3, 1).to(self.dtype)

    def _maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return cast(_TimmModel, self.model).forward_intermediates(
            pixels, indices=self.maps, norm=True, intermediates_only=True
        )


def load_second_encoder(
    name: str,
    device: str = "auto",
    precision: str = "auto",
    folder: Path | None = None,
    download: bool = True,
) -> SecondEncoder:
    """Load a second encoder by its name in timm, or as ``name@file``.

    Args:
        device: see `clearclip_core.Segmenter.load`, as for the other arguments.

    Raises:
        ValueError: unknown name, device or precision, weights of another model, or a model that
            gives no maps of pictures of any size.
        WeightsNotFoundError: no weights; the message says how to bring them.
    """
    parsed = ModelName.parse_second(name)
    torch_device = choose_device(device)
    dtype = choose_precision(precision, torch_device)
    path = weights_file(parsed, folder, download)
    with read_errors(name):
        model = _create(parsed.arch, path)
    made = SecondEncoder.of(name, model)
    return replace(made, model=made.model.to(torch_device, dtype))


def _create(arch: str, path: Path) -> nn.Module:
    """Create a model of timm with the weights of a file, which is read without unpickling code."""
    with torch.device("meta"):
        takes_any_size = not hasattr(timm.create_model(arch), "dynamic_img_size")
    sizes: dict[str, Any] = {} if takes_any_size else {"dynamic_img_size": True}
    weights = load_state_dict(str(path), weights_only=True)
    if not weights:  # timm would ask a hub for its own
        raise ValueError("the file holds no weights.")

    model = timm.create_model(
        arch,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": weights},
        num_classes=0,
        **sizes,
    )
    check_finite(model)
    return model
