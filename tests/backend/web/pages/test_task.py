"""The page of a task."""

import io

import numpy as np
import pytest
from PIL import Image

from backend.database.database import Database
from backend.projects.failures import FailureStore
from backend.settings import Settings
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.web.browser import Dashboard


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("sky", "car"), {3: {"image": "a.png"}})


def test_the_page_and_its_json_are_one_record(server: LocalServer) -> None:
    FailureStore(Database.from_settings(Settings())).add([(3, "<b>gone</b>")], job=5, project=7)
    lead = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
    assert "Job 5 could not predict it: <b>gone</b>" in lead.page("/projects/7/tasks/3").text
    told = lead.client.get("/projects/7/tasks/3").get_json()
    assert told["entries"][0]["sentence"] == "Job 5 could not predict it: <b>gone</b>"
    assert lead.client.get("/projects/7/tasks/99").status_code == 404


def test_the_picture_is_of_the_newest_prediction() -> None:
    picture = data_url(np.full((4, 8, 3), 100, np.uint8))
    studio = FakeStudio(brush_config("sky", "car"), {3: {"image": picture}, 4: {"image": picture}})
    mask = np.ones((4, 8), np.bool_)
    studio.add(3, "v1", result=[brush_region(mask, "car", to_name="image")])
    studio.add(3, "v2")
    with studio.served() as server:
        lead = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        answer = lead.client.get("/projects/7/tasks/3/picture")
        shown = np.asarray(Image.open(io.BytesIO(answer.data))).astype(int)
        assert abs(shown - 100).max() < 4, "the newest one has no mask"
        assert lead.client.get("/projects/7/tasks/4/picture").status_code == 404


def test_the_picture_is_there_without_its_masks_too() -> None:
    picture = data_url(np.full((4, 8, 3), 100, np.uint8))
    studio = FakeStudio(brush_config("sky", "car"), {3: {"image": picture}})
    mask = np.ones((4, 8), np.bool_)
    studio.add(3, "v1", result=[brush_region(mask, "car", to_name="image")])
    with studio.served() as server:
        lead = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        (shown,) = lead.page("/projects/7/tasks/3").all("img")
        masked, plain = (
            np.asarray(Image.open(io.BytesIO(lead.client.get(str(shown[name])).data))).mean((0, 1))
            for name in ("src", "data-plain")
        )
    assert np.ptp(plain) < 2 < 10 < np.ptp(masked), "it is grey"
