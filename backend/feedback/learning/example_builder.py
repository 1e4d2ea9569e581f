"""Builds training examples from the images that an annotator has corrected.

An image is read and encoded as for a prediction. Its features are summed up over the masks that the
annotator left, and the prediction of the words alone is compared with those masks. An image gives
no example where the annotation says nothing of its labels, see `backend.feedback.evidence`.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from backend.errors import ImageRefused, TaskError
from backend.feedback.comparison import AnnotationDiff, ImageDiff
from backend.feedback.learning.thresholds import measure
from backend.feedback.learning.versions import TrainingExample
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import score_options
from backend.label_studio.requests import Task
from backend.settings import Settings
from clearclip_core import Example, RGBArray, Segmenter

log = logging.getLogger(__name__)

#: Why an example is left out: some activation was too large for the model's precision.
NOT_FINITE: Final = (
    "the model's features of its picture are not all finite numbers; PRECISION=fp32 may help."
)


class ExampleBuilder:
    """Builds the training examples of annotations.

    Args:
        settings: whether masks are refined, and what counts in scores beside the words.
        engine: encodes images.
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
    """

    def __init__(self, settings: Settings, engine: Engine, read_image: ReadImage) -> None:
        self._settings = settings
        self._engine = engine
        self._read_image = read_image

    def build(self, diff: AnnotationDiff) -> list[TrainingExample]:
        """Build an example of each image of an annotation; waits for the model.

        An image that cannot be learned from is left out, and the log says why.

        Raises:
            ImageRefused: the storage does not hand out an image now.
            ModelUnavailable: the model is not there.
        """
        examples = []
        for image in diff.pictures:
            if image.evidence.is_empty:
                continue
            segmenter = self._engine.segmenter()  # without a model, no image needs to be read
            rgb = self._read(diff, image)
            built = None if rgb is None else self._build_one(segmenter, diff, image, rgb)
            if built is not None:
                examples.append(built)
        return examples

    def _read(self, diff: AnnotationDiff, image: ImageDiff) -> RGBArray | None:
        """Read an image; None where it cannot be read or has another size than its regions."""
        try:
            rgb = self._read_image(_source(image, diff.task), diff.task)
            if rgb.shape[:2] != image.size_hw:
                raise TaskError(
                    f"its picture is of size {rgb.shape[:2]}, its regions of {image.size_hw}."
                )
        except ImageRefused:
            raise
        except TaskError as error:
            log.warning("Annotation %d cannot be learned from: %s", diff.annotation, error)
            return None
        return rgb

    def _build_one(
        self, segmenter: Segmenter, diff: AnnotationDiff, image: ImageDiff, rgb: RGBArray
    ) -> TrainingExample | None:
        """Build the example of an image; None where its features are not finite numbers."""
        labels = diff.config.labels_of(image.tag.name)
        prepared = segmenter.prepare(rgb)
        encoded = self._engine.encode(
            prepared,
            labels,
            Priority.BATCH,
            diff.project,
            options=score_options(self._settings, diff.config),
        )
        names = [label.name for label in labels]
        evidence = image.evidence
        example = Example.of(
            encoded.features,
            evidence.masks,
            known=names,
            picture=prepared.digest,
            annotator=diff.annotator,
            kept=evidence.kept,
            removed=evidence.removed,
        )
        if not example.is_finite:
            log.warning("Annotation %d cannot be learned from: %s", diff.annotation, NOT_FINITE)
            return None
        decided = segmenter.decide(
            encoded.scores,
            image=rgb,
            refine=self._settings.refine,
            propagate=self._settings.propagate,
        )
        counts = measure(decided, evidence, example.picture_key)
        as_json = json.dumps({name: each.to_json() for name, each in sorted(counts.items())})
        return TrainingExample(example.digest, example.to_bytes(), as_json)


def _source(image: ImageDiff, task: Task) -> str:
    """Return the address of an image.

    Raises:
        TaskError: the task does not have the image any more.
    """
    sources = image.tag.sources(task.data)
    index = image.item_index or 0
    if not 0 <= index < len(sources):
        raise TaskError(f"its task has no picture {index} any more.")
    return sources[index]
