import pytest
import torch

from clearclip_core.clip.attention import (
    Projections,
    attend,
    scaled_dot_product,
)
from clearclip_core.clip.methods import parse_terms


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
