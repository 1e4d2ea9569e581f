"""Pictures of what a version changes: an annotation, the masks of the words, and the version's.

The latter are those of the cross-validation: of an adaptation to other pictures than the shown one.
A further picture shows only what differs between words and version.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, Final, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from backend.annotations.annotated_image import (
    LEAVE_OUT,
    AnnotatedImage,
    find_images,
    sourced_regions,
)
from backend.errors import StudioRefused, StudioUnreachable
from backend.feedback.report.statistics import in_percent
from backend.inference.engine import Engine
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.learning.predicted_masks import MaskPredictor
from backend.settings import Settings
from clearclip_core import Adaptation, Example, HeldOutAdaptations, PreparedImage, RGBArray
from clearclip_core.evaluation.trial import Counts, count_overlaps, judge
from clearclip_core.images.drawing import thumbnail
from clearclip_core.images.label_maps import NOTHING, Truth
from clearclip_core.images.opening import to_data_url

log = logging.getLogger(__name__)

#: Pictures of a version, and how many more are tried where some cannot be had.
MOST_IMAGES: Final = 6
_SPARE: Final = 6

_SIDE_PX: Final = 320  # long side of a picture in px

#: Colours of the places where a version is right and the words are wrong, and the other way round.
GAINED_RGB: Final = (22, 163, 74)
LOST_RGB: Final = (220, 38, 38)

#: What pictures of changes say of places where a version takes a label away; they have `LOST_RGB`.
TAKEN_AWAY: Final = {"no label any more": f"#{bytes(LOST_RGB).hex()}"}

_GREY_OPACITY: Final = 0.6  # of the fill on a grey image

_LabelMap = npt.NDArray[np.int16]


class Work(msgspec.Struct, frozen=True, array_like=True):
    """What is left to do on a predicted image, as shares of its pixels."""

    to_paint: float  # those with a label that the prediction lacks
    to_erase: float  # those that the prediction shows as a label and the annotation does not

    @classmethod
    def of(cls, predicted: _LabelMap, drawn: _LabelMap) -> Work:
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
    changes: str = ""  # grey, with the places where they differ; "": drawn before 0.3, or alike
    changed: float = 0.0  # share of the pixels where words and version differ
    gained: float | None = None  # share that the version alone has right; None: not annotated
    lost: float | None = None  # share that the words alone have right; None: not annotated

    @property
    def change_sentence(self) -> str:
        """What the picture of changes shows.

        >>> ComparedImage(1, "", "", "", changed=0.25).change_sentence
        '25.0 % changes'
        >>> ComparedImage(1, "", "", "", changed=0.25, gained=0.15, lost=0.004).change_sentence
        '15.0 % gained, 0.4 % lost'
        """
        if self.gained is None or self.lost is None:
            return f"{in_percent(self.changed)} changes"
        return f"{in_percent(self.gained)} gained, {in_percent(self.lost)} lost"


class BeforeAfter(msgspec.Struct, frozen=True):
    """What a version changes on some corrected images."""

    pictures: tuple[ComparedImage, ...] = ()  # the images
    colours: dict[str, str] = {}  # name of each label that they show -> its colour, as in CSS


class PropagationTrial(msgspec.Struct, frozen=True):
    """What propagated scores gain on held-out images, see `Segmenter.decide`.

    Attributes:
        pictures: number of the images.
        gain: gain of the mean IoU of the masks, in [-1, 1].
        is_used: whether the version uses it: the gain is beyond chance, and no label loses much.
        losing: names of labels that surely lose.
        low: gain that 19 draws of the images in 20 are above.
        high: gain that 19 draws in 20 are below.
        FEWEST: images that are needed.
        MOST: images that are predicted at most: a trial may not cost more than the step itself.
    """

    FEWEST: ClassVar[int] = 6
    MOST: ClassVar[int] = 12

    pictures: int
    gain: float
    is_used: bool
    losing: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(
        cls, names: tuple[str, ...], now: list[Counts], other: list[Counts]
    ) -> PropagationTrial | None:
        """Judge the counts of label maps of images; None of too few."""
        if len(now) < cls.FEWEST:
            return None
        trial = judge(now, other)
        losing = tuple(names[index] for index in trial.losing)
        return cls(len(now), trial.gain, trial.is_better, losing, trial.low, trial.high)

    @property
    def is_clear(self) -> bool:
        """Whether further images would hardly decide otherwise.

        >>> PropagationTrial(6, 0.02, True, (), 0.01, 0.03).is_clear
        True
        >>> PropagationTrial(6, 0.02, True, (), -0.01, 0.03).is_clear
        False
        """
        gains = self.low > 0 and not self.losing
        return gains or self.high < 0

    @property
    def sentence(self) -> str:
        """What was found, for people.

        >>> PropagationTrial(12, 0.0132, True).sentence
        'Calmer masks (PROPAGATE) are used: +1.3 points of mean IoU on 12 corrected pictures.'
        """
        how = "are used" if self.is_used else "were tried and are not used"
        points = f"{100 * self.gain:+.1f} points of mean IoU on {self.pictures} corrected pictures"
        lost = f", and {', '.join(self.losing)} would lose" if self.losing else ""
        return f"Calmer masks (PROPAGATE) {how}: {points}{lost}."


def propagated(adaptation: Adaptation) -> Adaptation:
    """Return the same adaptation, whose scores are propagated along edges."""
    return replace(adaptation, propagate=True)


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
        return BeforeAfter(_most_changed_first(made), colours)

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
            task, adaptation = int(each.task.id or 0), self.held_out.of("")
            drawn, legend = self._compare(task, image, adaptation, is_annotated=False)
            made.append(drawn)
            colours |= legend
            if len(made) == MOST_IMAGES:
                break
        return BeforeAfter(_most_changed_first(made), colours)

    def try_propagation(self, examples: Iterable[tuple[int, Example]]) -> PropagationTrial | None:
        """Compare the masks of propagated scores with those as they are, on held-out images.

        Masks are made as predictions make them, with refined edges where these are on: how much
        propagation gains depends on that. It waits for the model, and ends where the sign is clear.

        Args:
            examples: those that were learned from, each with the id of its annotation.

        Returns:
            What was found; None where there are too few images that can be had.
        """
        chosen = list(self._choose(examples, PropagationTrial.MOST))
        names: tuple[str, ...] = ()
        ways: tuple[list[Counts], list[Counts]] = ([], [])
        trial: PropagationTrial | None = None

        for annotation, digest in chosen if len(chosen) >= PropagationTrial.FEWEST else ():
            try:
                found = self._find(annotation, digest)
            except LEAVE_OUT as error:
                log.warning("Annotation %d is not measured: %s", annotation, error)
                continue
            except (StudioRefused, StudioUnreachable) as error:
                log.warning("Project %d: annotations are not measured: %s", self.project, error)
                return None
            if found is None:
                continue

            names = tuple(label.name for label in self.config.labels_of(found[1].tag))
            adaptation = self.held_out.by_picture[digest]
            maps = self._predictor.predict_propagated(
                found[1].tag, found[1].prepared, found[1].rgb, adaptation
            )
            for way, label_map in zip(ways, maps, strict=True):
                way.append(count_overlaps(label_map, found[1].truth, len(names)))

            trial = PropagationTrial.of(names, *ways)
            if trial is not None and trial.is_clear:
                break

        return trial

    def _choose(
        self, examples: Iterable[tuple[int, Example]], most: int = MOST_IMAGES + _SPARE
    ) -> Iterator[tuple[int, str]]:
        """Yield annotations and their images, so that each label is shown soon."""
        left = {
            example.picture_key: (annotation, example)
            for annotation, example in examples
            if example.names and example.picture_key in self.held_out.by_picture
        }
        times: Counter[str] = Counter()
        for _ in range(min(len(left), most)):
            digest = min(left, key=lambda key: min(times[name] for name in left[key][1].names))
            annotation, example = left.pop(digest)
            times.update(example.names)
            yield annotation, digest

    def _draw(self, annotation: int, digest: str) -> tuple[ComparedImage, dict[str, str]] | None:
        """Draw an image three times, with the colours of its labels; None where it is gone."""
        found = self._find(annotation, digest)
        return found and self._compare(*found, self.held_out.by_picture[digest])

    def _find(self, annotation: int, digest: str) -> tuple[int, _Image] | None:
        """Read an image with its annotation, and the id of its task; None where it is gone."""
        there = self.client.annotation(annotation)
        task = None if there is None else self.client.task(self.project, there.task)
        if there is None or task is None:
            return None
        for found in find_images(task, [sourced_regions(there)], self.config):
            if found.size_hw is None:
                continue
            rgb = self.read_image(found.source, task)
            prepared = self.engine.segmenter().prepare(rgb)
            if prepared.digest == digest and rgb.shape[:2] == found.size_hw:
                names = [label.name for label in self.config.labels_of(found.tag.name)]
                truth = found.label_map().truth(names)
                return there.task, _Image(found.tag.name, rgb, prepared, truth)
        return None

    def _compare(
        self, task: int, image: _Image, adaptation: Adaptation | None, *, is_annotated: bool = True
    ) -> tuple[ComparedImage, dict[str, str]]:
        """Draw an image with its annotation, its masks by words and by a version, and the change.

        Returns:
            The drawings, and the colours in CSS of the labels that they show.
        """
        count, truth = len(self.config.labels_of(image.tag)), image.truth
        drawn = np.where(truth < count, truth.astype(np.int16), np.int16(-1))
        words, adapted = (self._predict(image, each) for each in (None, adaptation))
        colours = self.config.colours_of(image.tag)
        first, second, third = (
            to_data_url(thumbnail(image.rgb, each, colours, _SIDE_PX))
            for each in (drawn, words, adapted)
        )
        differs = words != adapted
        compared = ComparedImage(
            task,
            first if is_annotated else "",
            second,
            third,
            changed=float(differs.mean()),
        )

        if is_annotated:
            gained, lost = differs & (adapted == drawn), differs & (words == drawn)
            shown = np.select([gained, lost], [np.int16(0), np.int16(1)], np.int16(-1))
            changes = _draw_on_grey(image.rgb, shown, np.array([GAINED_RGB, LOST_RGB], np.uint8))
            compared = msgspec.structs.replace(
                compared,
                text_work=Work.of(words, drawn),
                adapted_work=Work.of(adapted, drawn),
                gained=float(gained.mean()),
                lost=float(lost.mean()),
            )
        else:
            changes = draw_new_labels(image.rgb, words, adapted, colours)

        if differs.any():
            compared = msgspec.structs.replace(compared, changes=changes)
        labels = [index for index in np.unique((drawn, words, adapted)).tolist() if index >= 0]
        return compared, self.config.legend_of(image.tag, labels)

    def _predict(self, image: _Image, adaptation: Adaptation | None) -> _LabelMap:
        """Predict an image as predictions do; return its label map."""
        return self._predictor.predict_map(
            image.tag, image.rgb, prepared=image.prepared, adaptation=adaptation
        )

    @property
    def _predictor(self) -> MaskPredictor:
        return MaskPredictor(self.engine, self.settings, self.config, self.project)


def draw_new_labels(rgb: RGBArray, before: _LabelMap, after: _LabelMap, colours: RGBArray) -> str:
    """Draw an image grey, and where two predictions differ in the colour of the new label.

    Args:
        rgb: (H, W, 3) uint8.
        before: (H, W) int16, indices into `colours`, -1 for no label.
        after: likewise; `LOST_RGB` where it takes a label away.
        colours: (labels, 3) uint8.

    Returns:
        A data URL of a JPEG.
    """
    shown = np.where(after < 0, np.int16(len(colours)), after)
    shown = np.where(before != after, shown, np.int16(-1))
    return _draw_on_grey(rgb, shown, np.vstack((colours, LOST_RGB)).astype(np.uint8))


def _draw_on_grey(rgb: RGBArray, shown: _LabelMap, colours: RGBArray) -> str:
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    drawn = thumbnail(np.asarray(grey, np.uint8), shown, colours, _SIDE_PX, _GREY_OPACITY)
    return to_data_url(drawn)


def _most_changed_first(images: list[ComparedImage]) -> tuple[ComparedImage, ...]:
    return tuple(sorted(images, key=lambda image: -image.changed))
