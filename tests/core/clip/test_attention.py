"""Attention beyond what the reference compares: names, bf16, alignment, maps of keys in pieces."""

import pytest
import torch
import torch.nn.functional as F

from clearclip_core.clip import attention
from clearclip_core.clip.attention import (
    KeyMaps,
    attend,
    attend_aligned,
    scaled_dot_product,
)
from clearclip_core.clip.methods import parse_terms
from clearclip_core.clip.projections import Projections


@pytest.fixture
def projections() -> Projections:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(3, 2, 4, 7, 8, generator=generator, dtype=torch.float64)
    return Projections(*parts, torch.tensor([3.0, 11.0], dtype=torch.float64))


def test_a_missing_projection_is_named(projections: Projections) -> None:
    with pytest.raises(ValueError, match="'qk' needs the projections query and key"):
        attend(projections._replace(key=None), "qk")
    with pytest.raises(ValueError, match="needs the projections query and key and token_length"):
        attend(projections._replace(token_length=None), "ensemble")


@pytest.mark.parametrize("name", ["", "q", "qq+", "qq+qq", "QQ", "qq kk"])
def test_unknown_or_doubled_terms_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="qk, qq, kk, vv, identity, ensemble"):
        parse_terms(name)


@pytest.mark.parametrize("tokens", [5, 785])
@pytest.mark.parametrize("heads", [1, 5])
def test_attention_in_bf16_is_that_of_float32(heads: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, tokens, 3 * heads * 16)
    fused = torch.randn(shape, generator=generator).bfloat16()
    parts = [part.unflatten(-1, (heads, 16)).transpose(1, 2) for part in fused.chunk(3, dim=-1)]
    weights = (parts[0].float() @ parts[1].float().transpose(2, 3) / 4).softmax(dim=-1)
    with torch.inference_mode():
        out = scaled_dot_product(*parts)
    assert (out.shape, out.dtype) == ((2, heads, tokens, 16), torch.bfloat16)
    torch.testing.assert_close(out.float(), weights @ parts[2].float(), rtol=0.02, atol=0.02)


def test_equal_tokens_align_to_finite_numbers() -> None:
    same = torch.ones(1, 1, 5, 4)
    assert torch.isfinite(attend_aligned(same, same, same, 0.1)).all()


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


@pytest.mark.parametrize(
    ("numbers", "tokens"), [(1, 12), (40, 12), (1 << 18, 12), (1 << 18, 2), (40, 16), (40, 17)]
)
def test_maps_in_pieces_agree(monkeypatch: pytest.MonkeyPatch, numbers: int, tokens: int) -> None:
    """One row, three rows with a shorter rest, and all at once; padded with 14, no and 15 zeros."""
    monkeypatch.setattr(attention, "_CACHED_NUMBERS", numbers)
    torch.manual_seed(0)
    keys = [torch.randn(2, 3, tokens, 4, dtype=torch.float64) for _ in range(3)]
    value = torch.randn(2, 3, tokens - 1, 5, dtype=torch.float64)
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
