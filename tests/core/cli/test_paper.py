"""`clearclip ablate` and `tables` as a person uses them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from clearclip_core import HELD_OUT_SEEDS
from tests.core.cli.clearclip import clearclip, written
from tests.core.evaluation import factories, miniatures

DEMO = ("--model=demo", "--device=cpu")


@pytest.fixture
def arguments(model_folder: Path, tmp_path: Path) -> list[str | Path]:
    miniatures.make("cityscapes", tmp_path / "data")
    return [
        *("ablate", "--benchmark=cityscapes", f"--data={tmp_path / 'data'}"),
        *(f"--model=local-dir:{model_folder}", "--device=cpu", "--precision=fp32"),
        *("-o", tmp_path / "out"),
    ]


def readouts(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return {each["settings"]["method"]: each for each in found}


def test_table_1_is_measured_then_the_rest(arguments: list[str | Path], tmp_path: Path) -> None:
    first = clearclip(*arguments, "--study=table1")
    assert first.exit_code == 0, first.output
    measured = readouts(tmp_path / "out")
    assert set(measured) == {"qq-res-ffn", "qq-res", "qq-ffn", "clearclip"}
    shown = [line for line in first.output.splitlines() if "**yours**, fp32" in line]
    assert len(shown) == 4
    assert f"{100 * measured['clearclip']['miou']:.1f}" in shown[3]
    assert not list((tmp_path / "out").glob("*.png"))
    out = tmp_path / "alone.json"
    assert clearclip("eval", *arguments[1:-2], f"-o{out}").exit_code == 0
    alone = json.loads(out.read_text())
    for measure in ("miou", "pixel_accuracy"):
        assert measured["clearclip"][measure] == pytest.approx(alone[measure], abs=2e-3)
    assert measured["clearclip"]["settings"] == alone["settings"]

    again = clearclip(*arguments, "--study=figure5")
    assert again.exit_code == 0, again.output
    more = readouts(tmp_path / "out")
    assert len(more) == 20
    assert {name: more[name] for name in measured} == measured  # not measured again
    assert [picture.name for picture in (tmp_path / "out").glob("*.png")] == ["figure5.png"]
    assert sorted(each.suffix for each in (tmp_path / "out").iterdir()) == [*[".json"] * 20, ".png"]


def test_tables_with_files_and_folders_of_results(tmp_path: Path) -> None:
    factories.result("voc20", 50).write(tmp_path / "many" / "a.json")
    factories.result("voc21", 60, "gem").write(tmp_path / "many" / "b.json")
    factories.result("ade20k", 70, model="demo").write(tmp_path / "c.json")
    result = clearclip("tables", tmp_path / "many", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert result.output.count("**yours**") == 3
    alone = clearclip("tables").output
    assert "| 80.9  | 35.9 " in alone
    assert "yours" not in alone


def test_statistics_of_pictures_are_a_table_and_two_figures(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "statistics"
    (photos / "broken.png").write_text("no picture")
    result = clearclip("statistics", photos, *DEMO, "--short-side=112", "-o", out)
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
    vit = VisionTransformer(32, 16, embed_dim=64, depth=2, num_heads=1, num_classes=0)
    save_file(vit.state_dict(), tmp_path / "vits.safetensors")
    dino = f"--dino={tmp_path / 'vits.safetensors'}"
    out = tmp_path / "out"
    result = clearclip("statistics", *DEMO, dino, "--scenes=2", "--short-side=64", "-o", out)
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
