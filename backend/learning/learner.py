"""Learn from corrections: keep examples of annotations, and make versions from them.

An annotation gives a training example for each of its images. A step fits a version to all examples
of a project; before there is one, it may learn from images that nobody has corrected. A version
that passes the gate on held-out images goes live, and otherwise the words alone decide. All of this
waits for the model: it is for a background thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import msgspec
import torch

from backend.database.leases import NO_TASK
from backend.errors import (
    BackendError,
    LearningRefused,
    ModelUnavailable,
    StudioRefused,
    StudioUnreachable,
)
from backend.feedback.annotation_reader import annotator_key
from backend.feedback.comparison import AnnotationDiff
from backend.inference.engine import Engine
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage, telling
from backend.label_studio.label_config import LabelConfig
from backend.learning.compared_images import (
    BeforeAfter,
    ImageComparer,
    PropagationTrial,
    propagated,
)
from backend.learning.examples import (
    ExampleStore,
    TrainingExample,
    build_examples,
    read_examples,
)
from backend.learning.unlabelled import UnlabelledImages, fit_words
from backend.learning.versions import LearningState, Person, StepLease, Version, VersionStore
from backend.settings import Adapt, Settings
from clearclip_core import (
    Example,
    Fit,
    HeldOutAdaptations,
    Method,
    Vocabulary,
    adapt,
    judge_adaptation,
)

log = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """What was learned, and the corrections that it was learned from."""

    fit: Fit
    used: list[tuple[int, Example]]  # the examples, each with the id of its annotation
    embed: Callable[[Sequence[str]], torch.Tensor]  # prompts -> (N, D) unit embeddings
    vocabulary: Vocabulary


@dataclass(eq=False)
class Learner:
    """Learns for all projects of a backend."""

    settings: Settings
    engine: Engine
    read_image: ReadImage
    examples: ExampleStore
    versions: VersionStore
    fit_examples: Callable[..., Fit] = adapt
    #: Project, annotations -> has them read again.
    mark: Callable[[int, Iterable[int]], None] = lambda _project, _annotations: None
    _has_read_again: bool = field(default=False, init=False)

    @property
    def can_learn(self) -> bool:
        """Whether the method's scores can follow corrections: classes must not weigh each other."""
        return not Method.of(self.settings.method).remove_redundancy

    def check(self) -> None:
        """Refuse a method that cannot learn.

        Raises:
            LearningRefused: it cannot.
        """
        if not self.can_learn:
            raise LearningRefused(
                f"The method {self.settings.method} cannot learn from corrections: its scores "
                "weigh all labels of a window by each other."
            )

    def use(self, project: int, number: int) -> LearningState:
        """Make a version live, see `VersionStore.use`.

        It is pinned, unless it is the one that waits for somebody, or somebody decides at each. A
        choice about a version from unlabelled pictures never is: corrections may do better.
        """
        state = self.versions.state(project)
        mode, about = state.adapt or self.settings.adapt, number or state.waits
        is_first = about and self.versions.version(project, about)[0].unlabelled
        is_open = is_first or (number and number == state.waits)
        return self.versions.use(project, number, pin=not is_open and mode != "ask")

    def made_again(self) -> set[int]:
        """Return the projects whose version is being made again, for another model than before.

        Until it is there, what is predicted anew is worse than the masks that they have.
        """
        with suppress(ModelUnavailable):
            return self.versions.made_again() if self.can_learn else set()
        return set()

    # ---- annotations -------------------------------------------------------------------------

    def learn(self, diff: AnnotationDiff) -> None:
        """Keep the training examples of an annotation in place of those that it gave before.

        One that is older than all that count is left aside.

        Raises:
            ImageRefused: the storage does not hand out an image now; earlier examples stay.
            ModelUnavailable: the model is not there; earlier examples stay.
        """
        if not self.can_learn:
            return  # examples of other methods stay
        if diff.config.adapt == "off":
            self.forget(diff.annotation)
            return
        if self.examples.is_too_old(diff.annotation, diff.project):
            return
        examples = build_examples(self.engine, self.read_image, diff)
        if self.examples.replace(diff.annotation, diff.project, examples):
            log.info(
                "Project %d: annotation %d gives %d training examples",
                diff.project,
                diff.annotation,
                len(examples),
            )

    def forget(self, annotation: int) -> None:
        """Delete the training examples of an annotation that is deleted, skipped or emptied."""
        if self.examples.forget(annotation):
            log.info("The training examples of annotation %d are deleted", annotation)

    # ---- steps -------------------------------------------------------------------------------

    def take_due_step(self, client: LabelStudioClient) -> bool:
        """Make a step of some project; return False where no step is due or the model is away.

        Raises:
            BackendError: the step has failed, and is tried again later.
        """
        if not self.can_learn or self.engine.status.state != "ready":
            return False
        if not self._has_read_again and self._read_again():
            return True  # annotations first
        lease = self.versions.lease_step(self.settings.adapt_every)
        if lease is not None:
            self._make_step(lease, client)
        return lease is not None

    def step(self, project: int, client: LabelStudioClient) -> Version | None:
        """Make a step of a project now; return its version, or None where no version is kept.

        Raises:
            LearningRefused: the project is pinned or has no training examples, the method cannot
                learn, or another backend makes its step.
            BackendError: the step has failed, and is tried again later.
        """
        self.check()
        self.versions.request_step(project)
        lease = self.versions.lease_step(self.settings.adapt_every, project)
        if lease is None:
            raise LearningRefused(f"Another backend makes a step of project {project} just now.")
        return self._make_step(lease, client)

    def _read_again(self) -> bool:
        """Learn again what other models and methods have learned, once after each start."""
        found, seen = self.examples.of_other_models(), self.versions.only_other_models_have_seen()
        for project, ids in found.items():
            log.info("Project %d: %d annotations are read for this model", project, len(ids))
            self.mark(project, ids)
        for project in {*found, *seen}:
            unlabelled = project not in found
            self.versions.request_step(project, may_have_none=True, unlabelled=unlabelled)
        self._has_read_again = True
        return bool(found)

    def _make_step(self, lease: StepLease, client: LabelStudioClient) -> Version | None:
        read_image = telling(self.read_image, partial(self.versions.begin, lease))
        try:
            with self.versions.leases.kept():
                return replace(self, read_image=read_image)._fit_and_commit(lease, client)
        except BaseException as error:
            is_known = isinstance(error, BackendError)
            trouble = str(error) if is_known else f"Unexpected {type(error).__name__}."
            self.versions.release(lease, trouble)
            raise

    def _fit_and_commit(self, lease: StepLease, client: LabelStudioClient) -> Version | None:
        project = lease.project
        config = client.config(project)
        mode, stored = config.adapt, self.examples.examples(project)
        if mode == "off" or not (stored or lease.unlabelled):
            return self.versions.commit(lease, None, None, mode)
        if not stored:
            return self._learn_unlabelled(lease, client, config, mode)

        fitted = self.fit(lease, config, stored)
        fit, used = fitted.fit, fitted.used
        fit, trial = self._choose_propagation(
            fit, self._comparer(client, project, config, fit.held_out), used
        )
        pictures = self._comparer(client, project, config, fit.held_out).compare(used)

        people = _name_people(fit, client)
        version = version_of(fit, len({annotation for annotation, _ in used}), people, trial)
        version = self._judge_unlabelled(version, lease, fitted)
        kept = self.versions.commit(lease, version, fit.adaptation, mode, pictures)
        if kept is not None:
            log.info("Project %d: version %d, passed: %s", project, kept.number, kept.better)
        return kept

    def _judge_unlabelled(self, version: Version, lease: StepLease, fitted: Fitted) -> Version:
        """Say in a version how corrections judge the live one, if that knew none."""
        if not lease.live:
            return version
        live, adaptation = self.versions.version(lease.project, lease.live)
        if live is None or not live.unlabelled or adaptation is None:
            return version

        examples = [example for _, example in fitted.used]
        judged = judge_adaptation(adaptation, examples, fitted.embed, fitted.vocabulary)
        return msgspec.structs.replace(
            version,
            unlabelled_gain=judged.gain,
            unlabelled_lost=judged.has_lost,
            unlabelled_losing=judged.losing,
        )

    def fit(self, lease: StepLease, config: LabelConfig, stored: list[TrainingExample]) -> Fitted:
        """Fit what all corrections of a project teach; waits for the model.

        Args:
            lease: says which labels keep their words, and who is left out.
            config: the labels of today.
            stored: all examples of the project; empty afterwards, see `read_examples`.
        """
        annotations = [each.annotation for each in stored]
        read, embed, vocabulary = read_examples(stored, self.engine, config)
        pairs = zip(annotations, read, strict=True)
        used = [pair for pair in pairs if pair[1].annotator not in lease.left_out]
        fit = self.fit_examples(
            [example for _, example in used],
            embed,
            vocabulary,
            label_loss=self.settings.adapt_label_loss / 100,
            as_words=lease.as_words,
        )
        return Fitted(fit, used, embed, vocabulary)

    def _choose_propagation(
        self, fit: Fit, comparer: ImageComparer, used: list[tuple[int, Example]]
    ) -> tuple[Fit, PropagationTrial | None]:
        """Let a version propagate its scores where held-out pictures gain by it.

        Args:
            fit: what was learned.
            comparer: of the held-out adaptations.
            used: the examples, each with the id of its annotation.

        Returns:
            The fit, propagated or not, and what was found; None where nothing was tried.
        """
        if fit.adaptation is None or self.settings.propagate:  # which is for all scores
            return fit, None
        trial = comparer.try_propagation(used)
        if trial is None or not trial.is_used:
            return fit, trial
        held_out = fit.held_out.propagated()
        return replace(fit, adaptation=propagated(fit.adaptation), held_out=held_out), trial

    def _learn_unlabelled(
        self, lease: StepLease, client: LabelStudioClient, config: LabelConfig, mode: Adapt
    ) -> Version | None:
        """Make a version of pictures that nobody has corrected; somebody has to decide on it."""
        images = UnlabelledImages(self.engine, self.read_image, client, lease.project, config)
        examples = list(images.examples())
        self.versions.begin(lease, NO_TASK)
        fit = fit_words(self.engine, examples, config.labels)
        made = fit.adaptation
        version = Version(
            annotations=0,
            digest="" if made is None else made.digest,
            better=made is not None,
            unlabelled=fit.images,
            areas=dict(fit.areas),
        )
        pictures = BeforeAfter()
        if made is not None:
            held_out = HeldOutAdaptations(others=made)
            pictures = self._comparer(client, lease.project, config, held_out).compare_unlabelled(
                images.images
            )
        return self.versions.commit(lease, version, made, mode, pictures)

    def _comparer(
        self,
        client: LabelStudioClient,
        project: int,
        config: LabelConfig,
        held_out: HeldOutAdaptations,
    ) -> ImageComparer:
        return ImageComparer(
            self.settings, self.engine, self.read_image, client, project, config, held_out
        )


