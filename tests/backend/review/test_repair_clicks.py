"""Clicks on the review page's large picture, before a stand-in for Label Studio and the model."""

from typing import Any

import numpy as np
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.review.repair import MOST_STEPS
from backend.review.writing import write_due
from backend.services import Services
from backend.settings import Settings
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config, data_url, flag, pixels_of
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.feedback.test_annotation_reader import OURS
from tests.backend.web.browser import Dashboard
from tests.backend.web.conftest import lead as lead

REVIEW = "/projects/7/review"
LEFT = np.tile(np.arange(60) < 30, (40, 1))  # of a picture that is red there, and blue beside it


@pytest.fixture
def studio() -> FakeStudio:
    """A picture that is red and blue; the prediction has the red half alone."""
    picture = {"image": data_url(flag("red", "blue"))}
    studio = FakeStudio(brush_config("red", "blue"), {1: picture, 2: {"image": ["a", "b"]}})
    studio.add(1, OURS, 1.0, [brush_region(LEFT, "red", id="a", to_name="image")])
    return studio


def ask(lead: Dashboard, *steps: Any, **more: Any) -> Any:
    body = {"seat": "a", "steps": steps, **more}
    return lead.client.post(f"{REVIEW}/1/1", json=body)


def click(x: float, label: str = "") -> dict[str, Any]:
    return {"x": x, "y": 0.5, "label": label}


def test_a_click_with_a_label_adds_what_is_there(lead: Dashboard) -> None:
    before, after = ask(lead).get_json(), ask(lead, click=click(0.75, "blue")).get_json()
    assert (before["step"], before["labels"]) == (None, ["red"])
    assert after["labels"] == ["blue", "red"]
    assert (after["step"]["label"], after["step"]["piece"]["adds"]) == ("blue", True)
    changed = np.abs(pixels_of(after["picture"]) - pixels_of(before["picture"])).sum(axis=2) > 60
    assert changed[:, 33:57].mean() > 0.9
    assert changed[:, 3:27].mean() < 0.1


def test_a_click_without_a_label_takes_the_piece_away(lead: Dashboard) -> None:
    answer = ask(lead, click=click(0.25)).get_json()
    assert answer["labels"] == []
    assert (answer["step"]["label"], answer["step"]["piece"]["adds"]) == ("red", False)


def test_a_label_that_is_taken_away_is_no_more_in_the_picture(lead: Dashboard) -> None:
    assert ask(lead, {"label": "red"}).get_json()["labels"] == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"click": click(0.5, "green")}, "has no label “green”"),
        ({"click": click(1.5, "red")}, "<= 1"),
        ({"click": click(0.75)}, "No mask is where you have clicked."),
        ({"seat": ""}, "length >= 1"),
        ({"steps": [{"label": "x"}] * MOST_STEPS, "click": click(0.5, "red")}, "are the most"),
        ({"steps": [{"label": "red"}], "click": click(0.5)}, "No mask is on the picture any more."),
    ],
)
def test_a_click_that_cannot_be_answered_is_refused(
    lead: Dashboard, more: dict[str, Any], said: str
) -> None:
    answer = lead.client.post(f"{REVIEW}/1/1", json={"seat": "a", **more})
    assert answer.status_code == 400
    assert said in answer.get_json()["error"]


def test_a_task_on_another_page_is_not_repaired(lead: Dashboard) -> None:
    lead.page(f"{REVIEW}?seat=b")
    answer = ask(lead, click=click(0.75, "blue"))
    assert "Somebody else has task 1 on the page" in answer.get_json()["error"]


def test_a_prediction_that_is_gone_is_said(lead: Dashboard, studio: FakeStudio) -> None:
    studio.predictions.clear()
    assert ask(lead, click=click(0.75, "blue")).status_code == 404


def test_a_task_of_several_pictures_takes_no_click(lead: Dashboard, studio: FakeStudio) -> None:
    studio.label_config = studio.label_config.replace('value="$image"', 'valueList="$image"')
    studio.add(2, OURS, 1.0, [])
    body = {"seat": "a", "click": click(0.5, "red")}
    answer = lead.client.post(f"{REVIEW}/2/2", json=body)
    assert "several pictures" in answer.get_json()["error"]


def test_what_a_click_has_found_is_what_the_annotation_has(
    lead: Dashboard, studio: FakeStudio, server: LocalServer
) -> None:
    step = ask(lead, click=click(0.75, "blue")).get_json()["step"]
    said = {"task": 1, "prediction": 1, "verdict": "good", "seconds": 3, "repair": [step]}
    body = {"seat": "a", "since": 1.0, "verdicts": [said]}
    assert lead.client.post(REVIEW, json=body).get_json()["saved"] == 1

    reviews = Services(Settings()).reviews
    while write_due(reviews, LabelStudioClient(server.url, TOKEN)):
        pass
    (made,) = studio.annotations.values()
    labels = [each["value"]["brushlabels"] for each in made["result"]]
    assert labels == [["red"], ["blue"]]
    assert made["result"][1]["repaired"]["pieces_added"] == ["blue"]
