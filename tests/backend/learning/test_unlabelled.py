"""Which of a project's pictures are learned from before anybody has corrected one."""

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.learning.unlabelled import UnlabelledImages
from clearclip_core import UnlabelledFit
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.prediction.test_predictor import read_image

CONFIG = parse_label_config(brush_config("wine", "blue"), None)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("<View/>", {task: {"image": f"{task}.png"} for task in range(1, 41)})


def drawn(client: LabelStudioClient) -> list[int | None]:
    images = UnlabelledImages(colour_engine(), read_image, client, 7, CONFIG)
    return [each.task.id for each in images.images]


def test_the_same_pictures_are_drawn_again_and_not_simply_the_first(
    client: LabelStudioClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnlabelledFit, "MOST", 6)
    once = drawn(client)
    assert len(set(once)) == 6
    assert drawn(client) == once
    assert once != [1, 2, 3, 4, 5, 6]
