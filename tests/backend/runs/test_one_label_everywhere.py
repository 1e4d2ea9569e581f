"""A pixel of an annotation has the same label in scores, runs, learning and data sets."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.annotations.annotated_image import AnnotationChoice
from backend.annotations.annotated_project import AnnotatedProject
from backend.dataset.dataset_options import DatasetOptions
from backend.dataset.exporter import DatasetExporter
from backend.dataset.image_file import LocalImages
from backend.dataset.tasks import ProjectTasks
from backend.feedback.comparison import compare_annotation
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.task_filter import TaskFilter
from backend.learning.compared_images import ImageComparer
from backend.runs.agreement import AGREEMENT
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.words import WORDS
from backend.services import Services
from tests.backend.dataset.drawn_tasks import brush_region, region
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.conftest import Maker

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="sky"/><Label value="car" alias="c"/>
  <Label value="vehicle" alias="car"/></BrushLabels>
<RectangleLabels name="box" toName="image"><Label value="sky"/></RectangleLabels>
<EllipseLabels name="round" toName="image"><Label value="sky"/></EllipseLabels>
<RectangleLabels name="ask" toName="image" smart="true"><Label value="car"/></RectangleLabels>
</View>"""
SIZE_HW = (96, 128)
PLACE = {"to_name": "image"}


def painted(label: str, *quarters: int) -> dict[str, Any]:
    """Quarters of the picture, from left to right, painted with the brush."""
    mask = np.zeros(SIZE_HW, np.bool_)
    for quarter in quarters:
        mask[:, 32 * quarter : 32 * quarter + 32] = True
    return brush_region(mask, label, id=f"{label}{quarters}", **PLACE)


def boxed(control: str, label: str, x: int, width: int) -> dict[str, Any]:
    value = {"x": x, "y": 0, "width": width, "height": 100}
    return region("rectanglelabels", control, label, SIZE_HW, value=value, **PLACE)


SHAPE = {"x": 37.5, "y": 50, "radiusX": 12.5, "radiusY": 50}
ROUND = region("ellipselabels", "round", "sky", SIZE_HW, value=SHAPE, **PLACE)

#: Regions -> what the middle of each quarter is: "-" nothing, and "?" not counted.
CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "the later brush is on top": ([painted("sky", 1, 2), painted("c", 0, 1)], "car car sky -"),
    "whatever the order of labels": ([painted("c", 0, 1), painted("sky", 1, 2)], "car sky sky -"),
    "an alias comes before a value": ([painted("car", 0), painted("c", 1)], "vehicle car - -"),
    "a rectangle bounds its thing": ([painted("c", 1), boxed("box", "sky", 0, 50)], "? car - -"),
    "an ellipse covers its thing": ([painted("c", 0, 1), ROUND], "car sky - -"),
    "what a prompt has left": ([painted("c", 0), boxed("ask", "car", 50, 50)], "car - - -"),
}


class SeenError(Exception):
    """Carries what a consumer was given."""


def raiser(*arguments: Any) -> Any:
    raise SeenError(arguments)


