"""Statistics of feature maps against plain numpy and scipy, on maps that stock blocks give."""

import copy
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import scipy.special
import scipy.stats
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from clearclip_core import METHODS, SCENE_LABELS, RGBArray, Segmenter, render_scene
from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.paper import feature_statistics
from clearclip_core.paper.feature_statistics import (
    MAP_NAMES,
    DinoTower,
    ImageTower,
    MapExample,
    MapStatistics,
    as_lists,
    map_statistics,
)
from clearclip_core.paper.tables import ATTENTIONS
from tests.core.clip.test_dense_encoder import cubic
from tests.core.conftest import MEAN, STD
from tests.core.reference import attention

SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=200, window_px=64, stride_px=32)


def stock_maps(clip: open_clip.CLIP, pixels: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """X_res, X_attn and X_sum of each block for one window, by listening to stock blocks."""
    heard: list[torch.Tensor] = []
    blocks = clip.visual.transformer.resblocks
    hooks = [b.register_forward_pre_hook(lambda _, given: heard.append(given[0])) for b in blocks]
    clip.visual(pixels[None])
    for hook in hooks:
        hook.remove()
    found = []
    for block, x in zip(blocks, heard, strict=True):
        maps = {"X_res": x, **{name: attention(block, x, name) for name in ATTENTIONS}}
        maps |= {"X_attn": maps["qk"], "X_sum": maps["X_res"] + maps["qk"]}
        found.append({name: each[0, 1:].numpy() for name, each in maps.items()})
    return found


def windows_of(image: RGBArray) -> list[torch.Tensor]:
    """Three windows of 64 px of a picture of 64 x 128 px."""
    pixels = (image.astype(np.float64) - MEAN) / STD
    cut = [pixels[:, left : left + 64].transpose(2, 0, 1) for left in (0, 32, 64)]
    return [torch.from_numpy(np.ascontiguousarray(each)) for each in cut]


def test_statistics_are_of_stock_blocks_and_means_over_windows(
    clip_model: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the encoder would read: its blocks are described as they were trained."""
    monkeypatch.setattr(feature_statistics, "_WINDOWS_AT_ONCE", 2)
    clip = copy.deepcopy(clip_model).double()
    images = [render_scene(seed, size_hw=(64, 128)).image for seed in (1, 2)]
    encoder = DenseEncoder(clip, METHODS["clipsurgery"])
    found = map_statistics(encoder, "tiny", images, SIZES)
    assert (found.name, found.norm.shape) == ("tiny", (2, 3, 3))
    for picture, image in enumerate(images):
        each = [stock_maps(clip, window) for window in windows_of(image)]
        for index, name in enumerate(MAP_NAMES):
            for layer in range(3):
                maps = [window[layer][name] for window in each]
                norms = [np.sqrt((m**2).sum()) for m in maps]
                assert found.norm[picture, index, layer] == pytest.approx(np.mean(norms))
                peaks = [m.max() for m in maps]
                assert found.maximum[picture, index, layer] == pytest.approx(np.mean(peaks))
                entropies = [scipy.stats.entropy(scipy.special.softmax(m).ravel()) for m in maps]
                expected = np.mean(entropies) / np.log(16 * 64)
                assert found.entropy[picture, index, layer] == pytest.approx(expected)
            curves = [np.sort(window[-1][name].mean(axis=0)) for window in each]
            scaled = [(c - c[0]) / (c[-1] - c[0]) for c in curves]
            assert found.channel_means[picture, index] == pytest.approx(np.mean(scaled, axis=0))
        last = [np.mean([np.linalg.norm(window[-1][k]) for window in each]) for k in ATTENTIONS]
        assert found.attention_norm[picture] == pytest.approx(last)


def test_an_example_is_what_segmenters_of_the_maps_make() -> None:
    tower = ImageTower.of_model("demo", "cpu")
    assert tower.model is not None
    image = render_scene(4, size_hw=(100, 150)).image
    sizes = Preprocessing.of_short_side(tower.mean, tower.std, 112)
    example = MapExample.of(tower.model, image, SCENE_LABELS, sizes)
    assert (example.name, example.labels) == ("demo", SCENE_LABELS)
    spelled_out = {"X_sum": "qk-res", "X_res": "qk-res-a0", "X_attn": "qk", "ClearCLIP": "qq"}
    assert list(example.label_maps) == list(spelled_out)
    for name, method in spelled_out.items():
        expected = Segmenter(tower.model, method, sizes).segment(image, SCENE_LABELS).label_map
        assert np.array_equal(example.label_maps[name], expected)


def made_up(name: str = "tower", pictures: int = 2, layers: int = 4) -> MapStatistics:
    rng = np.random.default_rng(0)
    shape = (pictures, 3, layers)
    return MapStatistics(
        name,
        norm=rng.uniform(10, 900, shape),
        entropy=rng.uniform(0, 1, shape),
        maximum=rng.uniform(1, 90, shape),
        attention_norm=rng.uniform(10, 90, (pictures, 5)),
        channel_means=np.sort(rng.uniform(0, 1, (pictures, 3, 8)), axis=-1),
    )


def test_lists_hold_every_picture_and_layer_by_name() -> None:
    found = made_up()
    read = json.loads(json.dumps(as_lists(found)))
    assert (read["name"], read["layers"]) == ("tower", 4)
    for key in ("norm", "entropy", "maximum"):
        for index, name in enumerate(("X_sum", "X_res", "X_attn")):
            expected = getattr(found, key)[:, index]
            assert np.array(read[key][name]) == pytest.approx(expected, rel=1e-5)
    assert list(read["attention_norm"]) == ["qk", "identity", "vv", "kk", "qq"]
    assert read["attention_norm"]["vv"] == pytest.approx(found.attention_norm[:, 2], rel=1e-5)
    means = (found.channel_means[0, 1] + found.channel_means[1, 1]) / 2
    assert read["channel_means"]["X_res"] == pytest.approx(means, rel=1e-5)


def small_vit() -> VisionTransformer:
    """The shape of DINO's models, two heads of 64 wide, its norms not at their initial 1 and 0."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=64, patch_size=16, embed_dim=128, depth=3, num_heads=2, num_classes=0
    ).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vit.requires_grad_(False)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in small_vit().state_dict().items()}


