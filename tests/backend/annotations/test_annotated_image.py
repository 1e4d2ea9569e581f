"""Which annotations of a task count, and the images that they are of."""

from typing import Any

import numpy as np
import pytest

from backend.annotations.annotated_image import (
    AnnotatedImage,
    AnnotationChoice,
    find_images,
    sourced_regions,
)
from backend.errors import BadRequest
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from tests.backend.dataset.drawn_tasks import brush_region, region

ALL = [
    Annotation(1, 1, 1, (), annotator=4, updated=9.0),
    Annotation(2, 1, 1, (), annotator=5, updated=3.0, ground_truth=True),
    Annotation(3, 1, 1, (), annotator=5, updated=2.0, ground_truth=True),
    Annotation(4, 1, 1, (), annotator=6, updated=99.0, skipped=True, ground_truth=True),
    Annotation(5, 1, 1, (), updated=1.0),
    Annotation(6, 1, 1, (), updated=1.0),
]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        *(("preferred", [2]), ("newest", [1]), ("ground-truth", [2]), ("5", [2]), ("6", [])),
        ("majority", [1, 2, 5, 6]),
    ],
)
def test_rules(text: str, ids: list[int]) -> None:
    assert [each.id for each in AnnotationChoice.parse(text).choose(ALL)] == ids
    assert str(AnnotationChoice.parse(text)) == text


@pytest.mark.parametrize("text", ["", "annotator", "best", "-3", "1" * 30])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="majority"):
        AnnotationChoice.parse(text)


CONFIG = parse_label_config(
    """<View><Image name="img" value="$image"/><Image name="pages" valueList="$pages"/>
    <BrushLabels name="mask" toName="img,pages">
      <Label value="Car" alias="c"/><Label value="Dog"/></BrushLabels>
    <PolygonLabels name="poly" toName="img"><Label value="Roof"/></PolygonLabels>
    <RectangleLabels name="box" toName="img"><Label value="Dog"/></RectangleLabels></View>""",
    None,
)
# The labels of "img", by their indices in maps.
DOG, NONE = 1, 254


def painted(label: str, *columns: int, **more: Any) -> Any:
    """A region on a picture of 2 x 4 px."""
    mask = np.zeros((2, 4), np.bool_)
    mask[:, list(columns)] = True
    return brush_region(mask, label, **more)


def boxed(label: str, x: float, width: float) -> Any:
    value = {"x": x, "y": 0, "width": width, "height": 100}
    return region("rectanglelabels", "box", label, (2, 4), value=value)


def images(*regions: Any) -> list[AnnotatedImage]:
    task = Task(1, 1, {"image": "i.png", "pages": ["a.png", "b.png"]})
    return find_images(task, [sourced_regions(Annotation(1, 1, 1, list(regions)))], CONFIG)


def drawn(*regions: Any, image: str = "img", item_index: int | None = None) -> Any:
    labels = [label.name for label in CONFIG.labels_of(image)]
    for each in images(*regions):
        if (each.tag.name, each.item_index) == (image, item_index):
            return each.label_map().truth(labels)[1].tolist() if each.versions[0] else None
    raise AssertionError("it is an image of the task")


def test_regions_of_one_label_are_kept_apart() -> None:
    result = [painted("Car", 0, 1), boxed("Dog", 0, 100), painted("Car", 1), painted("Dog", 2)]
    made = images(*result)[0].label_map()
    assert made.regions[1].tolist() == [1, 3, 4, 5], "5: not counted"
    assert [each.size_hw for each in images()] == [None] * 3
    with pytest.raises(ValueError, match="No region of a label"):
        images()[0].label_map()


def test_other_images_and_other_controls_count_nothing() -> None:
    page = painted("Dog", 0, to_name="pages", item_index=1)
    assert drawn(page) is None
    assert drawn(page, image="pages", item_index=0) is None
    assert drawn(page, image="pages", item_index=1) == [DOG, NONE, NONE, NONE]
    assert drawn(painted("Dog", 0, from_name="other")) is None


def test_broken_regions_and_sizes_that_disagree_or_take_all_memory_are_refused() -> None:
    with pytest.raises(BadRequest, match="different sizes: 4×2 and 5×2 px"):
        drawn(painted("Car", 0), painted("Dog", 0, original_width=5))
    with pytest.raises(
        BadRequest, match=r'of Car \(made with "mask"\) is broken: .* the size of its picture'
    ):
        drawn(painted("Car", 0, original_width=None))
    huge = {"original_width": 1 << 20, "original_height": 1 << 20}
    with pytest.raises(BadRequest, match="1048576×1048576 px are 1099511 megapixels"):
        drawn(painted("Car", 0, **huge))
