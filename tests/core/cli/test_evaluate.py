"""`clearclip eval` and `prepare` as a person uses them, on miniature data sets."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from PIL import Image

from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, Segmenter, render_scene
from clearclip_core.demo.render import SYNONYMS
from clearclip_core.evaluation import runner
from clearclip_core.evaluation.results import Tally
from tests.core.cli.clearclip import clearclip
from tests.core.evaluation import miniatures, reference

#: Where classes stand, and how those are spelled that are spelled oddly.
NAMES = {
    "voc20": {0: "aeroplane", 3: "ship", 10: "table", 15: "pottedplant", 19: "tvmonitor"},
    "voc21": {0: "background", 1: "aeroplane", 4: "ship", 20: "tvmonitor"},
    "context59": {0: "aeroplane", 39: "pottedplant", 58: "wood"},
    "context60": {0: "background", 1: "aeroplane", 59: "wood"},
    "coco_stuff": {0: "person", 9: "trafficlight", 79: "toothbrush", 80: "banner", 170: "wood"},
    "coco_object": {0: "background", 1: "person", 80: "toothbrush"},
    "cityscapes": {0: "road", 6: "trafficlight", 18: "bicycle"},
    "ade20k": {0: "wall", 8: "windowpane", 149: "flag"},
}
#: Benchmarks of each layout, with a background and without.
ONE_OF_A_KIND = {"voc21", "coco_object", "cityscapes", "ade20k"}


def read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def model(sure_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small model at random weights; its words are embedded once for all tests."""
    kept = tmp_path_factory.mktemp("model-dir")
    model = f"--model=local-dir:{sure_model_folder}"
    return [model, "--device=cpu", "--precision=fp32", f"--model-dir={kept}"]


@pytest.fixture(scope="module")
def plain_text(sure_clip: open_clip.CLIP) -> reference.PlainText:
    return reference.PlainText(sure_clip)


