"""The decomposition against stock open_clip, and against a plainly written last block.

Resized position embeddings against their definition, and against Pillow.
"""

import copy
import math
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import AttentionalPooler
from PIL import Image

from clearclip_core import METHODS
from clearclip_core.clip.dense_encoder import (
    DenseEncoder,
    WindowFeatures,
    choose_windows_at_once,
    pool_each_alone,
    resize_position_embedding,
)
from tests.core.conftest import make_clip


def stock_tokens(model: open_clip.CLIP, pixels: torch.Tensor) -> torch.Tensor:
    """open_clip's own patch tokens after ln_post, projected: (B, N, D), unit length."""
    visual = copy.deepcopy(model.visual)
    visual.output_tokens = True
    _, tokens = visual(pixels)
    return F.normalize(tokens @ visual.proj, dim=-1)


def pixels_of(height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_faster_ways_of_inference_are_exact(batch: int, quick_gelu: bool, inference: bool) -> None:
    """In float64, so that nothing hides behind rounding."""
    model = make_clip(quick_gelu, ls_init_value=0.3).double()
    before = copy.deepcopy(model.state_dict())
    pixels = pixels_of(32, 128, torch.float64)[:1].repeat(batch, 1, 1, 1)  # 16 patches, as trained
    expected = stock_tokens(model, pixels)
    with torch.inference_mode(inference):
        dense = DenseEncoder(model, METHODS["clip"]).encode(pixels).flatten(1, 2)
    torch.testing.assert_close(dense, expected, rtol=1e-9, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 33, 32), (1, 3, 8, 32)])
