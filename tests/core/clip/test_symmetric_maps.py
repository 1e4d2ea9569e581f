"""Maps from symmetric exponentials against whole maps written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearclip_core.clip import attention
from clearclip_core.clip.attention import KeyMaps, apply_symmetric, can_be_symmetric
from tests.core.clip.test_key_maps import applied, plainly


def some_keys(length: float = 1.0, tokens: int = 12) -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [length * torch.randn(2, 3, tokens, 4, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("band_rows", [1, 3, 12, 13, 100])
def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch, band_rows: int) -> None:
    """Bands of one row, the last of padding alone, of all tokens, and one higher than all rows."""
    monkeypatch.setattr(attention, "_BAND_ROWS", band_rows)
    keys = torch.stack([key[0] for key in some_keys()])
    assert can_be_symmetric(keys)
    value = torch.randn(3, 12, 5, dtype=torch.float64)
    value[:, 0] = 0
    made = apply_symmetric(F.pad(keys, (0, 0, 0, 4)), 12, F.pad(value, (0, 0, 0, 4)))
    expected = plainly(list(keys[:, None]), value[None, :, 1:])
    torch.testing.assert_close(made[None, :, 1:12], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1.0, 1000.0])
def test_logits_of_any_size_are_attended_by(length: float) -> None:
    """The large ones overflow, as exponentials, in float32 and in float64."""
    keys = [key.float() for key in some_keys(length)]
    value = torch.randn(2, 3, 11, 5)
    maps = [F.softmax((key @ key.mT).double() / 2, dim=-1)[..., 1:, 1:] for key in keys]
    expected = sum(maps[1:], maps[0]) @ value.double()
    torch.testing.assert_close(applied(keys, value).double(), expected, rtol=0, atol=1e-5)


def test_keys_that_softmax_has_to_shift_are_known() -> None:
    keys = torch.zeros(2, 1, 5, 64)
    assert can_be_symmetric(keys)
    assert not can_be_symmetric(keys.half())
    assert not can_be_symmetric(keys.clone().requires_grad_())
    keys[1, 0, 3, 7] = 21.9  # a logit of 59.95
    assert can_be_symmetric(keys)
    keys[1, 0, 3, 7] = 22.0
    assert not can_be_symmetric(keys)
    keys[1, 0, 3, 7] = torch.nan
    assert not can_be_symmetric(keys)


def test_sums_of_the_largest_exponentials_stay_finite() -> None:
    """All tokens have the same key, with the largest logits that are not shifted."""
    key = torch.zeros(1, 1, 800, 64)
    key[..., 0] = 21.9
    maps = KeyMaps(1)
    maps.add(key)
    value = torch.arange(799.0).reshape(1, 1, 799, 1)
    torch.testing.assert_close(maps.apply(value), torch.full_like(value, 799 * 399 / 800))