@pytest.mark.parametrize(
    "benchmark",
    [
        name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.thorough)
        for name in miniatures.MINIATURES
    ],
)
def test_every_benchmark_measures_what_plain_loops_measure(
    benchmark: str,
    model: list[str],
    plain_text: reference.PlainText,
    sure_clip: open_clip.CLIP,
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "data", tmp_path / "result.json"
    files = miniatures.make(benchmark, data)
    result = clearclip("eval", f"--benchmark={benchmark}", "--data", data, *model, f"-o{out}")
    assert result.exit_code == 0, result.output
    content = read_json(out)
    names = list(content["iou"])
    assert {index: names[index] for index in NAMES[benchmark]} == NAMES[benchmark]
    assert len(names) == miniatures.MINIATURES[benchmark].classes

    pictures, maps = zip(*files, strict=True)
    predicted = reference.label_maps(benchmark, sure_clip, plain_text(names), pictures)
    if benchmark in reference.THRESHOLDS:
        sure = np.mean(np.concatenate([label_map.ravel() for label_map in predicted]) != 0)
        assert 0.05 < sure < 0.95
    expected = reference.confusion(benchmark, maps, predicted)
    # Both compute in float32, by other ways: where two classes are as good as equal they may part.
    moved = np.abs(np.array(expected) - np.array(content["confusion"])).sum() / 2
    assert moved <= 0.003 * np.sum(expected)
    assert content["miou"] == pytest.approx(reference.mean_iou(content["confusion"]), abs=1e-12)
    assert content["pictures"] == len(files)
    assert f"mIoU {100 * content['miou']:.1f}" in result.output
    assert (tmp_path / "result.json").read_text().startswith('{"miou"')


def test_a_cut_run_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["eval", "--benchmark=demo", "--model=demo", "--device=cpu", "--precision=fp32"]
    common += ["--short-side=64", "--limit=4"]
    out, whole = tmp_path / "cut.json", tmp_path / "whole.json"
    save = runner.save_tallies

    def hold(path: Path, tallies: tuple[Tally, ...]) -> None:
        save(path, tallies)
        assert tallies[0].pictures < 2, "the process dies"

    with monkeypatch.context() as dying:
        dying.setattr(runner, "_SAVE_EVERY_S", 0)
        dying.setattr(runner, "save_tallies", hold)
        with pytest.raises(AssertionError, match="the process dies"):
            clearclip(*common, f"-o{out}")
    (kept,) = tmp_path.glob("cut.json.*.partial")
    assert json.loads(kept.read_text())[0][0] == 2
    assert "2/4 " in clearclip(*common, f"-o{out}").output
    assert clearclip(*common, f"-o{whole}").exit_code == 0
    first, second = read_json(out), read_json(whole)
    assert (first["confusion"], first["pictures"]) == (second["confusion"], 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.json", "whole.json"]


def test_label_maps_are_made_where_they_are_missing(model: list[str], tmp_path: Path) -> None:
    benchmark = "coco_object"
    made = miniatures.make(benchmark, tmp_path)
    for _, label_map in made:
        label_map.unlink()
    arguments = (f"--benchmark={benchmark}", f"--data={tmp_path}", *model, "--short-side=64")
    refused = clearclip("eval", *arguments)
    assert f"clearclip prepare {benchmark} --data {tmp_path}" in refused.output
    prepared = clearclip("prepare", benchmark, "--data", tmp_path)
    assert prepared.exit_code == 0
    assert f"2 label maps written, for {benchmark}." in prepared.output
    again = clearclip("prepare", benchmark, "--data", tmp_path)
    assert f"0 label maps written, for {benchmark}." in again.output
    assert clearclip("eval", *arguments, f"-o{tmp_path / 'r.json'}").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--benchmark=voc20"], "voc20 needs the folder of its data (--data)"),
        (["--benchmark=voc22"], "'voc22' is not one of 'voc20'"),
        (["--benchmark=demo", "--limit=0"], "'--limit'"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], sentence: str) -> None:
    refused = clearclip("eval", *arguments)
    assert refused.exit_code != 0
    assert sentence in refused.output


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
        palette = values.copy()
        palette.putpalette(bytes(range(255, -1, -1)) * 3)
        (values, palette)[number].save(tmp_path / "masks" / f"{seed}.png")
    (tmp_path / "names.txt").write_text("\n".join(SCENE_LABELS))
    parts = {"images": "images", "masks": "masks", "names": "names.txt"}
    return [f"--{option}={tmp_path / name}" for option, name in parts.items()]


def test_own_pictures_are_measured_as_plain_loops_do(options: list[str], tmp_path: Path) -> None:
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


def test_methods_and_prompts_are_compared_in_one_table(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("\n".join(SYNONYMS[name][0] for name in SCENE_LABELS))
    page = tmp_path / "page.html"
    result = clearclip(
        *("eval", *MODEL, *options, "--method=maskclip", "--method=clearclip"),
        *(f"--prompts={tmp_path / 'names.txt'}", f"--prompts={tmp_path / 'other.txt'}"),
        f"--page={page}",
    )
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("| demo ")]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines]
    pairs = itertools.product(["maskclip", "clearclip"], ["names.txt", "other.txt"])
    assert rows == [["demo", *pair] for pair in pairs]
    # Two pictures, their truths and four predictions of each.
    assert page.read_text().count("data:image/jpeg") == 12
    assert result.output.count("These are demo weights") == 1
    assert "that may be chance" in result.output, "of two pictures"


def test_unlabelled_pictures_teach_a_row_of_their_own(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    out, more = tmp_path / "out.json", ("--method=maskclip", f"--unlabelled={tmp_path / 'more'}")
    for number, seed in enumerate(HELD_OUT_SEEDS[10:40]):
        if number == 1:
            refused = clearclip("eval", *MODEL, *options, *more)
            assert "to have 20 pictures that differ, but it has 1" in refused.output
        Image.fromarray(render_scene(seed, (96, 128)).image).save(tmp_path / f"more/{seed}.png")
    result = clearclip("eval", *MODEL, *options, *more, f"--out={out}")
    assert result.exit_code == 0, result.output
    words, taught = json.loads(out.read_text())["runs"]
    assert (words["prompts"], taught["prompts"]) == ("names.txt", "names.txt, unlabelled")
    assert words["iou"] != taught["iou"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--data=x",), "--images goes without --benchmark and --data"),
        (("--as-paper", "--no-refine"), "--as-paper goes without --threshold and --no-refine"),
    ],
)
def test_options_that_do_not_fit(options: list[str], more: tuple[str, ...], reason: str) -> None:
    result = clearclip("eval", *MODEL, *options, *more)
    assert result.exit_code == 2
    assert reason in " ".join(result.output.split())
