"""The score of a data set against counts by hand, and against loops over the library's masks."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from backend.cli.dataset import dataset
from backend.dataset.dataset_options import ChoiceNames
from backend.dataset.dataset_report import SetCounts, SetScorer
from backend.label_studio.label_config_parser import parse_label_config
from clearclip_core import Label, Segmenter
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.runs.scene_project import LABELS, MODEL, SIZE_HW, scene_studio, scenes

CONFIG = parse_label_config(
    """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
    <Label value="sky"/><Label value="road"/><Label value="never" model_score_threshold="1"/>
    </BrushLabels></View>""",
    None,
)


def scorer(masks: dict[int, Any], live: Any = None) -> SetScorer:
    predictor: Any = SimpleNamespace(
        config=CONFIG,
        project=7,
        thresholds=lambda _: [0.0, 0.0, 1.0],
        predict=lambda *_, adaptation: masks if (live is None) == (adaptation is None) else {},
    )
    versions: Any = SimpleNamespace(active=lambda *_: live)
    return SetScorer(predictor, versions)


def test_pixels_are_counted_as_they_are_written() -> None:
    """Values: 0 the ground, 1 sky, 2 road, 3 never, 255 not counted."""
    names = ("ground", "sky", "road", "never")
    row = np.array([[1, 1, 0, 2, 3, 255]], np.uint8)
    sky = np.array([[True, False, True, False, True, True]])
    made = scorer({0: sky})
    made.add(np.zeros((1, 6, 3), np.uint8), "image", row, names)
    assert made.score().ious == {"sky": 0.25, "road": 0.0}, "1 of 4 px: two, the ground, never"
    made.add(np.zeros((1, 6, 3), np.uint8), "image", np.ones_like(row), names)
    found = made.score()
    assert found.ious == {"sky": round(5 / 10, 4), "road": 0.0}, "of all pictures together"
    assert found.mean_iou == 0.25
    told = "The words alone predicted these label maps with a mean IoU of 25.0"
    assert str(found).startswith(told)
    assert "flatters" not in str(found)
    counts = SetCounts(covered=1, covered_px=107369)
    assert "107\u202f369 pixels of" in next(counts.notes(1, ChoiceNames(), has_background=True))


def test_the_live_version_is_named_and_nothing_to_score_is_said() -> None:
    live = SimpleNamespace(adaptation=object(), number=3, annotations=40)
    made = scorer({0: np.ones((1, 2), np.bool_)}, live)
    assert "cannot be scored" in str(made.score())
    made.add(np.zeros((1, 2, 3), np.uint8), "image", np.array([[0, 255]], np.uint8), ("sky",))
    assert str(made.score()) == (
        "Version 3, learned from 40 annotations, predicted these label maps with a mean IoU of "
        "100.0 % (sky 100.0 %); pixels of 255 do not count. What it has learned from these "
        "pictures flatters it."
    )


def test_the_command_scores_what_it_has_written(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with scene_studio(annotated=2).served() as server:
        reach = ["--project=7", f"--label-studio-url={server.url}", "--allowed-hosts=127.0.0.1"]
        more = [f"--label-studio-api-key={TOKEN}", f"--to={folder}", "--score", *MODEL]
        done = CliRunner().invoke(dataset, [*reach, *more])
    assert done.exit_code == 0, done.output
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=224)
    labels = [Label(name, (name,)) for name in LABELS]
    min_px = round(0.0005 * SIZE_HW[0] * SIZE_HW[1])
    both, either = np.zeros(len(LABELS)), np.zeros(len(LABELS))
    for number, scene in enumerate(scenes()[:2], 1):
        with Image.open(folder / f"masks/task-{number}.png") as picture:
            truth = np.asarray(picture)
        made = segmenter.segment(scene.image, labels, contrast=True, refine=True)
        masks = made.masks(min_px, min_px)
        for index, name in enumerate(LABELS):
            ours = masks.get(name, np.zeros(SIZE_HW, bool)) & (truth != 255)
            both[index] += (ours & (truth == index)).sum()
            either[index] += (ours | (truth == index)).sum()
    score = json.loads((folder / "report.json").read_text())["score"]
    expected = {name: both[i] / either[i] for i, name in enumerate(LABELS) if either[i]}
    assert score["ious"] == pytest.approx(expected, abs=0.004)  # features in half precision
    assert score["mean_iou"] == pytest.approx(np.mean([*expected.values()]), abs=0.004)
    assert f"mean IoU of {100 * score['mean_iou']:.1f} %" in done.output
