"""Make the dense encoder that fits a model's image tower.

Another package adds a family of towers by an entry point of the group ``clearclip.towers``: a
subclass of `clearclip_core.clip.towers.Tower`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import nn

from clearclip_core.clip.dense_encoder import DenseEncoder, checked_visual
from clearclip_core.clip.methods import Method
from clearclip_core.clip.tipsv2 import Tipsv2Tower
from clearclip_core.clip.towers import ResNetTower, TimmTower, Tower
from clearclip_core.registry import Registry


def _expect_tower(name: str, found: object) -> type[Tower]:
    if not (isinstance(found, type) and issubclass(found, Tower)):
        raise TypeError("is no subclass of Tower")
    return found


#: Families of image towers beside native Vision Transformers, and those of other packages.
_TOWERS: Final[Registry[type[Tower]]] = Registry(
    "clearclip.towers",
    "tower",
    {"timm": TimmTower, "resnet": ResNetTower, "tipsv2": Tipsv2Tower},
    _expect_tower,
)


def _family_of(clip_model: nn.Module) -> type[Tower] | None:
    """Return the family of a model's image tower; None for a native Vision Transformer's."""
    visual = getattr(clip_model, "visual", None)
    return next((family for family in _TOWERS.all() if family.fits(visual)), None)


def check_tower(clip_model: nn.Module) -> None:
    """Check that the image tower of a model can be read out densely.

    Raises:
        ValueError: it cannot; the message says which models can.
    """
    if _family_of(clip_model) is None:
        checked_visual(clip_model)


def make_encoder(
    clip_model: nn.Module, method: Method, sink_channels: Sequence[int] | None = None
) -> DenseEncoder | Tower:
    """Make the dense encoder of a model.

    Args:
        clip_model: a model of open_clip, or one with its members ``visual`` and ``encode_text``.
        method: how the last blocks are read out.
        sink_channels: sink channels of the weights, for methods that repair sinks.

    Raises:
        ValueError: a model or a method that cannot be read out; the message says what can.
    """
    family = _family_of(clip_model)
    if family is None:
        return DenseEncoder(clip_model, method, sink_channels)
    return family(clip_model.visual, method)
