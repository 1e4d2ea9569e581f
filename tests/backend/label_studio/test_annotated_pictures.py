"""Annotated pictures through the API of a stand-in for Label Studio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush

from backend.errors import DataKeyError
from backend.label_studio.annotations import AnnotatedProject
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from clearclip_core import RGBArray
from tests.backend.fakes.label_studio import FakeStudio

LISTS = parse_label_config(
    '<View><Image name="image" valueList="$image"/><BrushLabels name="mask" toName="image">'
    '<Label value="red"/></BrushLabels></View>'
)


def read_image(source: str, task: Task) -> RGBArray:
    """A picture whose colour is the number in its name."""
    return np.full((1, 2, 3), int(source.partition(".")[0]), np.uint8)


def project_of(client: LabelStudioClient, studio: FakeStudio) -> AnnotatedProject:
    config = parse_label_config(studio.label_config)
    return AnnotatedProject(client, read_image, 7, config, config.images[0])


def left(**more: Any) -> dict[str, Any]:
    """The left half of a picture of 1 x 2 px, painted red."""
    size_hw = more.get("original_height", 1), 2
    mask = np.zeros(size_hw, np.uint8)
    mask[:, 0] = 255
    size = {"original_width": 2, "original_height": 1, "from_name": "mask", "to_name": "image"}
    value = {"format": "rle", "brushlabels": ["red"], "rle": brush.mask2rle(mask)}
    return {"id": "r", "type": "brushlabels", "value": value} | size | more


def test_the_pictures_of_annotated_tasks_are_read_when_asked(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.annotate(9, [left()])
    studio.annotate(200, [], ground_truth=False)
    studio.annotate(200, [left()], ground_truth=True)
    pictures = project_of(client, studio).pictures()
    assert [picture.name for picture in pictures] == ["task 9", "task 200"]
    for picture, colour in zip(pictures, (9, 200), strict=True):
        rgb, truth = picture.read()
        assert rgb[0, 0, 0] == colour
        assert truth.tolist() == [[0, 254]]


def test_some_of_many_are_spread_over_all(client: LabelStudioClient, studio: FakeStudio) -> None:
    for task in range(1, 251):
        studio.annotate(task, [left()])
    some = project_of(client, studio).pictures(limit=5)
    assert [picture.task.id for picture in some] == [1, 51, 101, 151, 201]


def test_what_cannot_be_measured_says_why(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.tasks[5] = {"photo": "5.png"}
    studio.annotate(4, [])
    studio.annotate(5, [left()])
    studio.annotate(6, [left(original_width=2, original_height=2)])
    empty, keyless, large = project_of(client, studio).pictures()
    with pytest.raises(ValueError, match="has no region of a label on it"):
        empty.read()
    with pytest.raises(DataKeyError, match=r"asks for .\$image."):
        keyless.read()
    with pytest.raises(ValueError, match=r"of a picture of 2×2 px, but it has 2×1"):
        large.read()
    studio.annotate(7, [left()], was_cancelled=True)
    with pytest.raises(ValueError, match="no annotation that was submitted"):
        project_of(client, studio).pictures()[-1].read()


def test_each_picture_of_a_list_is_one(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.tasks[3] = {"image": ["30.png", "31.png"]}
    studio.annotate(3, [left(item_index=1)])
    project = AnnotatedProject(client, read_image, 7, LISTS, LISTS.images[0])
    first, second = project.pictures()
    assert second.name == "task 3, picture 2"
    assert second.read()[0][0, 0, 0] == 31
    with pytest.raises(ValueError, match="no region"):
        first.read()
