"""Watches the version that is live: what is corrected since says whether it is worse.

A corrected picture counts where the annotation began with a prediction of that very version, or
with none. An annotation keeps much of the prediction that it began with; one that began with a
prediction of an earlier version would speak for that one. As it is, what annotators leave unseen
speaks for the version that is live, and can only delay its rollback. What they kept counts as true.

Pictures that the version was fitted to do not count, and none counts twice; nor does a picture that
is nearly the same as one that counted shortly before, such as the next frame of a video.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backend.errors import LearningRefused
from backend.feedback.comparison import AnnotationDiff
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.trial_store import TrialStore
from backend.feedback.learning.trials import Trial, TrialPicture
from backend.feedback.learning.version_fitter import FittedVersion, FitTo, LabelEmbeddings
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.versions import TrainingExample, Version
from backend.inference.engine import Engine
from backend.label_studio.label_config import score_options
from backend.settings import Settings
from clearclip_core import Adaptation, Example
from clearclip_core.adaptation.similarity import cluster
from clearclip_core.quantities import quantity

log = logging.getLogger(__name__)

#: Pictures of a trial, the last ones, among which near-duplicates are looked for.
_LATELY: Final = 50

#: Of a version that is not known to have been fitted to a picture.
_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, eq=False)
class VersionWatch:
    """Compares the live version with what was live before it, and rolls it back.

    Args:
        settings: what counts in scores beside the words.
        registry: the versions.
        trials: what they did after they went live.
        examples: the training examples.
        engine: embeds labels.
    """

    settings: Settings
    registry: VersionRegistry
    trials: TrialStore
    examples: ExampleStore
    engine: Engine

    def observe(self, diff: AnnotationDiff, examples: Sequence[TrainingExample]) -> None:
        """Compare the live version on the pictures of an annotation.

        Args:
            diff: the annotation.
            examples: its training examples.
        """
        try:
            self._observe(diff, examples)
        except (LearningRefused, ValueError) as error:  # deleted, or written by another release
            log.warning("Project %d: its live version is not compared: %s", diff.project, error)

    def objection(
        self, project: int, fitted: FittedVersion, live: Adaptation | None, fit_to: FitTo
    ) -> str:
        """Say what speaks against making a version live after a rollback; empty where nothing does.

        The pictures that convicted the version that was rolled back are held out: what all others
        teach must not be worse on them than what is live.

        Args:
            project: its id.
            fitted: the new version.
            live: the adaptation that is live; None: the words alone.
            fit_to: fits an adaptation to examples.
        """
        found = self.trials.rollbacks(project, limit=1)
        if not found or fitted.adaptation is None:
            return ""
        (_, last), *_ = found
        if fitted.adaptation.digest == last.digest:
            return f"It adds to scores what version {last.number} did, which was rolled back."
        held_out, others = fitted.split(last.annotations)
        if not held_out or not others:
            return ""
        adaptation = fit_to(others)
        if adaptation is None:
            return ""
        known = []
        for each in held_out:
            made, kept = (_mean_iou(fitted.labels, each, one) for one in (adaptation, live))
            if made is not None and kept is not None:
                known.append(made - kept)
        if sum(known) >= 0:
            return ""
        return (
            f"On the {quantity(len(known), 'picture')} for which version {last.number} was rolled "
            f"back, what the other corrections teach is still "
            f"{-100 * sum(known) / len(known):.1f} points of mean IoU worse."
        )

    def _observe(self, diff: AnnotationDiff, examples: Sequence[TrainingExample]) -> None:
        trial = self.trials.current(diff.project)
        if trial is None or not examples:
            return
        version, adaptation = self.registry.version(diff.project, trial.number)
        fitted = self._fitted_pictures(diff.project, version)
        if adaptation is None or fitted is None or not _began_with(diff, version):
            return
        before = None
        if trial.before is not None:
            before = self.registry.version(diff.project, trial.before)[1]
        presence = score_options(self.settings, diff.config).presence
        labels = LabelEmbeddings.of(self.engine, diff.config.labels, presence)
        read = (labels.read(each.example) for each in examples)
        new = [each for each in read if each.picture_key not in fitted]
        new = self._without_near_duplicates(diff, trial, new)
        pictures = [
            picture
            for each in new
            if (picture := _compare(trial, diff.annotation, labels, each, adaptation, before))
        ]
        if pictures:
            rolled_back = self.trials.add(diff.project, pictures, adaptation.digest)
            if rolled_back is not None:
                log.warning("Project %d: %s", diff.project, rolled_back.sentence)

    def _without_near_duplicates(
        self, diff: AnnotationDiff, trial: Trial, examples: Sequence[Example]
    ) -> list[Example]:
        """Leave out examples of pictures nearly the same as one that counted lately, or before."""
        pictures = self.trials.pictures(diff.project)
        lately = {each.annotation for each in pictures[-_LATELY:] if each.number == trial.number}
        stored = self.examples.bytes_of(diff.project, lately - {diff.annotation})
        counted = [Example.from_bytes(each) for each in stored]
        numbers = cluster([*counted, *examples]).tolist()
        known = set(numbers[: len(counted)])
        kept = []
        for number, example in zip(numbers[len(counted) :], examples, strict=True):
            if number not in known:
                kept.append(example)
                known.add(number)
        return kept

    def _fitted_pictures(self, project: int, version: Version) -> frozenset[str] | None:
        """Return the keys of the pictures that a version was fitted to; None: nobody knows."""
        if version.origin == "import":
            return _NONE
        return self.trials.fitted_pictures(project, version.number)


def _began_with(diff: AnnotationDiff, version: Version) -> bool:
    """Whether an annotation began with no prediction, or with one of a version.

    A ``model_version`` ends with the number of annotations that its version has learned from, see
    `backend.prediction.model_version`.
    """
    return diff.began_with == "" or (diff.began_with or "").endswith(f" +{version.annotations}")


def _compare(
    trial: Trial,
    annotation: int,
    labels: LabelEmbeddings,
    example: Example,
    adaptation: Adaptation,
    before: Adaptation | None,
) -> TrialPicture | None:
    """Compare a version on a picture; None where no label was drawn or kept on it."""
    own, words = (_mean_iou(labels, example, each) for each in (adaptation, None))
    if own is None or words is None:
        return None
    earlier = None if trial.before is None else _mean_iou(labels, example, before)
    from_before = None if earlier is None else own - earlier
    return TrialPicture(trial.number, example.picture_key, annotation, from_before, own - words)


def _mean_iou(
    labels: LabelEmbeddings, example: Example, adaptation: Adaptation | None
) -> float | None:
    """Return the mean IoU of an adaptation on an example; None where it shows no label.

    An adaptation that is None stands for the words alone.
    """
    ious = labels.ious([example], adaptation).values()
    return sum(ious) / len(ious) if ious else None
