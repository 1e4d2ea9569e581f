"""`clearclip statistics` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from clearclip_core import HELD_OUT_SEEDS
from tests.core.cli.clearclip import clearclip, written


def test_statistics_of_pictures_are_a_table_and_two_figures(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "statistics"
    (photos / "broken.png").write_text("no picture")
    result = clearclip(
        *("statistics", photos, "--model=demo", "--device=cpu", "--short-side=112", "-o", out)
    )
    assert result.exit_code == 1  # for the broken one, which is told of once
    assert result.output.count("broken.png: cannot identify image file") == 1
    assert "demo, 5 blocks, 3 pictures" in result.output
    assert written(out) == {"statistics.json", "norms.png", "layers.png"}
    content = json.loads((out / "statistics.json").read_text())
    assert content["short_side_px"] == 112
    assert content["pictures"] == [
        str(photos / name) for name in ("one.jpg", "trip/Three.JPG", "two.png")
    ]
    (tower,) = content["towers"]
    assert (tower["name"], np.shape(tower["norm"]["X_attn"])) == ("demo", (3, 5))


def test_statistics_of_drawn_scenes_compare_towers(tmp_path: Path) -> None:
    vit = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=0
    )
    save_file(vit.state_dict(), tmp_path / "vits.safetensors")
    dino = f"--dino={tmp_path / 'vits.safetensors'}"
    out = tmp_path / "out"
    result = clearclip(
        *("statistics", "--model=demo", dino, "--scenes=2", "--short-side=64", "--device=cpu"),
        "-o",
        out,
    )
    assert result.exit_code == 0
    assert written(out) == {"statistics.json", "norms.png", "layers.png", "maps.png"}
    content = json.loads((out / "statistics.json").read_text())
    towers = [(each["name"], each["layers"]) for each in content["towers"]]
    assert towers == [("DINO (vits)", 2), ("demo", 5)]
    assert content["pictures"] == [f"drawn scene {seed}" for seed in HELD_OUT_SEEDS[:2]]
    refused = clearclip("statistics", "--model=demo", "--dino=nowhere.pth", "-o", tmp_path / "no")
    assert refused.exit_code == 1
    assert "Error: There are no DINO weights at nowhere.pth: bring" in refused.output
    assert not (tmp_path / "no").exists()
