"""A stand-in for a click model, whose answers a person can foresee."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import Mock

import torch

from clearclip_core import ClickFeatures, ClickModel, RGBArray

_BYTES = 64  # of the features of an image in float16


class HalfModel(ClickModel):
    """After a single click it offers the left quarter, the left half and all of an image.

    The first one is what it favours itself. In a box and after several clicks it answers the left
    half.

    Attributes:
        log: the widths of the images that it has encoded, in order.
        regions: the shares of an image, from its left side, that it proposes as regions.
        fault: called before an image of this width is encoded; may raise.
    """

    log: list[int]
    regions: tuple[float, ...]
    fault: Callable[[int], None]

    def __init__(self) -> None:
        super().__init__("halves", Mock(), Mock())
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "regions", (0.25, 0.5, 1.0))
        object.__setattr__(self, "fault", lambda _width: None)

    def prepare(self, rgb: RGBArray) -> torch.Tensor:
        return torch.from_numpy(rgb.copy()).permute(2, 0, 1).float()

    def encode(self, images: Sequence[torch.Tensor]) -> list[ClickFeatures]:
        for image in images:
            self.fault(image.shape[2])
            self.log.append(image.shape[2])
        return [
            ClickFeatures((image.mean((1, 2)), torch.rand(_BYTES // 2 - 3))) for image in images
        ]

    def masks(
        self,
        features: ClickFeatures,
        size_hw: tuple[int, int],
        points: Any = (),
        several: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shares = (0.25, 0.5, 1.0) if several else (0.5,)
        expected = torch.full((len(shares),), 0.6)
        expected[0] = 0.8
        return _left(shares), expected

    def masks_at(
        self, features: ClickFeatures, size_hw: tuple[int, int], points: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        masks = _left(self.regions).expand(len(points), -1, -1, -1)
        return 2 * masks, torch.full(masks.shape[:2], 0.9)

    def enlarge(self, log_odds: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
        made = torch.nn.functional.interpolate(log_odds[None, None], size_hw, mode="nearest")
        return made[0, 0]


def _left(shares: Sequence[float]) -> torch.Tensor:
    """Return (n, 64, 64) masks of these shares of an image, from its left side."""
    columns = torch.arange(64) / 64
    masks = torch.stack([torch.where(columns < share, 1.0, -1.0) for share in shares])
    return masks[:, None].expand(-1, 64, -1)
