"""Pictures of what a version changes: an annotation, the masks of the words, and the version's.

The latter are those of the cross-validation: of an adaptation to other pictures than the shown one.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from backend.annotations.annotated_image import LEAVE_OUT, AnnotatedImage, find_images, said_by
from backend.errors import StudioRefused, StudioUnreachable
from backend.inference.engine import Engine
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.learning.predicted_masks import MaskPredictor
from backend.settings import Settings
from clearclip_core import Adaptation, Example, HeldOutAdaptations, PreparedImage, RGBArray
from clearclip_core.images.label_maps import NOTHING, Truth, thumbnail
from clearclip_core.images.opening import to_data_url

log = logging.getLogger(__name__)

#: Pictures of a version, and how many more are tried where some cannot be had.
MOST_IMAGES: Final = 6
_SPARE: Final = 6

_SIDE_PX: Final = 320  # long side of a picture in px

_LabelMap = npt.NDArray[np.int16]


class Work(msgspec.Struct, frozen=True, array_like=True):
    """What is left to do on a predicted image, as shares of its pixels."""

    to_paint: float  # those with a label that the prediction lacks
    to_erase: float  # those that the prediction shows as a label and the annotation does not

    @classmethod
    def of(cls, predicted: _LabelMap, drawn: _LabelMap) -> "Work":
        """Compare two (H, W) label maps, -1 for no label.

        >>> Work.of(np.array([[0, 1, -1]], np.int16), np.array([[1, 1, -1]], np.int16)).to_paint
        0.3333333333333333
        """
        wrong = predicted != drawn
        return cls(float((wrong & (drawn >= 0)).mean()), float((wrong & (predicted >= 0)).mean()))


class ComparedImage(msgspec.Struct, frozen=True):
    """An image, drawn several times, as data URLs of JPEGs."""

    task: int  # id of its task
    annotated: str  # with the regions of its annotation; "" where nobody has corrected it
    words: str  # with the masks of the words alone
    adapted: str  # with the masks of a version that has not learned from it
    text_work: Work | None = None  # what the words' masks leave to do; None: not measured
    adapted_work: Work | None = None  # what the version's masks leave to do


class BeforeAfter(msgspec.Struct, frozen=True):
    """What a version changes on some corrected images."""

    pictures: tuple[ComparedImage, ...] = ()  # the images
    colours: dict[str, str] = {}  # name of each label that they show -> its colour, as in CSS


class _Image(NamedTuple):
    tag: str
    rgb: RGBArray
    prepared: PreparedImage
    truth: Truth


@dataclass(eq=False)
class ImageComparer:
    """Draws corrected images of a project, with and without what was learned of the others."""

    settings: Settings
    engine: Engine
    read_image: ReadImage
    client: LabelStudioClient
    project: int
    config: LabelConfig
    held_out: HeldOutAdaptations  # what was learned, by image

    def compare(self, examples: Iterable[tuple[int, Example]]) -> BeforeAfter:
        """Draw some of the images that examples, each with the id of its annotation, were made of.

        It waits for the model. An image that cannot be had or drawn is left out, and the log says
        why.
        """
        made: list[ComparedImage] = []
        colours: dict[str, str] = {}
        for annotation, digest in self._choose(examples):
            try:
                if (drawn := self._draw(annotation, digest)) is not None:
                    made.append(drawn[0])
                    colours |= drawn[1]
            except LEAVE_OUT as error:
                log.warning("Annotation %d is not shown: %s", annotation, error)
            except (StudioRefused, StudioUnreachable) as error:
                log.warning("Project %d: annotations are not shown: %s", self.project, error)
                break
            except Exception:  # a broken picture must not stop what is learned
                log.exception("Annotation %d is not shown", annotation)
            if len(made) == MOST_IMAGES:
                break
        return BeforeAfter(tuple(made), colours)

    def compare_unlabelled(self, images: Iterable[AnnotatedImage]) -> BeforeAfter:
        """Draw some images that nobody has corrected; one that cannot be had is left out."""
        made: list[ComparedImage] = []
        colours: dict[str, str] = {}
        for each in islice(images, MOST_IMAGES + _SPARE):
            try:
                rgb = each.read(self.read_image)
            except LEAVE_OUT as error:
                log.warning("Task %s is not shown: %s", each.task.id, error)
                continue
            truth = np.full(rgb.shape[:2], NOTHING, np.uint8)
            prepared = self.engine.segmenter().prepare(rgb)
            image = _Image(each.tag.name, rgb, prepared, truth)
            drawn, legend = self._compare(int(each.task.id or 0), image, self.held_out.of(""))
            blank = {"annotated": "", "text_work": None, "adapted_work": None}
            made.append(msgspec.structs.replace(drawn, **blank))
            colours |= legend
            if len(made) == MOST_IMAGES:
                break
        return BeforeAfter(tuple(made), colours)

    def _choose(self, examples: Iterable[tuple[int, Example]]) -> Iterator[tuple[int, str]]:
        """Yield annotations and their images, so that each label is shown soon."""
        left = {
            example.picture_key: (annotation, example)
            for annotation, example in examples
            if example.names and example.picture_key in self.held_out.by_picture
        }
        times: Counter[str] = Counter()
        for _ in range(min(len(left), MOST_IMAGES + _SPARE)):
            digest = min(left, key=lambda key: min(times[name] for name in left[key][1].names))
            annotation, example = left.pop(digest)
            times.update(example.names)
            yield annotation, digest

    def _draw(self, annotation: int, digest: str) -> tuple[ComparedImage, dict[str, str]] | None:
        """Draw an image three times, with the colours of its labels; None where it is gone."""
        there = self.client.annotation(annotation)
        task = None if there is None else self.client.task(self.project, there.task)
        if there is None or task is None:
            return None
        for found in find_images(task, [said_by(there)], self.config):
            if found.size_hw is None:
                continue
            rgb = self.read_image(found.source, task)
            prepared = self.engine.segmenter().prepare(rgb)
            if prepared.digest == digest and rgb.shape[:2] == found.size_hw:
                names = [label.name for label in self.config.labels_of(found.tag.name)]
                image = _Image(found.tag.name, rgb, prepared, found.label_map().truth(names))
                return self._compare(there.task, image, self.held_out.by_picture[digest])
        return None

    def _compare(
        self, task: int, image: _Image, adaptation: Adaptation | None
    ) -> tuple[ComparedImage, dict[str, str]]:
        count, truth = len(self.config.labels_of(image.tag)), image.truth
        drawn = np.where(truth < count, truth.astype(np.int16), np.int16(-1))
        maps = drawn, *(self._predict(image, each) for each in (None, adaptation))
        colours = self.config.colours_of(image.tag)
        drawings = (thumbnail(image.rgb, each, colours, _SIDE_PX) for each in maps)
        first, second, third = map(to_data_url, drawings)
        labels = [index for index in np.unique(maps).tolist() if index >= 0]
        work = (Work.of(each, drawn) for each in maps[1:])
        compared = ComparedImage(task, first, second, third, *work)
        return compared, self.config.legend_of(image.tag, labels)

    def _predict(self, image: _Image, adaptation: Adaptation | None) -> _LabelMap:
        """Predict an image as predictions do; return its label map."""
        predict = MaskPredictor(self.engine, self.settings, self.config, self.project).predict
        masks = predict(image.tag, image.rgb, prepared=image.prepared, adaptation=adaptation)
        label_map = np.full(image.truth.shape, -1, np.int16)
        for index, mask in masks.items():
            label_map[mask] = index
        return label_map
