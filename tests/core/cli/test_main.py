"""The command line as a person uses it: files in, files out, sentences."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

import clearclip_core.clip.weights
from clearclip_core import HELD_OUT_SEEDS, Segmenter, render_scene
from clearclip_core.cli.main import main, parse_labels
from clearclip_core.images.files import find_pictures, output_names


def clearclip(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def options(model_folder: Path, tmp_path: Path) -> list[str]:
    """A small model, and the folder `out`."""
    model = f"--model=local-dir:{model_folder}"
    return [model, "--short-side=64", "--device=cpu", "--precision=fp32", f"-o{tmp_path / 'out'}"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    draw(folder / "one.jpg")
    draw(folder / "two.png", (40, 90))
    draw(folder / "trip" / "Three.JPG", (90, 40))
    (folder / "notes.txt").write_text("no picture")
    return folder


def draw(path: Path, size: tuple[int, int] = (60, 50), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def written(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_file_becomes_a_label_map_and_an_overlay(
    photos: Path, options: list[str], tmp_path: Path
) -> None:
    result = clearclip("segment", photos / "two.png", "--labels", "sky, dog", *options)
    assert result.exit_code == 0
    assert f"1 pictures segmented into {tmp_path / 'out'}, 0 failed." in result.output
    assert written(tmp_path / "out") == {"two.labels.png", "two.overlay.png"}
    with Image.open(tmp_path / "out" / "two.labels.png") as labels:
        assert (labels.mode, labels.size) == ("P", (40, 90))
        assert set(np.unique(np.asarray(labels)).tolist()) <= {0, 1}
    with Image.open(tmp_path / "out" / "two.overlay.png") as overlay:
        assert overlay.height == 90
        assert overlay.width > 40  # the legend


def test_a_folder_is_searched_to_the_bottom(
    photos: Path, options: list[str], tmp_path: Path
) -> None:
    assert clearclip("segment", photos, "--labels=sky,dog", *options).exit_code == 0
    names = {"one", "two", "Three"}
    kinds = ("labels", "overlay")
    assert written(tmp_path / "out") == {f"{n}.{kind}.png" for n in names for kind in kinds}


def test_a_glob(
    photos: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    assert clearclip("segment", "photos/t*", "--labels=sky,dog", *options).exit_code == 0
    assert written(tmp_path / "out") == {"two.labels.png", "two.overlay.png"}
    assert find_pictures(["photos/**/*.JPG"]) == [Path("photos/trip/Three.JPG")]
    with pytest.raises(Exception, match=r"no pictures at 'photos/\*\.gif'"):
        find_pictures(["photos/*.gif"])


def test_pictures_are_taken_once_and_in_order(photos: Path) -> None:
    one, two, three = photos / "one.jpg", photos / "two.png", photos / "trip" / "Three.JPG"
    assert find_pictures([str(photos)]) == [one, three, two]
    assert find_pictures([str(two), str(photos), str(photos / "*.png")]) == [two, one, three]


def test_a_broken_picture_costs_only_itself(
    photos: Path, options: list[str], tmp_path: Path
) -> None:
    whole = (photos / "one.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "no-picture.png").write_text("no picture")
    result = clearclip("segment", photos, "--labels=sky,dog", *options)
    assert result.exit_code == 1
    assert "3 pictures segmented" in result.output
    assert "2 failed." in result.output
    assert f"{photos / 'cut.jpg'}: " in result.output
    assert f"{photos / 'no-picture.png'}: cannot identify image file" in result.output
    assert len(written(tmp_path / "out")) == 6


def test_a_picture_over_pillows_limit_costs_only_itself(
    photos: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(photos / "large.png", (200, 200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # twice as many are an error
    result = clearclip("segment", photos, "--labels=sky,dog", *options)
    assert result.exit_code == 1
    assert "large.png: Image size (40000 pixels) exceeds limit" in result.output
    assert len(written(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.jpg"], ["x"]),
        (["a/x.jpg", "b/y.v2.png"], ["x", "y.v2"]),
        (["a/x.jpg", "b/x.png"], ["a/x.jpg", "b/x.png"]),
        (["a/x.jpg", "b/x.jpg", "b/c/y.jpg"], ["a/x.jpg", "b/x.jpg", "b/c/y.jpg"]),
        (["a/x.jpg", "a/x.png", "a/x.jpg.png"], ["x.jpg", "x.png", "x.jpg.png"]),
        (["a/x.jpg", "b/X.png"], ["a/x.jpg", "b/X.png"]),  # one file where case is ignored
        (["x.jpg", "../x.jpg", "/x.jpg"], None),
    ],
)
def test_every_picture_has_a_name_of_its_own(files: list[str], names: list[str] | None) -> None:
    paths = [Path(file) for file in files]
    made = [name.as_posix() for name in output_names(paths)]
    assert names is None or made == names
    assert len(set(made)) == len(files)
    assert not any(name.startswith(("/", "..")) for name in made)


@pytest.mark.parametrize("others", ["b/x.png", "a/x.png", "a/deep/x.jpg"])
def test_pictures_that_share_a_name_do_not_overwrite_each_other(
    tmp_path: Path, options: list[str], others: str
) -> None:
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


def test_results_inside_the_folder_are_not_taken_for_pictures(
    photos: Path, options: list[str]
) -> None:
    for _ in range(2):
        result = clearclip("segment", photos, "--labels=sky", *options, "-o", photos / "out")
        assert "3 pictures segmented" in result.output
        assert len(written(photos / "out")) == 6


def test_a_turned_photo_is_upright(tmp_path: Path, options: list[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30)).save(tmp_path / "turned.jpg", exif=exif)
    clearclip("segment", tmp_path / "turned.jpg", "--labels=sky", *options)
    with Image.open(tmp_path / "out" / "turned.labels.png") as labels:
        assert labels.size == (30, 60)


def test_a_threshold_leaves_pixels_without_a_label(
    photos: Path, options: list[str], tmp_path: Path
) -> None:
    clearclip("segment", photos / "one.jpg", "--labels=sky,dog", "--threshold=1", *options)
    with Image.open(tmp_path / "out" / "one.labels.png") as labels:
        assert np.unique(np.asarray(labels)).tolist() == [255]


@pytest.mark.parametrize(("option", "refine"), [((), True), (("--no-refine",), False)])
def test_masks_follow_edges_unless_told_not_to(
    tmp_path: Path, option: tuple[str, ...], refine: bool
) -> None:
    scene = render_scene(seed=HELD_OUT_SEEDS[0], size_hw=(224, 300)).image
    Image.fromarray(scene).save(tmp_path / "scene.png")
    model = ("--model=demo", "--device=cpu", "--precision=fp32", "--short-side=224")
    clearclip(
        "segment", tmp_path / "scene.png", "--labels=sky,grass", f"-o{tmp_path}", *model, *option
    )
    segmenter = Segmenter.load("demo", "clearclip", "cpu", "fp32", 224)
    expected = segmenter.segment(scene, ["sky", "grass"], refine=refine).label_map
    other = segmenter.segment(scene, ["sky", "grass"], refine=not refine).label_map
    with Image.open(tmp_path / "scene.labels.png") as labels:
        assert np.array_equal(np.asarray(labels), expected)
    assert not np.array_equal(expected, other)


def test_the_demo_model_says_what_it_is(
    photos: Path, options: list[str], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearclip_core.clip.weights, "DEMO_FOLDER", model_folder)
    result = clearclip("segment", photos, "--labels=sky", *options, "--model=demo")
    assert result.exit_code == 0
    assert result.output.count("drawn scenes") == 1


@pytest.mark.parametrize("method", ["clipsurgery", "gem", "qk-res-a0", "identity-ffn"])
def test_a_method_is_a_preset_or_spelled_out(
    photos: Path, options: list[str], tmp_path: Path, method: str
) -> None:
    result = clearclip(
        "segment", photos / "two.png", "--labels=sky,dog,cat", *options, f"--method={method}"
    )
    assert result.exit_code == 0
    assert written(tmp_path / "out") == {"two.labels.png", "two.overlay.png"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--labels="], "one or more different labels"),
        (["--labels=sky,dog,sky"], "one or more different labels, but got 'sky,dog,sky'"),
        (["--labels=sky,=dog"], "'=dog' names no label"),
        (["--labels=" + ",".join(map(str, range(256)))], "at most 255 labels, but got 256"),
        (["--labels=sky", "--method=magic"], "clipsurgery, gem, or one that is spelled out"),
        (["--labels=sky", "--method=qq-a2"], "`alpha` to be 1 without residual and FFN"),
        (["--labels=sky", "--model=ViT-B-16"], "of the form 'arch/tag'"),
        (["--labels=sky", "--model=RN50/openai"], "cannot be read out densely"),
        (["--labels=sky", "--model=local-dir:nowhere"], "There are no weights at nowhere."),
        (["--labels=sky", "--device=gpu"], "auto, cpu, cuda or mps, but got 'gpu'"),
        (["--labels=sky", "--precision=fp16"], "fp16 needs a GPU"),
        (["--labels=sky", "--short-side=0"], "0 is not in the range"),
        (["--labels=sky", "--threshold=2"], "2.0 is not in the range"),
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


def test_results_do_not_go_into_a_file(photos: Path, options: list[str]) -> None:
    result = clearclip("segment", photos, "--labels=sky", *options, "-o", photos / "notes.txt")
    assert result.exit_code == 2
    assert "is a file" in result.output


def test_labels_and_their_prompts() -> None:
    labels = parse_labels(" sofa = sofa | couch ,cat,, tree=| ")
    assert [(label.name, label.prompts) for label in labels] == [
        ("sofa", ("sofa", "couch")),
        ("cat", ("cat",)),
        ("tree", ("tree",)),
    ]


def test_models_are_listed_with_their_licences(tmp_path: Path) -> None:
    carried = tmp_path / "ViT-B-32--openai.safetensors"
    carried.write_bytes(b"one")
    result = clearclip("models", "--model-dir", tmp_path)
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.output.splitlines()}
    assert rows["demo"][1] == "Apache-2.0"
    assert rows["ViT-B-16/openai"][1] == "MIT"
    assert rows["ViT-B-32/openai"] == ["ViT-B-32/openai", "MIT", str(carried)]
    assert rows["roberta-ViT-B-32/laion2b_s12b_b32k"][-2:] == ["needs", "[hf]"]


def test_models_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(os.urandom(10))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(source))
    result = clearclip("models", "--download", "ViT-B-16/openai", "--to", tmp_path / "to")
    assert result.exit_code == 0
    target = tmp_path / "to" / "ViT-B-16--openai.safetensors"
    assert result.output.strip() == str(target)
    assert target.read_bytes() == source.read_bytes()


def test_models_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(config: object, cache_dir: Path | None = None) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    failed = clearclip("models", "--download", "ViT-B-16/openai", "--to", tmp_path)
    assert failed.exit_code == 1
    assert failed.output.startswith("Error: The weights of ViT-B-16/openai are not on this")
    nowhere = clearclip("models", "--download", "ViT-B-16/openai")
    assert nowhere.exit_code == 2
    assert "--download needs --to FOLDER." in nowhere.output
    unknown = clearclip("models", "--download", "demo", "--to", tmp_path)
    assert unknown.exit_code == 1
    assert "of the form 'arch/tag'" in unknown.output


def test_a_machine_is_measured(tiny_arch: str, tmp_path: Path) -> None:
    """What is printed is what is written down; random weights will do."""
    model = [f"--model={tiny_arch}/random", "--device=cpu", "--precision=fp32", "--short-side=64"]
    file = tmp_path / "bench.json"
    result = clearclip(
        "bench", *model, "--size=90x60", "--labels=3", "--batch=3", "--seconds=0", f"--json={file}"
    )
    assert result.exit_code == 0
    figures = json.loads(file.read_text())
    assert figures["picture_wh"] == [90, 60]
    assert figures["resized_wh"] == [96, 64]
    assert (figures["labels"], figures["windows_at_once"]) == (3, 3)
    assert figures["model"] == f"{tiny_arch}/random"
    assert [*figures["stages_s"]] == ["read", "resize", "encode", "score", "decide", "masks"]
    assert "3" in figures["window_s"]
    assert figures["pictures_per_s"] == pytest.approx(1 / sum(figures["stages_s"].values()))
    for shown in ("90×60 px, resized to 96×64", "3 labels", "pictures/s", "clearclip, fp32"):
        assert shown in result.output
    assert f"{figures['pictures_per_s']:.2f} pictures/s" in result.output
    assert f"{1000 * figures['window_s']['3']:.1f}   in use" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size=90"], "expected two sides of 16 to 20000 px as WxH, but got '90'"),
        (["--size=90x8"], "expected two sides of 16"),
        (["--size=90x90000"], "expected two sides of 16"),
        (["--labels=0"], "'--labels'"),
        (["--labels=1001"], "'--labels'"),
        (["--batch=0"], "'--batch'"),
        (["--json=nowhere/bench.json"], "No such file or directory"),
        (["--model=ViT-B-16"], "of the form 'arch/tag'"),
        (["--model=ViT-B-16/random", "--precision=fp16", "--device=cpu"], "fp16 needs a GPU"),
        (["--model=ViT-B-16/random", "--device=tpu"], "to be auto, cpu, cuda or mps"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], sentence: str) -> None:
    result = clearclip("bench", *arguments)
    assert result.exit_code in (1, 2)
    assert sentence in result.output


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
    facts = json.loads((out / "statistics.json").read_text())
    assert facts["short_side_px"] == 112
    assert facts["pictures"] == [
        str(photos / name) for name in ("one.jpg", "trip/Three.JPG", "two.png")
    ]
    (tower,) = facts["towers"]
    assert (tower["name"], np.shape(tower["norm"]["X_attn"])) == ("demo", (3, 5))


def test_statistics_of_drawn_scenes_compare_towers(model_folder: Path, tmp_path: Path) -> None:
    vit = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=0
    )
    save_file(vit.state_dict(), tmp_path / "vits.safetensors")
    models = ["--model=demo", f"--model=local-dir:{model_folder}"]
    dino = f"--dino={tmp_path / 'vits.safetensors'}"
    out = tmp_path / "out"
    result = clearclip(
        *("statistics", *models, dino, "--scenes=2", "--short-side=64", "--device=cpu"), "-o", out
    )
    assert result.exit_code == 0
    assert written(out) == {"statistics.json", "norms.png", "layers.png", "maps.png"}
    facts = json.loads((out / "statistics.json").read_text())
    names = ["DINO (vits)", "demo", f"local-dir:{model_folder}"]
    assert [(each["name"], each["layers"]) for each in facts["towers"]] == [
        (name, layers) for name, layers in zip(names, (2, 5, 3), strict=True)
    ]
    assert facts["pictures"] == [f"drawn scene {seed}" for seed in HELD_OUT_SEEDS[:2]]


def test_statistics_of_a_model_that_is_not_there_are_refused_before_the_first_picture(
    tmp_path: Path,
) -> None:
    models = ["--model=demo", "--model=local-dir:nowhere"]
    refused = clearclip("statistics", *models, "--scenes=2", "-o", tmp_path / "out")
    assert refused.output == "Error: There are no weights at nowhere.\n"
    assert refused.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_statistics_of_a_model_outlive_one_that_cannot_be_loaded(
    model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "broken")
    (tmp_path / "broken" / "open_clip_model.safetensors").write_bytes(b"cut off")
    models = ["--model=demo", f"--model=local-dir:{tmp_path / 'broken'}"]
    sizes = ["--scenes=2", "--short-side=64", "--device=cpu"]
    refused = clearclip("statistics", *models, *sizes, "-o", tmp_path / "out")
    assert refused.exit_code == 1
    assert f"Error: The weights of local-dir:{tmp_path / 'broken'} cannot" in refused.output
    facts = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert [(tower["name"], np.shape(tower["norm"]["X_attn"])) for tower in facts["towers"]] == [
        ("demo", (2, 5))
    ]


def test_labels_ask_for_an_example_of_ones_own_pictures(photos: Path, tmp_path: Path) -> None:
    options = ["--model=demo", "--short-side=64", "--device=cpu", "-o", tmp_path / "out"]
    assert clearclip("statistics", photos / "two.png", "--labels=sky,dog", *options).exit_code == 0
    assert (tmp_path / "out" / "maps.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model=demo", "--labels="], "one or more different labels"),
        (["--model=demo", "--dino=nowhere.pth"], "There are no DINO weights at nowhere.pth: bring"),
        (["--model=demo", "--model=magic"], "of the form 'arch/tag'"),
        (["--model=local-dir:nowhere"], "There are no weights at nowhere."),
        (["nowhere/*.jpg"], "no pictures at 'nowhere/*.jpg'"),
        (["--scenes=0"], "0 is not in the range"),
    ],
)
def test_statistics_that_cannot_be_had_are_one_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = clearclip("statistics", *arguments, "-o", tmp_path / "out")
    assert result.exit_code in (1, 2)
    (error,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert sentence in error
    assert not (tmp_path / "out").exists()


def test_statistics_without_matplotlib_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = clearclip("statistics", "--model=demo", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'clearclip-label-studio[paper]'" in result.output
