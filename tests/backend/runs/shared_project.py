"""A stand-in for Label Studio with tasks that several people have annotated."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.backend.dataset.drawn_tasks import brush_region, region
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import FakeStudio

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="car"/><Label value="tree"/>
</BrushLabels>
<RectangleLabels name="box" toName="image"><Label value="sign"/><Label value="car"/>
</RectangleLabels>
</View>"""

#: Height and width of the pictures in px.
HEIGHT, WIDTH = 20, 40

ANN = {"id": 1, "username": "a", "first_name": "Ann", "last_name": "Berg", "email": "a@example.com"}
BOB = {"id": 2, "username": "b", "first_name": "", "last_name": "", "email": "bob@example.com"}

#: Left, top, width and height in px.
Box = tuple[int, int, int, int]


def brushed(box: Box, label: str = "car") -> dict[str, Any]:
    """A rectangle of pixels, painted with the brush."""
    left, top, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top : top + height, left : left + width] = True
    return brush_region(mask, label, id=f"{label}{box}", to_name="image")


def boxed(box: Box, label: str = "sign") -> dict[str, Any]:
    shares = (100 * each / side for each, side in zip(box, (WIDTH, HEIGHT) * 2, strict=True))
    sides = dict(zip(("x", "y", "width", "height"), shares, strict=True))
    place = {"id": f"{label}{box}", "to_name": "image"}
    return region("rectanglelabels", "box", label, (HEIGHT, WIDTH), value=sides, **place)


def shared_studio(*tasks: Sequence[tuple[int, Sequence[dict[str, Any]]]]) -> FakeStudio:
    """A project of tasks 1, 2, …; each is a list of annotators and of what they have painted."""
    grey = data_url(np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    data = {number: {"image": grey} for number in range(1, len(tasks) + 1)}
    studio = FakeStudio(CONFIG, data, users=[ANN, BOB])
    for number, made in enumerate(tasks, 1):
        for annotator, result in made:
            studio.annotate(number, result, completed_by=annotator)
    return studio
