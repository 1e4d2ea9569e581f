"""`clearclip eval --images` as a person uses it, on drawn scenes saved as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, Segmenter, render_scene
from clearclip_core.demo.render import SYNONYMS
from clearclip_core.images.label_maps import label_map_image
from tests.core.cli.clearclip import clearclip

SEEDS = HELD_OUT_SEEDS[:2]
MODEL = ("--model=demo", "--device=cpu", "--precision=fp32", "--short-side=224")


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Two pictures of 96 x 128 px: one label map grey, the other with a palette."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number, seed in enumerate(SEEDS):
        scene = render_scene(seed, (96, 128))
        Image.fromarray(scene.image).save(tmp_path / "images" / f"{seed}.png")
        values = Image.fromarray(scene.label_map.astype(np.uint8))
        palette = label_map_image(scene.label_map, len(SCENE_LABELS))
        (values, palette)[number].save(tmp_path / "masks" / f"{seed}.png")
    (tmp_path / "names.txt").write_text("\n".join(SCENE_LABELS))
    parts = {"images": "images", "masks": "masks", "names": "names.txt"}
    return [f"--{option}={tmp_path / name}" for option, name in parts.items()]


def test_own_pictures_are_measured_as_plain_loops_measure(
    options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    result = clearclip("eval", *MODEL, *options, "--as-paper", f"--out={out}")
    assert result.exit_code == 0, result.output
    assert "2 pictures, 18 labels" in result.output
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=224)
    both, union, wrong, true = (np.zeros(18) for _ in range(4))
    for seed in SEEDS:
        scene = render_scene(seed, (96, 128))
        made = segmenter.segment(scene.image, SCENE_LABELS).label_map
        for index in range(18):
            ours, theirs = made == index, scene.label_map == index
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
            wrong[index] += (ours != theirs).sum()
            true[index] += theirs.sum()
    (run,) = json.loads(out.read_text())["runs"]
    seen = union > 0
    assert run["iou"] == pytest.approx((both[seen] / union[seen]).mean())
    assert run["saved_paint"] == pytest.approx(1 - wrong.sum() / true.sum())
    assert run["labels"]["sky"]["iou"] == pytest.approx(both[0] / union[0])


def test_a_label_may_have_a_threshold_of_its_own(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    thresholds = ("--threshold=0.2", "--threshold=sky=1")
    result = clearclip("eval", *MODEL, *options, *thresholds, f"--out={out}")
    assert result.exit_code == 0, result.output
    (run,) = json.loads(out.read_text())["runs"]
    predicted = {name for name, each in run["labels"].items() if each["close_share"] is not None}
    assert predicted
    assert "sky" not in predicted
    refused = clearclip("eval", *MODEL, *options, "--threshold=bus=1")
    assert "Expected --threshold to name a label" in refused.output


def test_methods_and_prompts_are_compared_in_one_table(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("\n".join(SYNONYMS[name][0] for name in SCENE_LABELS))
    page = tmp_path / "page.html"
    result = clearclip(
        *("eval", *MODEL, *options, "--method=clearclip", "--method=maskclip"),
        *(f"--prompts={tmp_path / 'names.txt'}", f"--prompts={tmp_path / 'other.txt'}"),
        f"--page={page}",
    )
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("| demo ")]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines]
    assert rows == [
        ["demo", method, prompts]
        for method in ("clearclip", "maskclip")
        for prompts in ("names.txt", "other.txt")
    ]
    # Two pictures, their truths and four predictions of each.
    assert page.read_text().count("data:image/jpeg") == 12
    assert result.output.count("These are demo weights") == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--data=x",), "--images goes without --benchmark and --data"),
        (("--as-paper", "--no-refine"), "--as-paper goes without --threshold and --no-refine"),
    ],
)
def test_options_that_do_not_fit_pictures_are_refused(
    options: list[str], more: tuple[str, ...], reason: str
) -> None:
    result = clearclip("eval", *MODEL, *options, *more)
    assert result.exit_code == 2
    assert reason in " ".join(result.output.split())