class Consumers:
    """Each method returns the name of each pixel's label, as one of the consumers has it."""

    def __init__(
        self, services: Services, client: LabelStudioClient, patch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        self.services, self.client, self.patch, self.folder = services, client, patch, folder
        self.config: LabelConfig = client.config(7)
        self.labels = [label.name for label in self.config.labels_of("image")]
        self.task = client.tasks(7, TaskFilter(), 1)[0]

    def named(self, truth: Any) -> Any:
        return np.array([*self.labels, *[""] * (255 - len(self.labels)), "?"])[truth]

    def captured(self, where: str, make: Callable[[], Any]) -> tuple[Any, ...]:
        self.patch.setattr(where, raiser)
        with pytest.raises(SeenError) as seen:
            make()
        found: tuple[Any, ...] = seen.value.args[0]
        return found

    def scores(self) -> Any:
        given = self.client, self.services.images.read, 7, self.config, self.config.images[0]
        (image,) = AnnotatedProject(*given).pictures()
        return self.named(image.read()[1])

    def label_errors(self) -> Any:
        make = Maker(LABEL_ERRORS, self.services, self.client)
        return self.named(self.captured("backend.runs.label_errors.find_disagreements", make)[2])

    def words(self) -> Any:
        make = partial(Maker(WORDS, self.services, self.client), label="sky", pictures=1)
        return self.named(self.captured("backend.runs.words.mask_overlaps", make)[1])

    def learning_images(self) -> Any:
        parts = self.services.run_parts(self.client)
        (annotation,) = self.client.annotations(1)
        rgb = parts.images.read(self.task.data["image"], self.task)
        digest = parts.engine.segmenter().prepare(rgb).digest
        comparer = ImageComparer(
            *(parts.settings, parts.engine, parts.images.read, self.client, 7, self.config),
            SimpleNamespace(by_picture={digest: None}),  # type: ignore[arg-type]
        )
        self.patch.setattr(ImageComparer, "_compare", lambda _, *given: raiser(*given))
        with pytest.raises(SeenError) as seen:
            comparer._draw(annotation.id, digest)
        return self.named(seen.value.args[0][1].truth)

    def evidence(self) -> Any:
        (annotation,) = self.client.annotations(1)
        (image,) = compare_annotation(None, annotation.result, self.config)
        found = np.full(SIZE_HW, "", object)
        for name, mask in image.evidence.masks.items():
            assert not found[mask].any(), "a pixel teaches one label"
            found[mask] = name
        return found

    def agreement(self) -> Any:
        make = Maker(AGREEMENT, self.services, self.client)
        maps, names = self.captured("backend.runs.agreement.compare_image", make)
        return np.array(["", *names])[maps[0]]

    def data_set(self, **options: Any) -> Any:
        exporter = DatasetExporter(
            self.folder / "set",
            self.config,
            DatasetOptions(background="ground", **options),
            LocalImages(None, 10, self.services.images.read_file),
            max_megapixels=1,
        )
        assert exporter.run(ProjectTasks(self.client, 7), threading.Event()) is not None
        classes = json.loads((self.folder / "set/classes.json").read_text())["classes"]
        names = {each["value"]: each["name"] for each in classes} | {0: "", 255: "?"}
        (path,) = (self.folder / "set/masks").iterdir()
        with Image.open(path) as picture:
            return np.vectorize(names.__getitem__)(np.asarray(picture))

    def data_set_of_a_majority(self) -> Any:
        return self.data_set(choice=AnnotationChoice("majority"))


CONSUMERS = (
    *("scores", "label_errors", "words", "learning_images", "evidence", "agreement"),
    *("data_set", "data_set_of_a_majority"),
)


@pytest.fixture
def consumers(
    services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[list[dict[str, Any]]], Consumers]]:
    grey = data_url(np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), np.uint8))
    studio = FakeStudio(CONFIG, {1: {"image": grey}})
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)

        def make(result: list[dict[str, Any]], people: int = 1) -> Consumers:
            for person in range(people):
                studio.annotate(1, result, completed_by=person + 1)
            return Consumers(services, client, monkeypatch, tmp_path)

        yield make


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_pixel_has_one_label(consumers: Any, consumer: str, case: str) -> None:
    result, names = CASES[case]
    expected = ["" if name == "-" else name for name in names.split()]
    people = 3 if "majority" in consumer else 2 if consumer == "agreement" else 1
    found = getattr(consumers(result, people), consumer)()
    assert found.shape == SIZE_HW
    if consumer == "agreement":  # people are compared by the rectangles that they have drawn
        expected = ["sky" if each == "?" else each for each in expected]
    if consumer == "evidence":  # of what is not counted nothing is learned
        expected = ["" if each == "?" else each for each in expected]
    assert found[48, 16::32].tolist() == expected
