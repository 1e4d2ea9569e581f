"""`clearclip-backend run eval` as a person uses it, on drawn scenes annotated in a stand-in."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from label_studio_sdk.converter import brush
from PIL import Image

from backend.cli.main import main
from backend.database.database import Database
from backend.learning.versions import model_key
from backend.settings import Settings
from clearclip_core import (
    BEST_TEMPLATES,
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Adaptation,
    Scene,
    ScoreOptions,
    Segmenter,
    render_scene,
)
from clearclip_core.clip.weights import weights_id
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.learning_stores import LearningStores, version_with
from tests.backend.fakes.local_server import LocalServer

LABELS = ("sky", "grass", "road", "car")
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
    + "".join(f'<Label value="{name}"/>' for name in LABELS[:2])
    + '<Label value="road" model_score_threshold="0.6"/>'
    + '<Label value="car" model_score_threshold="{car}"/></BrushLabels></View>'
)
SCENES = tuple(render_scene(seed, (96, 128)) for seed in HELD_OUT_SEEDS[:2])
OPTIONS = ("--device=cpu", "--precision=fp32", "--short-side-px=224")
MIN_PX = round(0.0005 * 96 * 128)


def truth_of(scene: Scene, name: str) -> npt.NDArray[np.bool_]:
    return np.asarray(scene.label_map == SCENE_LABELS.index(name))


def as_task(scene: Scene) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "PNG")
    return {"image": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}


def painted(scene: Scene) -> list[dict[str, Any]]:
    """The labels of a scene as Label Studio's own converter writes masks."""
    regions = []
    for name in LABELS:
        mask = truth_of(scene, name)
        if mask.any():
            rle = brush.mask2rle(mask.astype(np.uint8) * 255)
            value = {"format": "rle", "rle": rle, "brushlabels": [name]}
            size = {"original_height": 96, "original_width": 128}
            place = {"from_name": "mask", "to_name": "image", "type": "brushlabels"}
            regions.append({"id": name, "value": value} | size | place)
    return regions


@pytest.fixture
def studio() -> FakeStudio:
    tasks: dict[int, dict[str, Any]] = {1: {"image": "data:,"}, 2: {}, 3: {}, 4: {"image": "x"}}
    for task, scene in zip((2, 3), SCENES, strict=True):
        tasks[task] = as_task(scene)
    made = FakeStudio(CONFIG.format(car=1), tasks)
    for task, scene in zip((2, 3), SCENES, strict=True):
        made.annotate(task, painted(scene))
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


def expected(thresholds: tuple[float, ...], **options: Any) -> tuple[float, float]:
    """Mean IoU of the labels, and saved paint of all, by plain loops over the library's masks."""
    segmenter = Segmenter.load(
        "demo", device="cpu", precision="fp32", short_side_px=224, templates=BEST_TEMPLATES
    )
    both, union, wrong, true = (np.zeros(len(LABELS)) for _ in range(4))
    for scene in SCENES:
        made = segmenter.segment(
            scene.image, LABELS, contrast=True, threshold=thresholds, refine=True, **options
        ).masks(MIN_PX, MIN_PX)
        for index, name in enumerate(LABELS):
            is_drawn = name in made and thresholds[index] < 1
            ours = made[name] if is_drawn else np.zeros((96, 128), bool)
            theirs = truth_of(scene, name)
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
            wrong[index] += (ours != theirs).sum()
            true[index] += theirs.sum()
    seen = union > 0
    return float((both[seen] / union[seen]).mean()), float(1 - wrong.sum() / true.sum())


def test_a_project_is_measured_with_its_words_and_thresholds(
    server: LocalServer, tmp_path: Path
) -> None:
    words, page, out = (tmp_path / name for name in ("words.txt", "page.html", "out.json"))
    words.write_text("heaven\nlawn\nstreet\nautomobile\n")
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
    assert own["labels"]["car"]["close_share"] is None  # it is never predicted


def test_what_counts_beside_the_words_is_that_of_the_project(
    server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    """The label config wins over the settings, and the thresholds of the command over both."""
    studio.label_config = CONFIG.format(car=1).replace(
        'toName="image">', 'toName="image" presence="0.4">'
    )
    out, beside = tmp_path / "out.json", ("--presence=0.1", "--threshold=sky=0.9", "--limit=2")
    result = run(server, *OPTIONS, *beside, f"--json={out}")
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(out.read_text())["runs"]
    assert figures["prompts"] == "label config"
    thresholds, options = (0.9, 0, 0.6, 1), ScoreOptions(presence=0.4)
    found = expected(thresholds, options=options)
    assert (figures["iou"], figures["saved_paint"]) == pytest.approx(found)
    assert found != pytest.approx(expected(thresholds))


def test_a_picture_that_cannot_be_read_is_left_out(server: LocalServer, studio: FakeStudio) -> None:
    studio.annotate(1, painted(SCENES[0]))
    result = run(server, *OPTIONS)
    assert result.exit_code == 0, result.output
    assert "2 pictures, 4 labels" in result.output
    assert "pictures left out: 1\ntask 1: The data: URL holds no image." in result.output


def test_what_the_project_has_learned_is_a_row(
    server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    options = ("--learned", f"--json={tmp_path / 'out.json'}")
    refused = run(server, *OPTIONS, *options)
    assert refused.exit_code == 1
    assert "uses nothing that was learned with demo and clearclip" in refused.output
    studio.label_config = CONFIG.replace(' model_score_threshold="{car}"', "")
    settings = Settings(model="demo", short_side_px=224)
    key = model_key(settings, weights_id("demo"))
    stores = LearningStores.of(Database.from_settings(settings), "test", lambda: key)
    stores.replace_all(1)
    lease = stores.versions.lease_step(1, 7)
    assert lease is not None
    width = Segmenter.load("demo").embed(["car"]).shape[1]
    terms = np.zeros((1, width), np.float32), np.zeros(1, np.float32)
    scores = Adaptation(("car",), *terms, 1)  # which changes nothing
    stores.versions.commit(lease, version_with(scores), scores)
    result = run(server, *OPTIONS, *options)
    assert result.exit_code == 0, result.output
    assert "learned from 10 annotations" in result.output
    words, taught = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert taught["prompts"] == "label config, learned"
    assert (taught["iou"], taught["saved_paint"]) == (words["iou"], words["saved_paint"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--threshold=bus=0.5",), "to name a label (sky, grass, road, car), but got 'bus'"),
        (("--image=photo",), "to name one <Image> of the label config, which has: image"),
        (("--model=nothing/here",), "knows no architecture 'nothing'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    server: LocalServer, arguments: tuple[str, ...], reason: str
) -> None:
    result = run(server, *OPTIONS, *arguments)
    assert result.exit_code in (1, 2)
    assert reason in " ".join(result.output.split())


def test_a_project_without_annotations_says_so(server: LocalServer, studio: FakeStudio) -> None:
    studio.annotations.clear()
    assert "Project 7 has no annotated tasks" in run(server, *OPTIONS).output
