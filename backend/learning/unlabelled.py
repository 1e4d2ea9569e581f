"""Learn from pictures of a project that nobody has corrected, before the first correction."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from backend.annotations.annotated_image import LEAVE_OUT, AnnotatedImage
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import Example, Label, UnlabelledFit, adapt_unlabelled

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class UnlabelledImages:
    """Some images of a project, drawn at random, the same ones as long as it has the same tasks."""

    engine: Engine
    read_image: ReadImage
    client: LabelStudioClient
    project: int
    config: LabelConfig

    @cached_property
    def images(self) -> list[AnnotatedImage]:
        """One image of each task that is drawn, in the order in which they are drawn."""
        tag = next(iter(self.config.annotated), None)
        if tag is None:
            return []
        ids = list(self.client.ids(self.project, TaskFilter()))
        # The same seed: a step that is made again learns, and shows, the same pictures.
        drawn = random.Random(self.project).sample(ids, min(len(ids), UnlabelledFit.MOST))
        wanted = TaskFilter(ids=tuple(drawn))
        tasks = {each.id: each for each in self.client.all_tasks(self.project, wanted)}
        there = [tasks[number] for number in drawn if number in tasks]
        return [
            AnnotatedImage(task, tag, next(iter(tag.indices(task.data)), None), ())
            for task in there
        ]

    def examples(self) -> Iterator[Example]:
        """Encode the images that can be read."""
        for image in self.images:
            labels = self.config.labels_of(image.tag.name)
            try:
                prepared = self.engine.segmenter().prepare(image.read(self.read_image))
                encoded = self.engine.encode(prepared, labels, Priority.BATCH, self.project)
            except LEAVE_OUT as error:
                log.warning("Task %s is not learned from: %s", image.task.id, error)
                continue
            known = [label.name for label in labels]
            yield Example.of(encoded.features, {}, known, prepared.digest)


def fit_words(
    engine: Engine, examples: Sequence[Example], labels: tuple[Label, ...]
) -> UnlabelledFit:
    """Learn from the masks of the words of these labels on examples without masks."""
    segmenter = engine.segmenter()
    engine.embed(labels)
    return adapt_unlabelled(examples, segmenter.embed, segmenter.vocabulary(labels, contrast=True))