def _name_people(fit: Fit, client: LabelStudioClient) -> tuple[Person, ...]:
    """Name the people of a fit, as Label Studio does."""
    names: dict[str, str] = {}
    if fit.people:
        try:
            names = {annotator_key(user): name for user, name in client.user_names().items()}
        except (StudioRefused, StudioUnreachable) as error:
            log.warning("People are not named: %s", error)
    return tuple(
        Person(
            key=each.annotator,
            name=names.get(each.annotator) or "Somebody whose name Label Studio does not tell",
            reason=each.reason,
            is_left_out=each.is_left_out,
        )
        for each in fit.people
    )


def version_of(
    fit: Fit,
    annotations: int,
    people: tuple[Person, ...] = (),
    trial: PropagationTrial | None = None,
) -> Version:
    """Describe a fit, the number of its annotations, its people, and what was tried with it."""
    return Version(
        annotations=annotations,
        digest="" if fit.adaptation is None else fit.adaptation.digest,
        better=fit.adaptation is not None,
        text_iou=fit.text_iou,
        adapted_iou=fit.adapted_iou,
        text_ious=dict(fit.text_ious),
        adapted_ious=dict(fit.adapted_ious),
        shown=dict(fit.shown),
        labels=fit.labels,
        refused=dict(fit.refused),
        found=dict(fit.found),
        people=people,
        propagation_trial=trial,
    )
