"""Linear layers in int8: how near, in which range, and what the copy of a model shares."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch
import torch.nn.functional as F

from clearclip_core import METHODS, DenseEncoder
from clearclip_core.clip import int8
from clearclip_core.clip.devices import choose_precision
from clearclip_core.clip.int8 import (
    INT8_LAYERS,
    Int8Linear,
    int8_trouble,
    is_int8,
    quantize_tokens,
    quantize_weight,
    to_int8,
)
from tests.core.conftest import make_clip

CPU = torch.device("cpu")

#: Every pair of products is as large as it can be: 2 * 255 * 63 in 7 bits, 2 * 255 * 127 in 8.
WORST_CASE = """
import torch
from clearclip_core.clip import int8
int8._LARGEST_WEIGHT = {largest}
for engine_in in (64, 768):
    tokens, weight = torch.ones(5, engine_in), torch.ones(32, engine_in)
    print(float((int8.Int8Linear(weight, None)(tokens) / engine_in - 1).abs().max()))
"""


def least_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(F.cosine_similarity(found, expected, dim=-1).min())


def test_a_layer_is_near_the_exact_product_though_one_token_is_a_hundred_times_as_large() -> None:
    torch.manual_seed(1)
    tokens, weight, bias = torch.randn(2, 9, 96), torch.randn(48, 96), torch.randn(48)
    tokens[0, 4] *= 100
    weight[7] *= 100  # and one channel
    layer = Int8Linear(weight, bias)
    found, expected = layer(tokens), F.linear(tokens, weight, bias)
    assert (found.shape, found.dtype) == ((2, 9, 48), torch.float32)
    length = (tokens.norm(dim=-1, keepdim=True) * weight.norm(dim=-1)).clamp_min(1)
    assert ((found - expected).abs() / length).max() < 0.01
    torch.testing.assert_close(layer(tokens, 3), found + 2 * bias)


def test_zeros_stay_zeros_and_what_is_not_finite_does_not_pass_for_finite() -> None:
    layer = Int8Linear(torch.zeros(4, 16), None)
    assert torch.equal(layer(torch.ones(2, 16)), torch.zeros(2, 4))
    assert torch.equal(Int8Linear(torch.ones(4, 16), None)(torch.zeros(2, 16)), torch.zeros(2, 4))
    assert not Int8Linear(torch.ones(4, 16), None)(torch.full((1, 16), torch.inf)).isfinite().any()


def test_weights_use_seven_bits_and_tokens_eight() -> None:
    torch.manual_seed(2)
    weight = torch.randn(32, 64) * torch.logspace(-3, 3, 32)[:, None]
    values = quantize_weight(weight, Int8Linear(weight, None).scale)
    assert values.dtype == torch.int8
    assert values.abs().amax(dim=1).tolist() == [63] * 32  # each channel, and no number above
    tokens = quantize_tokens(torch.randn(50, 64))
    assert tokens.values.dtype == torch.uint8
    assert (int(tokens.values.min()), int(tokens.values.max())) == (1, 255)
    assert 2 * 255 * int(values.abs().max()) < 1 << 15  # what AVX2 adds up in 16 bits


@pytest.mark.parametrize("isa", [None, "AVX2"])
def test_no_product_saturates(isa: str | None) -> None:
    """In a process of its own: oneDNN reads the variable once."""
    limit = {} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa, "ATEN_CPU_CAPABILITY": "avx2"}
    ran = subprocess.run(
        [sys.executable, "-c", WORST_CASE.format(largest=int8._LARGEST_WEIGHT)],
        env=os.environ | limit,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert [float(line) < 1e-4 for line in ran.stdout.split()] == [True, True]


@pytest.mark.parametrize("method", ["clearclip", "clip", "scclip", "clipsurgery"])
@pytest.mark.parametrize("layers", INT8_LAYERS)
def test_blocks_as_wide_as_a_vit_b_keep_their_features(method: str, layers: str) -> None:
    clip = make_clip(layers=2, width=768, head_width=64)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = DenseEncoder(clip, METHODS[method])(pixels, True)
        found = DenseEncoder(to_int8(clip, layers), METHODS[method])(pixels, True)
    assert not torch.equal(found.patches, expected.patches)
    assert found.cls is not None
    assert expected.cls is not None
    assert least_cosine(found.patches, expected.patches) > 0.999
    assert least_cosine(found.cls, expected.cls) > 0.999


def test_the_copy_shares_all_other_weights_and_leaves_the_model_as_it_was() -> None:
    clip = make_clip()
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    copies = {layers: to_int8(clip, layers) for layers in INT8_LAYERS}
    assert all(torch.equal(clip.state_dict()[name], tensor) for name, tensor in before.items())
    assert not is_int8(clip.visual)
    for made in copies.values():
        assert is_int8(made.visual)
        assert made.token_embedding.weight is clip.token_embedding.weight
        assert made.visual.conv1.weight is clip.visual.conv1.weight
        assert made.visual.proj is clip.visual.proj
    first, last = (clip.visual.transformer.resblocks[0].mlp[index] for index in (0, 2))
    for layers, has_both in zip(INT8_LAYERS, (True, False), strict=True):
        mlp = copies[layers].visual.transformer.resblocks[0].mlp
        assert isinstance(mlp.c_fc, Int8Linear) == has_both
        assert isinstance(mlp.c_proj, Int8Linear)
    dropped, kept = weakref.ref(last.weight), weakref.ref(first.weight)
    del clip, first, last
    gc.collect()
    assert dropped() is None
    assert kept() is not None  # the second copy has it in fp32


def test_the_state_tells_every_weight() -> None:
    """The features' id is made of the state: equal ids must mean equal features."""
    torch.manual_seed(4)
    weight, bias = torch.randn(8, 32), torch.randn(8)
    states = []
    for tuned in (weight, weight.clone(), weight.clone(), weight * 2):
        states.append(Int8Linear(tuned, bias).state_dict())
    other = weight.clone()
    other[3, other[3].abs().argmin()] = other[3].abs().max() / 2  # the scale is the same
    states[2] = Int8Linear(other, bias).state_dict()
    same = [all(torch.equal(state[name], states[0][name]) for name in state) for state in states]
    assert same == [True, True, False, False]
    assert torch.equal(states[2]["scale"], states[0]["scale"])


def test_other_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="one of all, without-ffn-inputs, but got 'some'"):
        to_int8(make_clip(), "some")


def test_the_precision_is_for_cpus_with_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert int8_trouble() == ""
    assert choose_precision("int8", CPU) == torch.float32
    for device in ("cuda", "mps"):
        with pytest.raises(ValueError, match=f"int8 is for CPUs: on {device} take"):
            choose_precision("int8", torch.device(device))

    def missing(*_: object) -> None:
        raise NotImplementedError("not built with oneDNN")

    monkeypatch.setattr(Int8Linear, "multiply", missing)
    int8_trouble.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"int8 is not there: this build of torch .*NotImpl"):
            choose_precision("int8", CPU)
        monkeypatch.setattr(Int8Linear, "multiply", lambda *_: torch.zeros(32, 32))
        int8_trouble.cache_clear()
        with pytest.raises(ValueError, match="multiplies wrongly in int8"):
            choose_precision("int8", CPU)
    finally:
        int8_trouble.cache_clear()