def pixels_of(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_each_block_is_timms(weights: dict[str, torch.Tensor], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"dino{suffix}"
    if suffix == ".pth":
        torch.save(weights | {"head.weight": torch.zeros(3, 128)}, path)  # heads are left out
    else:
        save_file(weights, path)
    vit, heard = small_vit(), []
    hooks = [
        module.register_forward_hook(lambda _, given, out: heard.append((given[0], out)))
        for block in vit.blocks
        for module in (block.norm1, block.attn)
    ]
    vit(pixels_of(64, 64))
    for hook in hooks:
        hook.remove()
    tower = DinoTower.load(path)
    assert (tower.patch_size_hw, tower.dtype, tower.device.type) == ((16, 16), torch.float32, "cpu")
    layers = list(tower.layer_maps(pixels_of(64, 64), ["identity"]))
    assert len(layers) == 3
    for layer, (before, _), (_, attended) in zip(layers, heard[::2], heard[1::2], strict=True):
        torch.testing.assert_close(layer.residual, before[:, 1:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.attention, attended[:, 1:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.sum, (before + attended)[:, 1:], rtol=1e-5, atol=1e-5)
    block = vit.blocks[-1]
    value = block.attn.qkv(block.norm1(heard[-2][0]))[..., -128:]
    expected = block.attn.proj(value)[:, 1:]
    torch.testing.assert_close(layers[-1].attentions["identity"], expected, rtol=1e-4, atol=1e-5)


def test_positions_are_resized_by_factor(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """As DINO's authors do; one row of one channel, by a cubic of one's own."""
    positions = torch.zeros_like(weights["pos_embed"])
    row = [1.0, 5.0, 2.0, 8.0]
    positions[0, 1:, 0] = torch.tensor(row * 4)
    save_file(weights | {"pos_embed": positions}, tmp_path / "moved.safetensors")
    save_file(weights | {"pos_embed": 0 * positions}, tmp_path / "still.safetensors")
    moved, still = (
        next(DinoTower.load(tmp_path / f"{name}.safetensors").layer_maps(pixels_of(64, 96)))
        for name in ("moved", "still")
    )
    found = (moved.residual - still.residual)[0, :, 0].reshape(4, 6)[1]
    expected = [cubic(row, (i + 0.5) / (6.1 / 4) - 0.5) for i in range(6)]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_other_files_are_refused(
    weights: dict[str, torch.Tensor], safetensors_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "garbage.pth").write_bytes(b"no weights at all")
    part = {name: w for name, w in weights.items() if name != "norm.weight"}
    save_file(part, tmp_path / "part.safetensors")
    for path in (tmp_path / "garbage.pth", tmp_path / "part.safetensors", safetensors_file):
        with pytest.raises(ValueError, match=r"does not hold the backbone of one of DINO's"):
            DinoTower.load(path)
