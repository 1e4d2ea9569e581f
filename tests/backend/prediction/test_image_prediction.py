"""The scores by which predictions are sorted."""

from __future__ import annotations

import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.label_studio.requests import Context, PredictRequest, Prompt, Task, TypedWords
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.prediction.test_predictor import (
    make_predictor,
    request,
)


def scored(score: str, config: str, **data: object) -> float:
    task = Task(1, 1, data)
    (entry,) = make_predictor(score=score).predict(PredictRequest((task,), config))
    assert isinstance(entry, dict)
    assert LabelInterface(config).validate_prediction(entry)
    return float(entry["score"])


def test_predictions_may_be_sorted_by_what_is_open_about_a_picture() -> None:
    """White fits no word: red, blue and the contrast words are a third each on a third of it."""
    config = brush_config("blue", "red")
    assert scored("uncertainty", config, image="flag") == pytest.approx(1 / 3, abs=1e-6)
    assert scored("effort", config, image="flag") == pytest.approx(2 / 9, abs=1e-6)
    assert scored("uncertainty", config, image="red") == 0
    # Below its threshold nothing is drawn; and that nothing is there is as unlikely.
    picky = brush_config("blue", "white", "red", attributes='model_score_threshold="0.9"')
    assert scored("effort", picky, image="flag") == pytest.approx(0, abs=1e-6)
    assert scored("effort", brush_config("green"), image="flag") == pytest.approx(0.5, abs=1e-6)


def test_all_pictures_of_a_task_count_by_their_pixels() -> None:
    config = (
        '<View><Image name="many" valueList="$pages"/>'
        '<BrushLabels name="m" toName="many"><Label value="red"/></BrushLabels></View>'
    )
    # Of 2400 pixels a third is red, of 2000 a half; the others are as likely a contrast word.
    expected = (2400 * 2 / 3 + 2000 / 2) / 4400
    pages = ["flag", "wide"]
    assert scored("uncertainty", config, pages=pages) == pytest.approx(expected, abs=1e-6)
    assert scored("effort", config, pages=pages) == pytest.approx(expected / 2, abs=1e-6)


def test_what_a_project_is_sorted_by_is_its_own_choice() -> None:
    own = brush_config("blue", "red", attributes='score="effort"')
    assert scored("uncertainty", own, image="flag") == pytest.approx(2 / 9, abs=1e-6)
    plain = brush_config("blue", "red", attributes='score="confidence"')
    assert scored("effort", plain, image="flag") == pytest.approx((0.5 + 0.75) / 2)


def test_the_answer_to_a_prompt_keeps_its_confidence() -> None:
    config = brush_config("blue", "red")
    ask = Context((Prompt(TypedWords("red"), image="image"),))
    entries = [
        make_predictor(score=score).predict(request(config, "flag", context=ask))[0]
        for score in ("confidence", "effort")
    ]
    scores = [entry["score"] for entry in entries if isinstance(entry, dict)]
    assert scores == [0.75, 0.75]
