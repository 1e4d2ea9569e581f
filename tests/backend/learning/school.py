"""A project that learns, with a stand-in whose colours a person can foresee."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.database.database import Database
from backend.errors import StudioRefused
from backend.feedback.comparison import AnnotationDiff, ImageDiff
from backend.feedback.evidence import ImageEvidence
from backend.inference.engine import Engine
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.learning.learner import Learner
from backend.learning.versions import model_key
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import (
    Adaptation,
    Example,
    Fit,
    RGBArray,
    Vocabulary,
    adapt,
)
from clearclip_core.adaptation.fitting import HeldOutAdaptations
from clearclip_core.adaptation.people import AnnotatorFinding
from tests.backend.fakes.colour_segmenter import (
    brush_config,
    colour_engine,
    teach,
)
from tests.backend.fakes.learning_stores import LearningStores
from tests.backend.prediction.annotator import request_for
from tests.backend.prediction.test_predictor import read_image

Masks = Mapping[str, npt.NDArray[np.bool_]]


CONFIG = brush_config("wine", "blue")


SIZE_HW = (40, 60)


class Fits:
    """A stand-in for `clearclip_core.adapt` that says what it is told to."""

    def __init__(self) -> None:
        self.adaptation: Adaptation | None = teach(wine="red")
        self.people: tuple[AnnotatorFinding, ...] = ()
        self.as_words: tuple[str, ...] = ()
        self.label_loss = 0.0
        self.asked: list[tuple[Sequence[Example], Vocabulary]] = []

    def __call__(
        self,
        examples: Sequence[Example],
        embed: Any,
        vocabulary: Vocabulary,
        *,
        label_loss: float,
        as_words: Collection[str] = (),
    ) -> Fit:
        self.asked.append((examples, vocabulary))
        self.as_words, self.label_loss = tuple(as_words), label_loss
        assert embed(vocabulary.queries).shape == (len(vocabulary.queries), 3)
        told = {"wine": 0.4}, {"wine": 0.6}, len(examples)
        if self.adaptation is None:
            return Fit(None, *told)
        own = {each.picture_key: self.adaptation for each in examples}
        held_out = HeldOutAdaptations(own, self.adaptation)
        return Fit(
            self.adaptation,
            *told,
            shown={"wine": len(examples)},
            held_out=held_out,
            people=self.people,
        )


class Studio:
    """What learning asks of Label Studio: a labeling config, and annotations with their tasks."""

    def __init__(self, xml: str = CONFIG) -> None:
        self.xml = xml
        self.regions: dict[int, list[dict[str, Any]]] = {}
        self.fault: Exception | None = None
        self.hides_people = False

    def user_names(self) -> dict[int, str]:
        if self.hides_people:
            raise StudioRefused("You do not have permission.")
        return {5: "Ada", 6: "Ben"}

    def config(self, project: int) -> LabelConfig:
        if self.fault is not None:
            raise self.fault
        return parse_label_config(self.xml, None)

    def annotation(self, annotation: int) -> Annotation | None:
        if annotation not in self.regions:
            return None
        return Annotation(annotation, annotation, 7, self.regions[annotation])

    def task(self, project: int, task: int) -> Task:
        return Task(task, project, {"image": "flag"})

    def ids(self, project: int, wanted: TaskFilter) -> list[int]:
        return list(range(1, 301))

    def all_tasks(self, project: int, wanted: TaskFilter) -> list[Task]:
        """One picture in ten is gone."""
        images = {number: "flag" if number % 10 else "gone" for number in wanted.ids or ()}
        return [Task(number, project, {"image": image}) for number, image in images.items()]


class School:
    def __init__(self, database: Database, owner: str = "me", **settings: Any) -> None:
        self.settings = Settings(**{"adapt_every": 2} | settings)
        engine = colour_engine()
        key = model_key(self.settings, engine.model_id)
        self.stores = LearningStores.of(database, owner, lambda: key)
        self.fits = Fits()
        self.learner = make_learner(self.settings, engine, read_image, self.stores, self.fits)
        self.predictor = Predictor(engine, read_image, self.settings, learned=self.stores.versions)

    def learn(self, *annotations: int, config: str = CONFIG, image: str = "flag") -> None:
        for annotation in annotations:
            self.learner.learn(corrected(annotation, {"wine": left_third()}, config, image))

    def step(self, config: str = CONFIG) -> bool:
        made = self.learner.take_due_step(Studio(config))
        if self.stores.versions.state(7).adapt == "auto":
            self.stores.use_first()
        return made

    def predict(self, config: str = CONFIG, project: int = 7) -> dict[str, Any]:
        task = Task(1, project, {"image": "flag"})
        (entry,) = self.predictor.predict(
            request_for(config, task, project=project, adapt=self.settings.adapt)
        )
        for each in entry["result"]:
            del each["id"]  # of the version too
        return entry

    def taught(self) -> list[Example]:
        return [Example.from_bytes(each.example) for each in self.stores.examples.examples(7)]

    def labels(self, config: str = CONFIG) -> list[str]:
        return [each["value"]["brushlabels"][0] for each in self.predict(config)["result"]]


def make_learner(
    settings: Settings,
    engine: Engine,
    read: ReadImage,
    stores: LearningStores,
    fit_examples: Callable[..., Fit] = adapt,
) -> Learner:
    return Learner(settings, engine, read, stores.examples, stores.versions, fit_examples)


def left_third() -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[:, :20] = True
    return mask


def corrected(
    annotation: int,
    final: Masks,
    config: str = CONFIG,
    image: str = "flag",
    size_hw: tuple[int, int] = SIZE_HW,
    project: int = 7,
    evidence: ImageEvidence | None = None,
) -> AnnotationDiff:
    parsed = parse_label_config(config, None)
    picture = ImageDiff(
        parsed.images[0], None, size_hw, bool(final), evidence or ImageEvidence(final)
    )
    task = Task(annotation, project, {"image": image})
    return AnnotationDiff(annotation, project, task, parsed, (picture,), 0.0, "somebody")


def flags(source: str, task: Task) -> RGBArray:
    """Pictures that differ in a pixel, so that none is a near-duplicate by its digest."""
    image = read_image("flag", task).copy()
    image[-1, -1] = task.id or 0
    return image
