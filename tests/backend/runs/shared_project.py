"""A stand-in for Label Studio with tasks that several people have annotated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from label_studio_sdk.converter import brush

from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import FakeStudio

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="car" alias="c"/><Label value="tree"/>
</BrushLabels>
<PolygonLabels name="outline" toName="image"><Label value="car"/></PolygonLabels>
<RectangleLabels name="box" toName="image"><Label value="sign"/><Label value="car"/>
</RectangleLabels>
</View>"""

#: Height and width of the pictures in px.
HEIGHT, WIDTH = 20, 40
SIZE = {"original_height": HEIGHT, "original_width": WIDTH}

ANN = {"id": 1, "username": "a", "first_name": "Ann", "last_name": "Berg", "email": "a@example.com"}
BOB = {"id": 2, "username": "b", "first_name": "", "last_name": "", "email": "bob@example.com"}

#: Left, top, width and height in px.
Box = tuple[int, int, int, int]


def brushed(box: Box, label: str = "car") -> dict[str, Any]:
    """A rectangle of pixels, painted with the brush."""
    left, top, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + height, left : left + width] = 255
    value = {"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": [label]}
    place = {"from_name": "mask", "to_name": "image", "type": "brushlabels"}
    return {"id": f"{label}{box}", "value": value} | place | SIZE


def boxed(box: Box, label: str = "sign") -> dict[str, Any]:
    """A rectangle."""
    left, top, width, height = (
        100 * each / side for each, side in zip(box, (WIDTH, HEIGHT) * 2, strict=True)
    )
    sides = {"x": left, "y": top, "width": width, "height": height}
    place = {"from_name": "box", "to_name": "image", "type": "rectanglelabels"}
    return {"id": f"{label}{box}", "value": sides | {"rectanglelabels": [label]}} | place | SIZE


def outlined(box: Box, label: str = "car") -> dict[str, Any]:
    """A polygon around the same pixels."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners]
    place = {"from_name": "outline", "to_name": "image", "type": "polygonlabels"}
    value = {"points": points, "polygonlabels": [label]}
    return {"id": f"{label}{box}", "value": value} | place | SIZE


def shared_studio(*tasks: Sequence[tuple[int, Sequence[dict[str, Any]]]]) -> FakeStudio:
    """A project of tasks 1, 2, …; each is a list of annotators and of what they have painted."""
    grey = data_url(np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    data = {number: {"image": grey} for number in range(1, len(tasks) + 1)}
    studio = FakeStudio(CONFIG, data, users=[ANN, BOB])
    for number, made in enumerate(tasks, 1):
        for annotator, result in made:
            studio.annotate(number, result, completed_by=annotator)
    return studio
