"""Learns from corrections: keeps examples of annotations, and makes new versions from them.

An annotation gives a training example for each of its images. A step fits a version to all examples
of a project, and makes it live where it is at least as good as the words alone. Both are for a
background thread: they wait for the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from backend.errors import BackendError, LearningRefused
from backend.feedback.comparison import AnnotationDiff
from backend.feedback.learning.example_builder import ExampleBuilder
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.model_key import can_learn
from backend.feedback.learning.project_state import check_step
from backend.feedback.learning.step_queue import StepQueue
from backend.feedback.learning.trial_store import TrialStore
from backend.feedback.learning.version_file import export
from backend.feedback.learning.version_fitter import (
    FitExamples,
    LabelEmbeddings,
    digests_of,
    fit_version,
)
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.version_watch import VersionWatch
from backend.feedback.learning.versions import StepLease, Version, describe_version
from backend.inference.engine import Engine
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig, adapt_mode, score_options
from backend.settings import Settings
from clearclip_core import Adaptation, Example, adapt

log = logging.getLogger(__name__)

#: Before a step that has failed is tried again, in seconds.
_RETRY_AFTER_S: Final = 600.0

#: A project's id -> the label config that it has now.
ConfigOf = Callable[[int], LabelConfig]


class Learner:
    """Learns for all projects of a backend.

    Args:
        settings: the method, and what follows corrections where a label config does not say.
        engine: encodes images and embeds words.
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
        examples: the training examples.
        registry: the versions.
        steps: the steps that are due.
        trials: what versions do after they went live.
        fit_examples: fits an adaptation to examples; None: `clearclip_core.adapt`, by the settings.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        read_image: ReadImage,
        examples: ExampleStore,
        registry: VersionRegistry,
        steps: StepQueue,
        trials: TrialStore,
        fit_examples: FitExamples | None = None,
    ) -> None:
        self.settings = settings
        self.examples = examples
        self.registry = registry
        self.steps = steps
        self.trials = trials
        self.can_learn = can_learn(settings)
        self._engine = engine
        self._watch = VersionWatch(settings, registry, trials, examples, engine)
        self._builder = ExampleBuilder(settings, engine, read_image)
        bound = settings.adapt_label_loss / 100
        self._fit_examples = fit_examples or partial(
            adapt,
            label_loss=bound,
            learn_presence=settings.adapt_presence,
            learn_synonyms=settings.adapt_synonyms,
        )

    @property
    def width(self) -> int | None:
        """Numbers in a feature of the model; None while it is not loaded."""
        if self._engine.status.state != "ready":
            return None
        segmenter = self._engine.segmenter()
        return int(segmenter.embed(segmenter.model.contrast).shape[-1])  # embedded by the load

    def check(self) -> None:
        """Check that the method can learn.

        Raises:
            LearningRefused: it cannot.
        """
        if not self.can_learn:
            raise LearningRefused(
                f"The method {self.settings.method} cannot learn from corrections: its scores "
                "weigh all labels of a window by each other."
            )

    def export(self, project: int, number: int | None = None) -> tuple[Version, bytes]:
        """Return a version, and its file; by default the live version.

        Raises:
            LearningRefused: there is none.
        """
        if number is None:
            version, adaptation = self.registry.live_version(project)
        else:
            version, adaptation = self.registry.version(project, number)
        return version, export(self.settings, version, adaptation, self.registry.model_key)

    # ---- annotations -------------------------------------------------------------------------

    def learn(self, diff: AnnotationDiff) -> None:
        """Keep the training examples of an annotation in place of those that it gave before.

        An annotation that is older than all that count is left aside. Where what it says shows that
        the live version is worse than what was live before, that version is rolled back.

        Raises:
            ImageRefused: the storage does not hand out an image now; earlier examples stay.
            ModelUnavailable: the model is not there; earlier examples stay.
        """
        if not self.can_learn:
            return  # examples of other methods stay
        if adapt_mode(self.settings, diff.config) == "off":
            self.forget(diff.annotation)
            return
        if self.examples.is_too_old(diff.annotation, diff.project):
            return
        examples = self._builder.build(diff)
        if not self.examples.replace(diff.annotation, diff.project, examples):
            return
        teaches = (diff.project, diff.annotation, len(examples))
        log.info("Project %d: annotation %d teaches %d pictures", *teaches)
        if adapt_mode(self.settings, diff.config) != "thresholds":
            self._watch.observe(diff, examples)

    def forget(self, annotation: int) -> None:
        """Delete the training examples of an annotation that is deleted, skipped or emptied."""
        if self.examples.forget(annotation):
            log.info("Annotation %d teaches nothing any more", annotation)

    # ---- steps -------------------------------------------------------------------------------

    def take_due_step(self, config_of: ConfigOf) -> bool:
        """Make a step of some project; return False where none is due or the model is not there.

        Args:
            config_of: returns the label config that a project has now.

        Raises:
            BackendError: the step has failed, and is tried again later.
        """
        if not self.can_learn or self._engine.status.state != "ready":
            return False
        lease = self.steps.lease_step(self.settings.adapt_every)
        if lease is None:
            return False
        self._make_step(lease, config_of)
        return True

    def step(self, project: int, config_of: ConfigOf) -> Version | None:
        """Make a step of a project now; return its version, or None where none is kept.

        Args:
            project: its id.
            config_of: returns the label config that a project has now.

        Raises:
            LearningRefused: the project is pinned, has no training examples or is not to learn, or
                another backend makes a step of it.
            BackendError: the step has failed, and is tried again later.
        """
        self.check()
        state = self.registry.state(project)
        check_step(state.pinned, state.pictures, project)
        if adapt_mode(self.settings, config_of(project)) == "off":
            raise LearningRefused(
                f"Project {project} is not to learn: ADAPT, or adapt in its label config, is off."
            )
        lease = self.steps.lease_step(self.settings.adapt_every, project)
        if lease is None:
            raise LearningRefused(f"Another backend makes a step of project {project} just now.")
        return self._make_step(lease, config_of)

    def _make_step(self, lease: StepLease, config_of: ConfigOf) -> Version | None:
        try:
            with self.steps.renewed(lease):
                return self._fit_and_commit(lease, config_of(lease.project))
        except BackendError as error:
            self.steps.release(lease, str(error), _RETRY_AFTER_S)
            raise
        except BaseException as error:
            self.steps.release(lease, f"Unexpected {type(error).__name__}.", _RETRY_AFTER_S)
            raise

    def _fit_and_commit(self, lease: StepLease, config: LabelConfig) -> Version | None:
        mode, project = adapt_mode(self.settings, config), lease.project
        stored = self.examples.examples(project)
        if mode == "off" or not stored:
            return self.steps.commit(lease, None, None, "stays" if mode == "off" else "words")
        presence = score_options(self.settings, config).presence
        labels = LabelEmbeddings.of(self._engine, config.labels, presence)
        trusted = self.examples.trusted(project)
        fitted = fit_version(stored, labels, self._fit_examples, trusted)
        live = self.registry.version(project, lease.live) if lease.live else (None, None)
        promotion, version = fitted.promotion(mode, *live), fitted.version
        if promotion == "live" and mode != "thresholds":
            digests = digests_of(stored, trusted)

            def fit_to(examples: Sequence[Example]) -> Adaptation | None:
                return labels.fit(examples, self._fit_examples, digests).adaptation

            objection = self._watch.objection(project, fitted, live[1], fit_to)
            if objection:
                promotion, version = "stays", replace(version, objection=objection)
        kept = self.steps.commit(lease, version, fitted.adaptation, promotion, fitted.pictures)
        if kept is not None:
            log.info("Project %d: %s", project, describe_version(kept, promotion))
        return kept
