"""`clearclip-backend run eval` as a person uses it, on drawn scenes annotated in a stand-in."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from backend.cli.evaluate import _combined
from backend.cli.main import main
from backend.settings import Settings
from clearclip_core import BEST_TEMPLATES, HELD_OUT_SEEDS, SCENE_LABELS, Segmenter, render_scene
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.runs.scene_project import (
    CONFIG,
    LABELS,
    MODEL,
    SIZE_HW,
    painted,
    scene_studio,
    scenes,
)
from tests.core.clip.test_second_encoder import file_of

#: The project of scenes, of whose labels tree is drawn where it is certain, and house never.
NEVER = CONFIG.replace('"tree"', '"tree" model_score_threshold="0.6"').replace(
    '"house"', '"house" model_score_threshold="1"'
)
SCENES = scenes()[:2]
OPTIONS = MODEL[1:]
MIN_PX = round(0.0005 * 96 * 128)


@pytest.fixture
def studio() -> FakeStudio:
    made = scene_studio(annotated=2)
    made.label_config = NEVER
    return made


@pytest.fixture(autouse=True)
def _demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are there."""
    monkeypatch.setenv("MODEL", "demo")


def run(server: LocalServer, *arguments: str) -> Result:
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    result = CliRunner().invoke(main, ["run", "eval", "--project", "7", *reach, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def expected(thresholds: tuple[float, ...]) -> tuple[float, float]:
    """Mean IoU of the labels, and saved paint of all, by plain loops over the library's masks."""
    segmenter = Segmenter.load(
        "demo", device="cpu", precision="fp32", short_side_px=224, templates=BEST_TEMPLATES
    )
    both, union, wrong, true = (np.zeros(len(LABELS)) for _ in range(4))
    for scene in SCENES:
        made = segmenter.segment(
            scene.image, LABELS, contrast=True, threshold=thresholds, refine=True
        ).masks(MIN_PX, MIN_PX)
        for index, name in enumerate(LABELS):
            is_drawn = name in made and thresholds[index] < 1
            ours = made[name] if is_drawn else np.zeros((96, 128), bool)
            theirs = scene.label_map == SCENE_LABELS.index(name)
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
            wrong[index] += (ours != theirs).sum()
            true[index] += theirs.sum()
    seen = union > 0
    return float((both[seen] / union[seen]).mean()), float(1 - wrong.sum() / true.sum())


def test_a_project_is_measured_with_its_own_words(server: LocalServer, tmp_path: Path) -> None:
    words, page, out = (tmp_path / name for name in ("words.txt", "page.html", "out.json"))
    words.write_text("heaven\nlawn\nplant\nbuilding\n")
    (tmp_path / "own.txt").write_text("\n".join(LABELS))
    prompts = [f"--prompts={tmp_path / 'own.txt'}", f"--prompts={words}"]
    result = run(server, *OPTIONS, *prompts, f"--page={page}", f"--json={out}")
    assert result.exit_code == 0, result.output
    assert "2 pictures, 4 labels" in result.output
    assert page.read_text().count("data:image/jpeg") == 8  # pictures, truths and two predictions
    own, other = json.loads(out.read_text())["runs"]
    assert [own["prompts"], other["prompts"]] == ["own.txt", "words.txt"]
    miou, saved = expected((0, 0, 0.6, 1))
    assert own["iou"] == pytest.approx(miou)
    assert own["saved_paint"] == pytest.approx(saved)
    assert own["labels"]["house"]["close_share"] is None  # it is never predicted


def test_what_counts_beside_the_words_is_that_of_the_project(
    server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    """The labeling config wins over the settings, and the thresholds of the command over both."""
    studio.label_config = NEVER
    out, beside = tmp_path / "out.json", ("--threshold=sky=0.9", "--limit=2")
    result = run(server, *OPTIONS, *beside, f"--json={out}")
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(out.read_text())["runs"]
    assert figures["prompts"] == "labeling config"
    found = expected((0.9, 0, 0.6, 1))
    assert (figures["iou"], figures["saved_paint"]) == pytest.approx(found)
    assert found != pytest.approx(expected((0, 0, 0.6, 1)))


def test_a_picture_that_cannot_be_read_is_left_out_and_without_any_it_is_said(
    server: LocalServer, studio: FakeStudio
) -> None:
    studio.annotate(9, painted(SCENES[0]))
    result = run(server, *OPTIONS)
    assert result.exit_code == 0, result.output
    assert "pictures left out: 1\ntask 9: The data: URL holds no image." in result.output
    unsized = [each for each in OPTIONS if "short-side" not in each]
    assert " px" not in run(server, *unsized).output, "a size is named only where one is set"
    studio.annotations.clear()
    assert "Project 7 has no annotated tasks" in run(server, *OPTIONS).output


@pytest.mark.thorough
def test_what_the_annotations_teach_is_a_row_and_the_settings_of_the_best_are_named(
    server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    """House has meaningless words: what is learned of other pictures finds houses on each."""
    studio.label_config = CONFIG
    file = file_of("test_efficientnet", tmp_path)
    more = [render_scene(seed, SIZE_HW) for seed in HELD_OUT_SEEDS[50:56]]
    for task, scene in enumerate([*scenes()[2:], *more], 3):
        studio.tasks[task] = {"image": data_url(scene.image)}
        studio.annotate(task, painted(scene))
    words = tmp_path / "words.txt"
    words.write_text("sky\ngrass\ntree\nblicket\n")
    beside = (f"--prompts={words}", "--second-model=none", f"--second-model={file}", "--learned")
    small = ("--short-side-px=112", "--second-short-side-px=112")
    result = run(server, *OPTIONS[:-1], *small, *beside, f"--json={tmp_path / 'out.json'}")
    assert result.exit_code == 0, result.output
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    models = ["demo, 112 px"] * 2 + [f"demo + {file} at 112 px, 112 px"] * 2
    assert [each["model"] for each in runs] == models
    alone, taught, beside_it, both = runs
    assert taught["prompts"] == "words.txt, learned"
    assert (alone["iou"], alone["saved_paint"]) == (beside_it["iou"], beside_it["saved_paint"])
    assert taught["labels"]["house"]["iou"] > alone["labels"]["house"]["iou"]
    best = max(taught, both, key=lambda each: each["saved_paint"])
    assert f"SECOND_MODEL={file if best is both else ''}\n" in result.output
    assert "METHOD=" not in result.output


def test_sizes_of_a_second_encoder_are_compared_only_where_there_is_one() -> None:
    choices = {"second_model": [None, "test_vit"], "second_short_side_px": [224, 448]}
    combined = _combined(Settings(), choices)
    assert [(each.second_model, each.second_short_side_px) for each in combined] == [
        (None, None),
        ("test_vit", 224),
        ("test_vit", 448),
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--threshold=bus=0.5",), "to name a label (sky, grass, tree, house), but got 'bus'"),
        (("--image=photo",), "to name one <Image> of the labeling config, which has: image"),
        (("--model=nothing/here",), "knows no architecture 'nothing'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    server: LocalServer, arguments: tuple[str, ...], reason: str
) -> None:
    result = run(server, *OPTIONS, *arguments)
    assert result.exit_code in (1, 2)
    assert reason in " ".join(result.output.split())
