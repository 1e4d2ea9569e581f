"""Review the annotations of a project: which of them disagree with what the others teach."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from backend.errors import BadRequest, StudioRefused, StudioUnreachable
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.version_fitter import LabelEmbeddings, digests_of
from backend.feedback.learning.version_registry import VersionRegistry
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_errors.annotated_image import AnnotatedImage, list_images
from backend.label_errors.place_pictures import place_pictures
from backend.label_errors.review_report import ReviewReport, Suspicion
from backend.label_errors.review_store import ReviewStore
from backend.label_studio.annotated_pictures import LEAVE_OUT
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.label_maps import AnnotationMap
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from backend.label_studio.score_options import score_options
from backend.label_studio.task_filter import TaskFilter
from backend.project_runs import Advance
from backend.settings import Settings
from clearclip_core import RGBArray, Scores
from clearclip_core.adaptation.held_out import HeldOutAdaptations, fit_held_out
from clearclip_core.label_errors.disagreement import Disagreement, find_disagreements
from clearclip_core.label_errors.ranking import Ranked, rank

log = logging.getLogger(__name__)

#: The share of the annotated images that is listed, and the least and the most of them.
LISTED_SHARE: Final = 0.1
LEAST_LISTED: Final = 10
MOST_LISTED: Final = 60

#: Of so many tasks that were left out a review says why.
MOST_LEFT_OUT: Final = 100


@dataclass(frozen=True, eq=False)
class Reviewer:
    """Reviews annotations; writes nothing to Label Studio, and nothing that is learned from.

    Args:
        client: Label Studio.
        read_image: reads the images of tasks.
        engine: the owner of the model, started.
        settings: how masks are drawn.
        examples: the training examples, which the scores are learned from.
        registry: the learned versions, which say what learning sets aside.
        store: knows what people have confirmed.
    """

    client: LabelStudioClient
    read_image: ReadImage
    engine: Engine
    settings: Settings
    examples: ExampleStore
    registry: VersionRegistry
    store: ReviewStore

    def review(self, project: int, advance: Advance = lambda _done, _all: None) -> ReviewReport:
        """Review all annotations of a project; what people confirmed as it is now is not listed.

        Args:
            project: its id.
            advance: is told of the progress.

        Raises:
            LabelConfigError: the project has nothing that is drawn.
            ModelUnavailable: the model has failed to load, or the engine has stopped.
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer, see `UnreadableTasks`.
            ValueError: no annotated image can be read.
        """
        config = parse_label_config(self.client.label_config(project))
        return _Review(self, project, config, advance).report()


@dataclass(frozen=True, eq=False)
class _Seen:
    """An annotated image, read and scored."""

    rgb: RGBArray
    annotated: AnnotationMap
    scores: Scores
    digest: str


@dataclass(eq=False)
class _Review:
    """One review."""

    reviewer: Reviewer
    project: int
    config: LabelConfig
    advance: Advance
    left_out: dict[int, str] = field(default_factory=dict)
    is_studio_away: bool = False

    def report(self) -> ReviewReport:
        began = time.perf_counter()
        held_out, examples = self._learn()
        # Read now: after hours of work nothing is lost where the database is away for a while.
        aside, confirmed = self._set_aside(), self.reviewer.store.confirmed(self.project)
        client = self.reviewer.client
        total = client.count(self.project, TaskFilter(labeled=True))
        tasks: set[object] = set()
        reviewed: list[AnnotatedImage] = []
        found: list[Sequence[Disagreement]] = []
        digests: list[str] = []
        for image in list_images(client, self.project, self.config, self._leave_out):
            try:
                seen = self._look(image, held_out)
            except LEAVE_OUT as error:
                self._leave_out(image.task, str(error))
                seen = None
            if seen is not None:
                reviewed.append(image.without_regions())
                truth, regions = seen.annotated.truth, seen.annotated.regions
                found.append(find_disagreements(seen.scores, seen.rgb, truth, regions))
                digests.append(seen.digest)
            tasks.add(image.task.id)
            self.advance(len(tasks), total)
        if not reviewed:
            raise ValueError(
                f"No annotation can be reviewed. {next(iter(self.left_out.values()))}"
                if self.left_out
                else "The project has no annotation with a region of a label."
            )
        listed = min(MOST_LISTED, max(LEAST_LISTED, round(LISTED_SHARE * len(reviewed))))
        vocabularies = [
            tuple(label.name for label in self.config.labels_of(image.tag.name))
            for image in reviewed
        ]
        # Annotations of one picture do not vouch for each other, nor do those of copies of it.
        ranked = [
            (image, each)
            for each in rank(found, vocabularies, digests)
            for image in (reviewed[each.index],)
            if confirmed.get(image.annotation.id) != image.annotation.updated
        ]
        suspicions = [
            self._suspicion(image, each, held_out, aside) for image, each in ranked[:listed]
        ]
        seconds = time.perf_counter() - began
        return ReviewReport(
            len(reviewed),
            examples,
            seconds,
            tuple(suspicions),
            dict(islice(self.left_out.items(), MOST_LEFT_OUT)),
            len(self.left_out),
            annotations=len({image.annotation.id for image in reviewed}),
            pictures=len(set(digests)),
        )

    def _learn(self) -> tuple[HeldOutAdaptations, int]:
        """Learn from the training examples, in folds; return how many these are."""
        reviewer = self.reviewer
        stored = reviewer.examples.examples(self.project)
        if not stored:
            return HeldOutAdaptations(), 0
        presence = score_options(reviewer.settings, self.config).presence
        labels = LabelEmbeddings.of(reviewer.engine, self.config.labels, presence)
        trusted = digests_of(stored, reviewer.examples.trusted(self.project))
        examples = [labels.read(each.example) for each in stored]
        return fit_held_out(examples, labels.embed, labels.vocabulary, trusted), len(examples)

    def _set_aside(self) -> set[int]:
        """The annotations that the newest version was not fitted to."""
        versions = self.reviewer.registry.versions(self.project)
        return {each.annotation for each in versions[0].set_aside} if versions else set()

    def _look(self, image: AnnotatedImage, held_out: HeldOutAdaptations) -> _Seen | None:
        """Read an image and score it; None where no region is on it.

        An image that cannot be read raises an error of `LEAVE_OUT`.
        """
        annotated = image.draw()
        if annotated is None:
            return None
        rgb = image.read(self.reviewer.read_image)
        if rgb.shape[:2] != annotated.truth.shape:
            raise ValueError("The regions are of a picture of another size.")
        settings, engine = self.reviewer.settings, self.reviewer.engine
        prepared = engine.segmenter().prepare(rgb)
        scores = engine.encode(
            prepared,
            self.config.labels_of(image.tag.name),
            Priority.BATCH,
            self.project,
            held_out.of(prepared.digest),
            score_options(settings, self.config),
        ).scores
        return _Seen(rgb, annotated, scores, prepared.digest)

    def _leave_out(self, task: Task, reason: str) -> None:
        self.left_out[int(task.id or 0)] = reason

    def _read_again(self, annotation: Annotation) -> Annotation | None:
        """Read an annotation as it is now; None where it is gone, too large, or cannot be had.

        What took hours to find does without its pictures then, and none is waited for again.
        """
        if self.is_studio_away:
            return None
        try:
            return self.reviewer.client.annotation(annotation.id)
        except BadRequest as error:
            log.warning("Annotation %d has no pictures: %s", annotation.id, error)
            return None
        except (StudioRefused, StudioUnreachable) as error:
            log.warning("Project %d: suspicions have no pictures: %s", self.project, error)
            self.is_studio_away = True
            return None

    def _suspicion(
        self, image: AnnotatedImage, ranked: Ranked, held_out: HeldOutAdaptations, aside: set[int]
    ) -> Suspicion:
        """Describe an image, with pictures of it as it is now if its annotation is the same."""
        disagreement = ranked.disagreement
        names = ["", *(label.name for label in self.config.labels_of(image.tag.name))]
        made = Suspicion(
            int(image.task.id or 0),
            image.annotation.id,
            image.annotation.updated,
            image.item_index,
            disagreement.kind,
            names[disagreement.label + 1],
            names[disagreement.other + 1],
            ranked.score,
            image.annotation.id in aside,
        )
        annotation = self._read_again(image.annotation)
        if annotation is None or annotation.updated != image.annotation.updated:
            return made
        try:
            seen = self._look(replace(image, annotation=annotation), held_out)
        except LEAVE_OUT as error:
            log.warning("Annotation %d has no pictures: %s", annotation.id, error)
            return made
        if seen is None:
            return made
        settings = self.reviewer.settings
        shown = self.reviewer.engine.segmenter().decide(
            seen.scores, image=seen.rgb, refine=settings.refine, propagate=settings.propagate
        )
        before, after = place_pictures(
            seen.rgb, seen.annotated.truth, shown.label_map, disagreement.box
        )
        return replace(made, preview=before, suggestion=after)