def test_wrong_pixels_are_refused(clip_model: open_clip.CLIP, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`pixels`"):
        DenseEncoder(clip_model, METHODS["clearclip"]).encode(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", METHODS)
def test_features_are_of_length_one_in_every_precision(name: str, dtype: torch.dtype) -> None:
    model = make_clip(layers=7).to(dtype)
    with torch.inference_mode():
        beside = torch.ones(1, 3, 5, 2, dtype=dtype)
        features = DenseEncoder(model, METHODS[name], ())(pixels_of(48, 80, dtype), beside)
    assert (features.patches.shape, features.patches.dtype) == ((2, 3, 5, 24), dtype)
    for part in features:
        if part is not None:
            lengths = part.float().norm(dim=-1)
            torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("vision", "why"),
    [
        ({"layers": [1, 1, 1, 1], "width": 16}, "another kind"),
        ({"attentional_pool": "parallel"}, "pools by attention twice"),
        ({"block_type": "custom"}, "attention blocks of another kind"),
    ],
)
def test_towers_that_cannot_be_taken_apart_are_refused(vision: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=f"native Vision Transformers.*{why}"):
        DenseEncoder(make_clip(**vision), METHODS["clearclip"])


@torch.inference_mode()
def test_where_all_tokens_are_equal_cocas_patches_are_the_pictures_embedding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_clip(attentional_pool=True, attn_pooler_queries=5)
    encoder = DenseEncoder(model, METHODS["clip"])
    for last in (model.visual.transformer.resblocks[-1], encoder.last):
        monkeypatch.setattr(last, "forward", lambda x, *_, **__: x[:, -1:].expand_as(x))
    pixels = pixels_of(64, 64)
    patches = encoder.encode(pixels)
    whole = F.normalize(model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(patches, whole[:, None, None].expand_as(patches))


@pytest.mark.parametrize("width", [24, 64])
@torch.inference_mode()
def test_a_token_is_pooled_alone_as_cocas_own_pooling_does(width: int) -> None:
    torch.manual_seed(0)
    pool = AttentionalPooler(24, width, n_head=4, n_queries=3)
    torch.nn.init.normal_(pool.attn.in_proj_bias)
    tokens = torch.randn(2, 7, width)
    expected = torch.cat([pool(tokens[:, at : at + 1])[:, :1] for at in range(7)], dim=1)
    torch.testing.assert_close(pool_each_alone(pool, tokens), expected)


def test_coca_has_no_cls_for_methods_that_compare_classes_with_it() -> None:
    with pytest.raises(ValueError, match="clipsurgery needs a model whose CLS"):
        DenseEncoder(make_clip(attentional_pool=True), METHODS["clipsurgery"])


@pytest.mark.parametrize(
    ("window_px", "windows"), [(64, 8), (224, 8), (336, 3), (448, 2), (896, 1)]
)
def test_a_batch_on_a_cpu_has_the_pixels_of_two_windows_of_the_paper(
    clip_model: open_clip.CLIP, window_px: int, windows: int
) -> None:
    encoder = DenseEncoder(clip_model, METHODS["clearclip"])
    assert choose_windows_at_once(encoder, window_px) == windows


def test_a_batch_on_cuda_takes_half_of_the_free_memory(
    clip_model: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = DenseEncoder(clip_model, METHODS["clearclip"])
    monkeypatch.setattr(DenseEncoder, "device", torch.device("cuda:0"))
    one_window = encoder.activation_bytes((64, 64))
    assert one_window == 17 * 16 * 64 * 4  # tokens, widths, width, bytes
    for windows, chosen in ((0.5, 1), (1, 1), (20.5, 20), (1000, 64)):
        free = int(2 * windows * one_window)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**12))
        assert choose_windows_at_once(encoder, 64) == chosen


class Uploaded:
    """A stand-in for a tensor in the memory of a CPU that notes how it is uploaded."""

    device, dtype = torch.device("cpu"), torch.float16

    def __init__(self) -> None:
        self.log: list[Any] = []

    def pin_memory(self) -> "Uploaded":
        self.log.append("pinned")
        return self

    def to(self, to: torch.device | torch.dtype, non_blocking: bool = False) -> "Uploaded":
        self.log.append((to, non_blocking))
        return self


def test_features_from_memory_are_uploaded_without_a_wait() -> None:
    patches, cls = Uploaded(), Uploaded()
    WindowFeatures(patches, cls).to("cuda:0")  # type: ignore[arg-type]
    for part in (patches, cls):
        assert part.log == [(torch.float16, False), "pinned", (torch.device("cuda:0"), True)]
    on_cpu = WindowFeatures(torch.ones(1, 1, 1, 4), torch.ones(1, 4)).to("cpu", torch.float16)
    assert on_cpu.patches.dtype == on_cpu.cls.dtype == torch.float16  # type: ignore[union-attr]


def cubic(samples: list[float], at: float) -> float:
    """Cubic convolution (Keys 1981) with a = -0.75, edges repeated."""
    a, total = -0.75, 0.0
    for i in range(math.floor(at) - 1, math.floor(at) + 3):
        d = abs(at - i)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        weight = near if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        total += weight * samples[min(max(i, 0), len(samples) - 1)]
    return total


def test_positions_are_resized_by_factor_not_by_size() -> None:
    """As DINO does: sample points lie at (i + 0.5) / factor - 0.5, factor (w + 0.1) / √N."""
    samples = [0.0, 3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
    grid = torch.tensor(samples).expand(8, 8).reshape(64, 1)
    resized = resize_position_embedding(torch.cat([grid[:1], grid]), (8, 8), (8, 16))
    assert resized.shape == (1 + 8 * 16, 1)
    row = resized[1:].reshape(8, 16)[4].tolist()
    expected = [cubic(samples, (i + 0.5) / (16.1 / 8) - 0.5) for i in range(16)]
    assert row == pytest.approx(expected, abs=1e-4)
    by_size = [cubic(samples, (i + 0.5) / (16 / 8) - 0.5) for i in range(16)]
    assert row != pytest.approx(by_size, abs=1e-2)


def test_positions_by_size_are_those_of_pillows_bicubic() -> None:
    """Which antialiases, as GEM's resizing does; the grid has rows and columns of their own."""
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(1 + 5 * 7, 3, generator=generator)
    for height, width in ((9, 4), (3, 14), (10, 14)):
        resized = resize_position_embedding(embedding, (5, 7), (height, width), how="size")
        assert torch.equal(resized[0], embedding[0])
        for channel in range(3):
            grid = embedding[1:, channel].reshape(5, 7).numpy()
            expected = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
            got = resized[1:, channel].reshape(height, width).numpy()
            assert got == pytest.approx(np.asarray(expected), abs=1e-5)
