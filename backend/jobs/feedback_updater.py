"""Read annotations that have changed, and make new versions of what they teach."""

from __future__ import annotations

from collections.abc import Callable

from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.learning.learner import Learner
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config


class FeedbackUpdater:
    """Keeps up with annotators.

    Args:
        annotations: the annotations that have changed.
        reader: reads them.
        learner: makes versions of what they teach.
        client: Label Studio.
        is_stopping: whether reading is to end soon.
    """

    def __init__(
        self,
        annotations: AnnotationStore,
        reader: AnnotationReader,
        learner: Learner,
        client: LabelStudioClient,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._annotations = annotations
        self._reader = reader
        self._learner = learner
        self._client = client
        self._is_stopping = is_stopping

    def read_annotations(self) -> bool:
        """Read some annotations that have changed; return whether there were any."""
        return self._reader.read_some(pause=self._is_to_pause) > 0

    def make_version(self) -> bool:
        """Make a new version for a project where one is due; return whether one was."""
        return self._learner.take_due_step(self._label_config)

    def _is_to_pause(self) -> bool:
        return self._annotations.in_burst or self._is_stopping()

    def _label_config(self, project: int) -> LabelConfig:
        self._reader.mark_gone(project, self._learner.examples.annotations(project))
        return parse_label_config(self._client.label_config(project))
