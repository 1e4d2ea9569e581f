"""Learns from corrections: takes annotations in, and makes a new version of their lessons.

An annotation gives a lesson for each of its pictures: the picture is read and encoded like one
that is to be predicted, and what the annotator left on it is summed up over its patches. A step
makes all lessons of a project a version, by `clearclip_core.adapt`, which chooses by pictures that
it has held out how much they count. Scores that are not at least as good there as those of the
words alone never go live. All of it is for a background thread: it waits for the model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from backend.database.leases import LEASE_S
from backend.errors import BackendError, ImageRefused, LearningRefused, TaskError
from backend.feedback.comparison import AnnotationDiff, ImageDiff
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.thresholds import (
    ThresholdCounts,
    add_up,
    best_thresholds,
    measure,
    measure_patches,
)
from backend.feedback.learning.version_file import export
from backend.feedback.learning.versions import Promotion, StepLease, TrainingExample, Version
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig, adapt_mode
from backend.label_studio.requests import Task
from backend.settings import Adapt, Settings
from clearclip_core import Adaptation, Example, Fit, Label, Vocabulary, adapt, resolve_method

log = logging.getLogger(__name__)

#: Before a step that has failed is tried again, in seconds.
_RETRY_AFTER_S: Final = 600.0


#: Examples, what embeds prompts, and the labels of today -> what was found.
FitExamples = Callable[
    [Sequence[Example], Callable[[Sequence[str]], torch.Tensor], Vocabulary], Fit
]


class Learner:
    """Learns for all projects of a backend.

    Args:
        settings: the method, and what follows corrections where a label config does not say.
        engine: encodes pictures and embeds words.
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
        lessons: where lessons and versions are kept.
        fit: makes examples an adaptation.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        read_image: ReadImage,
        lessons: ExampleStore,
        fit: FitExamples = adapt,
    ) -> None:
        self.settings = settings
        self._engine = engine
        self._read_image = read_image
        self.lessons = lessons
        self._fit = fit
        self.can_learn = can_learn(settings)

    @property
    def width(self) -> int | None:
        """Numbers in a feature of the model; None while it is not loaded."""
        if self._engine.status.state != "ready":
            return None
        segmenter = self._engine.segmenter()
        return int(segmenter.embed(segmenter.model.contrast).shape[-1])  # embedded by the load

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            LearningRefused: the method cannot learn.
        """
        if not self.can_learn:
            raise LearningRefused(
                f"The method {self.settings.method} cannot learn from corrections: its scores "
                "weigh all labels of a window by each other."
            )

    def export(self, project: int, number: int | None = None) -> tuple[Version, bytes]:
        """A version, and itself as a file; the live one where no number is given.

        Raises:
            LearningRefused: there is none.
        """
        number = number or self.lessons.state(project).live
        if number is None:
            raise LearningRefused(
                f"Project {project} uses the words alone: there is nothing to export."
            )
        version, adaptation = self.lessons.version(project, number)
        return version, export(self.settings, version, adaptation, self.lessons.model)

    # ---- annotations -------------------------------------------------------------------------

    def learn(self, corrected: AnnotationDiff) -> None:
        """Take an annotation in; one that was taken in before is replaced.

        A picture that cannot be learned from teaches nothing, and the log says why. One that is
        older than all that count is left aside.

        Raises:
            ImageRefused: a picture is not handed out now; what was taken in before stays.
            ModelUnavailable: the model is not there; likewise.
        """
        if not self.can_learn:
            return  # what other methods have learned of it is theirs
        if adapt_mode(self.settings, corrected.config) == "off":
            self.forget(corrected.annotation)
            return
        if self.lessons.is_too_old(corrected.annotation, corrected.project):
            return
        lessons = [
            lesson
            for picture in corrected.pictures
            if (lesson := self._lesson(corrected, picture)) is not None
        ]
        if self.lessons.replace(corrected.annotation, corrected.project, lessons):
            log.info(
                "Project %d: annotation %d teaches %d pictures",
                corrected.project,
                corrected.annotation,
                len(lessons),
            )

    def forget(self, annotation: int) -> None:
        """Take an annotation out again, if it was taken in: deleted, skipped or emptied."""
        if self.lessons.forget(annotation):
            log.info("Annotation %d teaches nothing any more", annotation)

    def _lesson(self, corrected: AnnotationDiff, picture: ImageDiff) -> TrainingExample | None:
        segmenter = self._engine.segmenter()
        labels = corrected.config.labels_of(picture.tag.name)
        try:
            rgb = self._read_image(_source(picture, corrected.task), corrected.task)
            if rgb.shape[:2] != picture.size_hw:
                raise TaskError(
                    f"its picture is of size {rgb.shape[:2]}, its regions of {picture.size_hw}."
                )
        except ImageRefused:
            raise
        except TaskError as error:
            log.warning("Annotation %d cannot be learned from: %s", corrected.annotation, error)
            return None
        prepared = segmenter.prepare(rgb)
        encoded = self._engine.encode(prepared, labels, Priority.BATCH, corrected.project)
        names = [label.name for label in labels]
        example = Example.of(encoded.features, picture.final, known=names, picture=prepared.digest)
        decided = segmenter.decide(encoded.scores, image=rgb, refine=self.settings.refine)
        paints = measure(decided, picture.final, example.picture_key)
        shown = {name: paint.to_json() for name, paint in sorted(paints.items())}
        return TrainingExample(example.digest, example.to_bytes(), json.dumps(shown))

    # ---- steps -------------------------------------------------------------------------------

    def take_due_step(self, config_of: Callable[[int], LabelConfig]) -> bool:
        """Make a step of some project where one is due and the model is there; whether so.

        Args:
            config_of: the label config that a project has now.

        Raises:
            BackendError: it has failed, and is tried again later.
        """
        if not self.can_learn or self._engine.status.state != "ready":
            return False
        turn = self.lessons.take_step(self.settings.adapt_every)
        if turn is None:
            return False
        self._make(turn, config_of)
        return True

    def step(self, project: int, config_of: Callable[[int], LabelConfig]) -> Version | None:
        """Make a step of a project now; what came of it, None where nothing did.

        Args:
            project: its id.
            config_of: see `take_due_step`.

        Raises:
            LearningRefused: it is pinned, has no lessons, is not to learn, or another makes a step
                of it.
            BackendError: it has failed, and is tried again later.
        """
        self.check()
        state = self.lessons.state(project)
        self.lessons.check_step(state.pinned, state.pictures, project)
        if adapt_mode(self.settings, config_of(project)) == "off":
            raise LearningRefused(
                f"Project {project} is not to learn: ADAPT, or adapt in its label config, is off."
            )
        turn = self.lessons.take_step(self.settings.adapt_every, project)
        if turn is None:
            raise LearningRefused(f"Another backend makes a step of project {project} just now.")
        return self._make(turn, config_of)

    def _make(self, turn: StepLease, config_of: Callable[[int], LabelConfig]) -> Version | None:
        try:
            with self._leased(turn):
                return self._settle(turn, config_of(turn.project))
        except BackendError as error:
            self.lessons.give_up(turn, str(error), _RETRY_AFTER_S)
            raise
        except BaseException as error:
            self.lessons.give_up(turn, f"Unexpected {type(error).__name__}.", _RETRY_AFTER_S)
            raise

    def _settle(self, turn: StepLease, config: LabelConfig) -> Version | None:
        mode = adapt_mode(self.settings, config)
        lessons = self.lessons.lessons(turn.project)
        if mode == "off" or not lessons:
            return self.lessons.settle(turn, None, None, "stays" if mode == "off" else "words")
        words = self._words(config.labels)
        examples = [Example.from_bytes(lesson.example, words.width) for lesson in lessons]
        fit = self._fit(examples, words.embed, words.vocabulary)
        better = fit.adaptation is not None and fit.adapted_iou >= fit.text_iou
        adaptation = fit.adaptation if better else None
        made = self._version(lessons, examples, fit, adaptation, words)
        then = self._next(turn, mode, made, lessons, examples, words)
        kept = self.lessons.settle(turn, made, adaptation, then)
        if kept is not None:
            log.info("Project %d: %s", turn.project, describe_version(kept, then))
        return kept

    def _words(self, labels: tuple[Label, ...]) -> _Words:
        """The labels of today with their contrast words, all of them embedded already."""
        self._engine.embed(labels)
        segmenter = self._engine.segmenter()
        vocabulary = segmenter.vocabulary(labels, contrast=True)
        return _Words(segmenter.embed, vocabulary)

    def _version(
        self,
        lessons: Sequence[TrainingExample],
        examples: Sequence[Example],
        fit: Fit,
        adaptation: Adaptation | None,
        words: _Words,
    ) -> Version:
        names = {label.name for label in words.vocabulary.labels}
        thresholds = _only(
            names, best_thresholds(add_up(paints_of(lesson.paint) for lesson in lessons))
        )
        adapted = {}
        if adaptation is not None:
            adapted = _only(names, best_thresholds(words.measure(examples, adaptation)))
        digest = hashlib.sha256()
        digest.update(adaptation.digest.encode() if adaptation is not None else b"")
        digest.update(json.dumps([thresholds, adapted], sort_keys=True).encode())
        return Version(
            annotations=len({lesson.annotation for lesson in lessons}),
            pictures=fit.pictures,
            digest=digest.hexdigest(),
            better=adaptation is not None,
            text_iou=fit.text_iou,
            adapted_iou=fit.adapted_iou,
            text_ious=dict(fit.text_ious),
            adapted_ious=dict(fit.adapted_ious),
            thresholds=thresholds,
            adapted_thresholds=adapted,
        )

    def _next(
        self,
        turn: StepLease,
        mode: Adapt,
        made: Version,
        lessons: Sequence[TrainingExample],
        examples: Sequence[Example],
        words: _Words,
    ) -> Promotion:
        """What becomes of a version, see `backend.feedback.learning.versions.Promotion`.

        One that is not better leaves what is live, if that is at least as good as the words on
        pictures that were corrected since and not before. One from a file leaves only to what is
        better than it.
        """
        if mode == "thresholds":
            return "live"
        now, scores = self.lessons.version(turn.project, turn.live) if turn.live else (None, None)
        if now is None or scores is None:
            return "live" if made.better or mode == "all" else "words"
        if made.better:
            if now.origin == "import" and words.iou(examples, scores) > (made.adapted_iou or 0):
                return "stays"
            return "live"
        seen = {
            example.picture_key
            for lesson, example in zip(lessons, examples, strict=True)
            if lesson.learned <= now.created and now.origin == "step"
        }
        unseen = [example for example in examples if example.picture_key not in seen]
        if unseen and words.iou(unseen, scores) >= words.iou(unseen, None):
            return "stays"
        return "live" if mode == "all" else "words"

    @contextmanager
    def _leased(self, turn: StepLease) -> Iterator[None]:
        """Keep the lease beside the work."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(LEASE_S / 3):
                self.lessons.renew(turn)

        keeper = threading.Thread(target=keep, name=f"step-{turn.project}", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()


class _Words:
    """The labels of today, and what embeds their prompts."""

    def __init__(
        self, embed: Callable[[Sequence[str]], torch.Tensor], vocabulary: Vocabulary
    ) -> None:
        self.embed = embed
        self.vocabulary = vocabulary
        self._embeddings = embed(vocabulary.queries).to("cpu", torch.float32)

    @property
    def width(self) -> int:
        """Numbers in a feature."""
        return int(self._embeddings.shape[-1])

    def measure(
        self, examples: Sequence[Example], adaptation: Adaptation | None
    ) -> dict[str, ThresholdCounts]:
        """How right labels are on the patches of examples."""
        embeddings, bias = self._embeddings, torch.zeros(len(self._embeddings))
        if adaptation is not None:
            embeddings, bias = adaptation.apply(embeddings, self.vocabulary)
        return add_up(
            measure_patches(example, embeddings, bias, self.vocabulary) for example in examples
        )

    def iou(self, examples: Sequence[Example], adaptation: Adaptation | None) -> float:
        """Mean IoU of the labels that are to be found on the patches of examples."""
        ious = [
            paint.right.sum() / (paint.true_px + paint.wrong.sum())
            for paint in self.measure(examples, adaptation).values()
            if paint.true_px
        ]
        return float(sum(ious)) / len(ious) if ious else 0.0


def can_learn(settings: Settings) -> bool:
    """Whether the method's scores can follow corrections: not where all classes weigh each other.

    >>> can_learn(Settings(method="clearclip")), can_learn(Settings(method="clipsurgery"))
    (True, False)
    """
    return not resolve_method(settings.method).remove_redundancy


def model_key(settings: Settings, model_id: str) -> str:
    """What features are known by: weights, method, and the size that pictures are resized to.

    >>> one, other = (model_key(Settings(method=m), "w1") for m in ("clearclip", "clip"))
    >>> one == other, one == model_key(Settings(method="clearclip"), "w1")
    (False, True)
    """
    parts = [model_id, settings.method, settings.short_side_px]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def paints_of(paint: str) -> dict[str, ThresholdCounts]:
    """How right the words alone were on the picture of a lesson, by label; see `TrainingExample.paint`."""
    return {name: ThresholdCounts.from_json(value) for name, value in json.loads(paint).items()}


def describe_version(version: Version, then: Promotion | None = None) -> str:
    """A version in words."""
    compared = ""
    if version.text_iou is not None and version.adapted_iou is not None:
        compared = (
            f", IoU on held-out corrections {100 * version.adapted_iou:.1f} % "
            f"(words alone {100 * version.text_iou:.1f} %)"
        )
    better = "" if version.better else ", not better than the words alone"
    went = {"live": "; it is live", "stays": "; what was live stays", "words": "", None: ""}[then]
    return f"version {version.number} of {version.annotations} annotations{compared}{better}{went}"


def _only(names: set[str], values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name in names}


def _source(picture: ImageDiff, task: Task) -> str:
    """The address of a picture.

    Raises:
        TaskError: the task does not have it any more.
    """
    sources = picture.tag.sources(task.data)
    index = picture.item_index or 0
    if not 0 <= index < len(sources):
        raise TaskError(f"its task has no picture {index} any more.")
    return sources[index]
