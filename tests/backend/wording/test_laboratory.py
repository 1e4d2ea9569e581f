"""The laboratory measures what plain loops over the library's masks do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from backend.errors import BadRequest, LabelConfigError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.requests import Task
from backend.services import Services
from backend.settings import Settings
from backend.wording import trial_pictures
from backend.wording.laboratory import Laboratory
from backend.wording.wording_request import On, WordingRequest
from clearclip_core import SCENE_LABELS, Label, RGBArray, Segmenter
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.wording.scene_project import LABELS, SIZE_HW, scene_studio, scenes

SETTINGS = Settings(model="demo", device="cpu", precision="fp32", short_side_px=224)
MIN_PX = round(0.0005 * SIZE_HW[0] * SIZE_HW[1])


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    made = Services(SETTINGS)
    with made.engine:
        yield made


@pytest.fixture
def studio() -> FakeStudio:
    return scene_studio(annotated=3)


@pytest.fixture
def laboratory(services: Services, studio: FakeStudio) -> Iterator[Laboratory]:
    with studio.served() as server:
        yield services.laboratory(LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def by_hand(words: tuple[str, ...], method: str, threshold: float) -> tuple[float, float, float]:
    """IoU and saved paint of grass, and saved paint of all labels, on the annotated scenes."""
    segmenter = Segmenter.load(
        "demo", method=method, device="cpu", precision="fp32", short_side_px=224
    )
    labels = [Label(name, words if name == "grass" else ()) for name in LABELS]
    limits = [threshold if name == "grass" else 0.0 for name in LABELS]
    both, union, wrong, true = (np.zeros(len(LABELS)) for _ in range(4))
    for scene in scenes()[:3]:
        made = segmenter.segment(
            scene.image, labels, contrast=True, threshold=limits, refine=True
        ).masks(MIN_PX, MIN_PX)
        for index, name in enumerate(LABELS):
            ours = made.get(name, np.zeros(SIZE_HW, bool))
            theirs = scene.label_map == SCENE_LABELS.index(name)
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
            wrong[index] += (ours != theirs).sum()
            true[index] += theirs.sum()
    grass = LABELS.index("grass")
    own = 1 - wrong[grass] / true[grass]
    return float(both[grass] / union[grass]), float(own), float(1 - wrong.sum() / true.sum())


def test_wordings_thresholds_and_methods_are_measured_on_corrected_pictures(
    laboratory: Laboratory, studio: FakeStudio
) -> None:
    before = studio.label_config
    asked = WordingRequest(7, "grass", (("meadow", "lawn"),), (0.6,), ("clip",), pictures=3)
    report = laboratory.measure(asked)
    assert (report.on, report.pictures) == ("corrected", 3)
    now, tried = report.trials
    for trial, by in [
        (now, by_hand(("grass",), "clearclip", 0.0)),
        (tried, by_hand(("meadow", "lawn"), "clip", 0.6)),
    ]:
        assert trial.own is not None
        figures = (trial.own.overlap.iou, trial.own.overlap.saved_paint, trial.saved_paint)
        # Features are kept in half precision, which moves a pixel here and there.
        assert figures == pytest.approx(by, abs=0.004)
        assert trial.milliseconds > 0
    assert report.ranks == {0: 1, 1: 2}, "stock CLIP is worse on this model"
    assert [row["row"] for row in report.rows] == [0, 1]
    line = '<Label value="grass" predicted_values="meadow, lawn" model_score_threshold="0.6"/>'
    assert tried.line == line
    assert report.config_with(1) == before.replace('<Label value="grass"/>', line)
    with pytest.raises(BadRequest, match='"row" to be a number from 0 to 1'):
        report.config_with(2)
    assert studio.label_config == before, "nothing is written"


def test_the_words_of_today_are_measured_once(laboratory: Laboratory) -> None:
    asked = WordingRequest(7, "grass", (("grass",), ("lawn",)), methods=("clearclip",), pictures=1)
    report = laboratory.measure(asked)
    assert [trial.words for trial in report.trials] == [("grass",), ("lawn",)]
    assert [row["is_current"] for row in report.rows].count(True) == 1


def test_features_are_encoded_once(laboratory: Laboratory) -> None:
    asked = WordingRequest(7, "grass", (("lawn",), ("field",)), pictures=2)
    laboratory.measure(asked)
    windows = laboratory.engine.snapshot().windows
    laboratory.measure(asked)
    assert laboratory.engine.snapshot().windows == windows


@pytest.mark.parametrize("on", ["corrected", "diverse"])
def test_pictures_are_decoded_once(laboratory: Laboratory, on: On) -> None:
    """Those that words are tried on, and those that are only looked at."""
    read: list[int | None] = []

    def counted(source: str, task: Task) -> RGBArray:
        read.append(task.id)
        return laboratory.read_image(source, task)

    counting = replace(laboratory, read_image=counted)
    report = counting.measure(WordingRequest(7, "grass", (("lawn",),), pictures=2, on=on))
    assert report.pictures == 2
    assert len(read) == len(set(read))


def test_pictures_beyond_what_memory_keeps_are_decoded_again(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = WordingRequest(7, "grass", (("lawn",),), pictures=3, on="diverse")
    kept = laboratory.measure(asked).to_json()["trials"]
    monkeypatch.setattr(trial_pictures, "_KEPT_BYTES", SIZE_HW[0] * SIZE_HW[1] * 3)
    again = laboratory.measure(asked).to_json()["trials"]
    assert [each["tasks"] for each in again] == [each["tasks"] for each in kept]


def test_without_corrections_pictures_differ_and_nothing_is_ranked(
    laboratory: Laboratory, studio: FakeStudio
) -> None:
    studio.annotations.clear()
    studio.tasks[5] = studio.tasks[6] = studio.tasks[1]
    told = []
    report = laboratory.measure(
        WordingRequest(7, "tree", (("pine",),), pictures=4), lambda *step: told.append(step)
    )
    assert (report.on, report.ranks, report.pictures) == ("diverse", {}, 4)
    tasks = [each.task for each in report.trials[0].pictures]
    assert len({task for task in tasks if task in (1, 5, 6)}) == 1, "equal pictures come once"
    assert [each.preview[:23] for each in report.trials[1].pictures] == [
        "data:image/jpeg;base64,"
    ] * 4
    assert list(report.left_out) == [9]
    assert told[-1] == (4, 4)
    assert report.to_json()["trials"][0]["saved_paint"] is None


def test_a_quarter_of_the_corrected_pictures_lacks_the_label(
    laboratory: Laboratory, studio: FakeStudio
) -> None:
    chosen = laboratory.measure(WordingRequest(7, "sky", pictures=3)).trials[0].pictures
    truth = {n: SCENE_LABELS.index("sky") in s.label_map for n, s in enumerate(scenes(), 1)}
    assert [each.own is not None for each in chosen] == [True] * len(chosen)
    assert {each.task for each in chosen} <= set(truth)


def test_all_words_are_checked_on_pictures(laboratory: Laboratory, studio: FakeStudio) -> None:
    clean = laboratory.measure(WordingRequest(7, pictures=3, on="diverse"))
    assert clean.check is not None
    assert (clean.check.near, clean.check.unknown, clean.swallowed) == ((), (), ())
    planted = '<Label value="heaven"/><Label value="zither"/></BrushLabels>'
    studio.label_config = studio.label_config.replace("</BrushLabels>", planted)
    report = laboratory.measure(WordingRequest(7, pictures=3, on="diverse"))
    assert report.check is not None
    assert [each.labels for each in report.check.near] == [("sky", "heaven")]
    assert [each.word for each in report.check.unknown] == ["zither"]
    assert [{each.label, each.by} for each in report.swallowed] == [{"sky", "heaven"}]
    about = {each["label"] for each in report.advice()}
    assert {"heaven", "zither"} <= about


def test_what_cannot_be_measured_says_why(laboratory: Laboratory, studio: FakeStudio) -> None:
    with pytest.raises(LabelConfigError, match="no label 'moon'"):
        laboratory.measure(WordingRequest(7, "moon"))
    studio.annotations.clear()
    with pytest.raises(ValueError, match="no annotated task"):
        laboratory.measure(WordingRequest(7, "sky", on="corrected"))
    studio.tasks = {9: {"image": "data:,"}}
    with pytest.raises(ValueError, match="No picture can be measured"):
        laboratory.measure(WordingRequest(7, "sky"))
    studio.tasks = {}
    with pytest.raises(ValueError, match="no task with a picture"):
        laboratory.measure(WordingRequest(7, "sky"))
