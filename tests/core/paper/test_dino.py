"""DINO's towers against timm's own forward pass, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from clearclip_core.paper.feature_statistics import DinoTower
from tests.core.clip.test_position_embedding import cubic


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
def test_every_block_is_timms_own(
    weights: dict[str, torch.Tensor], tmp_path: Path, suffix: str
) -> None:
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
