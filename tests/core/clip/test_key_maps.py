"""Maps of keys in pieces against whole maps written out."""

from __future__ import annotations

import pytest
import torch

from clearclip_core.clip import key_maps
from clearclip_core.clip.key_maps import apply_key_maps


def plainly(keys: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(*value.shape[:3], value.shape[2], dtype=value.dtype)
    for key in keys:
        logits = torch.einsum("bhnd,bhmd->bhnm", key, key) / key.shape[-1] ** 0.5
        exponents = logits.exp()
        total += (exponents / exponents.sum(dim=-1, keepdim=True))[:, :, 1:, 1:]
    return torch.einsum("bhnm,bhmv->bhnv", total, value)


@pytest.mark.parametrize("numbers", [1, 40, 1 << 16])
def test_maps_in_pieces_are_the_whole_maps(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    """Pieces of one row, of three rows with a shorter rest, and all rows at once."""
    monkeypatch.setattr(key_maps, "_CACHED_NUMBERS", numbers)
    torch.manual_seed(0)
    keys = [torch.randn(2, 3, 12, 4, dtype=torch.float64) for _ in range(3)]
    value = torch.randn(2, 3, 11, 5, dtype=torch.float64)
    made = apply_key_maps(keys, value)
    torch.testing.assert_close(made, plainly(keys, value), rtol=0, atol=1e-12)
