"""The images of a project whose annotations are taken for the truth."""

from typing import Any

import numpy as np
import pytest

from backend.annotations.annotated_project import AnnotatedProject
from backend.errors import DataKeyError, TaskError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from clearclip_core import RGBArray
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.label_studio import FakeStudio

LISTS_XML = (
    '<View><Image name="image" valueList="$image"/><BrushLabels name="mask" toName="image">'
    '<Label value="red"/></BrushLabels></View>'
)
LISTS = parse_label_config(LISTS_XML, None)


def read_image(source: str, task: Task) -> RGBArray:
    """A picture whose colour is the number in its name."""
    return np.full((1, 2, 3), int(source.partition(".")[0]), np.uint8)


@pytest.fixture
def studio() -> FakeStudio:
    tasks: dict[int, dict[str, Any]] = {n: {"image": f"{n}.png"} for n in range(1, 251)}
    return FakeStudio(LISTS_XML.replace("valueList", "value"), tasks)


def project_of(client: LabelStudioClient, studio: FakeStudio) -> AnnotatedProject:
    config = parse_label_config(studio.label_config, None)
    return AnnotatedProject(client, read_image, 7, config, config.images[0])


def left(height: int = 1, **more: Any) -> dict[str, Any]:
    """The left half of a picture that is 2 px wide, painted red."""
    return brush_region(np.tile([True, False], (height, 1)), "red", to_name="image", **more)


def test_pictures_are_read_when_asked(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.annotate(9, [left()])
    studio.annotate(200, [], ground_truth=False)
    studio.annotate(200, [left()], ground_truth=True)
    pictures = project_of(client, studio).pictures()
    assert [picture.name for picture in pictures] == ["task 9", "task 200"]
    for picture, colour in zip(pictures, (9, 200), strict=True):
        rgb, truth = picture.read()
        assert rgb[0, 0, 0] == colour
        assert truth.tolist() == [[0, 254]]
    for task in range(1, 251):
        studio.annotate(task, [])
    some = project_of(client, studio).pictures(limit=5)
    assert [picture.task.id for picture in some] == [1, 51, 101, 151, 201]


def test_what_cannot_be_measured_says_why(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.tasks[5] = {"photo": "5.png"}
    studio.annotate(4, [])
    studio.annotate(5, [left()])
    studio.annotate(6, [left(2)])
    empty, keyless, large = project_of(client, studio).pictures()
    with pytest.raises(ValueError, match="has no region of a label on it"):
        empty.read()
    with pytest.raises(DataKeyError, match=r"asks for .\$image."):
        keyless.read()
    with pytest.raises(TaskError, match=r"of a picture of 2×2 px, but it has 2×1"):
        large.read()
    (skipped, *_) = project_of(client, studio).pictures()
    studio.annotations.clear()
    with pytest.raises(ValueError, match="no annotation that was submitted"):
        skipped.read()


def test_each_picture_of_a_list_is_one(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.tasks[3] = {"image": ["30.png", "31.png"]}
    studio.annotate(3, [left(item_index=1)])
    project = AnnotatedProject(client, read_image, 7, LISTS, LISTS.images[0])
    first, second = project.pictures()
    assert second.name == "task 3, picture 2"
    assert second.read()[0][0, 0, 0] == 31
    with pytest.raises(ValueError, match="no region"):
        first.read()
