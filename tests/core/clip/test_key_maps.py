"""Maps of keys in pieces against whole maps written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearclip_core.clip import attention
from clearclip_core.clip.attention import KeyMaps


def plainly(keys: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(*value.shape[:3], value.shape[2], dtype=value.dtype)
    for key in keys:
        logits = torch.einsum("bhnd,bhmd->bhnm", key, key) / key.shape[-1] ** 0.5
        exponents = logits.exp()
        total += (exponents / exponents.sum(dim=-1, keepdim=True))[:, :, 1:, 1:]
    return torch.einsum("bhnm,bhmv->bhnv", total, value)


def applied(keys: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    maps = KeyMaps(len(keys))
    for key in keys:
        maps.add(key)
    return maps.apply(value)


@pytest.mark.parametrize("numbers", [1, 40, 1 << 18])
def test_maps_in_pieces_are_the_whole_maps(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    """Pieces of one row, of three rows with a shorter rest, and all rows at once."""
    monkeypatch.setattr(attention, "_CACHED_NUMBERS", numbers)
    torch.manual_seed(0)
    keys = [torch.randn(2, 3, 12, 4, dtype=torch.float64) for _ in range(3)]
    value = torch.randn(2, 3, 11, 5, dtype=torch.float64)
    made = applied(keys, value)
    torch.testing.assert_close(made, plainly(keys, value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens", [2, 16, 17])
def test_padding_is_attended_to_by_nothing(tokens: int) -> None:
    """One patch and 14 zeros, no zero, and 15 zeros."""
    torch.manual_seed(1)
    keys = [torch.randn(1, 2, tokens, 4, dtype=torch.float64) for _ in range(2)]
    value = torch.randn(1, 2, tokens - 1, 3, dtype=torch.float64)
    made = applied(keys, value)
    torch.testing.assert_close(made, plainly(keys, value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1.0, 1000.0])
def test_logits_of_any_size_are_attended_by(length: float) -> None:
    """The large ones overflow, as exponentials, in float32 and in float64."""
    torch.manual_seed(3)
    keys = [length * torch.randn(2, 3, 12, 4) for _ in range(3)]
    value = torch.randn(2, 3, 11, 5)
    maps = [F.softmax((key @ key.mT).double() / 2, dim=-1)[..., 1:, 1:] for key in keys]
    expected = sum(maps[1:], maps[0]) @ value.double()
    torch.testing.assert_close(applied(keys, value).double(), expected, rtol=0, atol=1e-5)
