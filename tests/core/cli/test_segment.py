"""`clearclip segment` as a person uses it: files in, files out, one line an error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearclip_core import HELD_OUT_SEEDS, Segmenter, render_scene
from tests.core.cli.clearclip import clearclip, draw, written


@pytest.fixture
def options(model_folder: Path, tmp_path: Path) -> list[str]:
    """A small model, and the folder `out`."""
    model = f"--model=local-dir:{model_folder}"
    return [model, "--short-side=64", "--device=cpu", "--precision=fp32", f"-o{tmp_path / 'out'}"]


def test_a_file_becomes_map_and_overlay(photos: Path, options: list[str], tmp_path: Path) -> None:
    result = clearclip("segment", photos / "two.png", "--labels", "sky, dog", *options)
    assert result.exit_code == 0
    assert f"1 picture segmented into {tmp_path / 'out'}, 0 failed." in result.output
    assert written(tmp_path / "out") == {"two.labels.png", "two.overlay.png"}
    with Image.open(tmp_path / "out" / "two.labels.png") as labels:
        assert (labels.mode, labels.size) == ("L", (40, 90))
        assert set(np.unique(np.asarray(labels)).tolist()) <= {0, 1}
    with Image.open(tmp_path / "out" / "two.overlay.png") as overlay:
        assert overlay.height == 90
        assert overlay.width > 40  # the legend


def test_a_broken_picture_costs_itself(photos: Path, options: list[str], tmp_path: Path) -> None:
    whole = (photos / "one.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "no-picture.png").write_text("no picture")
    result = clearclip("segment", photos, "--labels=sky,dog", *options)
    assert result.exit_code == 1
    assert "3 pictures segmented" in result.output
    assert "2 failed." in result.output
    assert f"{photos / 'cut.jpg'}: " in result.output
    assert f"{photos / 'no-picture.png'}: cannot identify image file" in result.output
    names, kinds = {"one", "two", "Three"}, ("labels", "overlay")
    assert written(tmp_path / "out") == {f"{n}.{kind}.png" for n in names for kind in kinds}


@pytest.mark.parametrize("others", ["a/x.png", "a/deep/x.jpg"])
def test_pictures_of_one_name_are_apart(tmp_path: Path, options: list[str], others: str) -> None:
    draw(tmp_path / "a" / "x.jpg", (60, 50))
    draw(tmp_path / others, (50, 70))
    arguments = [tmp_path / "a" / "x.jpg", tmp_path / others]
    assert clearclip("segment", *arguments, "--labels=sky,dog", *options).exit_code == 0
    sizes = []
    for name in written(tmp_path / "out"):
        if name.endswith(".labels.png"):
            with Image.open(tmp_path / "out" / name) as labels:
                sizes.append(labels.size)
    assert sorted(sizes) == [(50, 70), (60, 50)]
    assert len(written(tmp_path / "out")) == 4


def test_results_in_the_folder_are_not_taken_for_pictures(photos: Path, options: list[str]) -> None:
    for _ in range(2):
        result = clearclip("segment", photos, "--labels=sky", *options, "-o", photos / "out")
        assert "3 pictures segmented" in result.output
        assert len(written(photos / "out")) == 6


@pytest.mark.parametrize(
    ("option", "decide"),
    [
        ((), {"refine": True}),
        (("--no-refine",), {}),
        (("--propagate",), {"refine": True, "propagate": True}),
        (("--threshold=0.6", "--contrast"), {"refine": True, "threshold": 0.6, "contrast": True}),
    ],
)
def test_options_are_those_of_the_library(
    tmp_path: Path, option: tuple[str, ...], decide: dict[str, Any]
) -> None:
    scene = render_scene(seed=HELD_OUT_SEEDS[0], size_hw=(224, 300)).image
    Image.fromarray(scene).save(tmp_path / "scene.png")
    model = ("--model=demo", "--device=cpu", "--precision=fp32", "--short-side=224")
    clearclip(
        "segment", tmp_path / "scene.png", "--labels=sky,grass", f"-o{tmp_path}", *model, *option
    )
    segmenter = Segmenter.load("demo", "clearclip", "cpu", "fp32", 224)
    expected = segmenter.segment(scene, ["sky", "grass"], **decide).label_map
    with Image.open(tmp_path / "scene.labels.png") as labels:
        assert np.array_equal(np.asarray(labels), np.where(expected < 0, 255, expected))
    for name in decide:
        other = segmenter.segment(scene, ["sky", "grass"], **{**decide, name: False}).label_map
        assert not np.array_equal(expected, other)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--labels=sky,dog,sky"], "one or more different labels, but got 'sky,dog,sky'"),
        (["--labels=sky,=dog"], "'=dog' names no label"),
        (["--labels=" + ",".join(map(str, range(256)))], "at most 255 labels, but got 256"),
        (["--labels=sky", "--method=magic"], "sfp, rfclip, or one that is spelled out"),
        (["--labels=sky", "--method=proxyclip"], "looks at the features of a second encoder"),
        (["--labels=sky", "--model=local-dir:nowhere"], "There are no weights at nowhere."),
        (["--labels=sky", "--threshold=2"], "2.0 is not in the range"),
        (["--labels=sky", "--threshold=nan"], "expected a finite number, but got 'nan'"),
        (["--labels=sky", "nowhere.jpg"], "no pictures at 'nowhere.jpg'"),
    ],
)
def test_errors_are_one_sentence(
    photos: Path, options: list[str], tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = clearclip("segment", photos / "one.jpg", *options, *arguments)
    assert result.exit_code in (1, 2)
    (error,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert sentence in error
    assert not (tmp_path / "out").exists()
