"""Read annotations that have changed, and make new versions of what they teach."""

from __future__ import annotations

from collections.abc import Callable

from backend.feedback.annotation_reader import AnnotationReader
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.learning.learner import Learner


class FeedbackUpdater:
    """Keeps up with annotators."""

    def __init__(
        self,
        reader: AnnotationReader,
        learner: Learner,
        client: LabelStudioClient,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._learner = learner
        self._client = client
        self._is_stopping = is_stopping

    def read_annotations(self) -> bool:
        """Read some annotations that have changed; return whether there were any."""
        return self._reader.read_some(pause=self._is_stopping) > 0

    def make_version(self) -> bool:
        """Make a new version for a project where one is due; return whether one was.

        All annotations that are due are read first: many at once make one version.
        """
        return not self._reader.has_due() and self._learner.take_due_step(self._label_config)

    def _label_config(self, project: int) -> LabelConfig:
        return parse_label_config(self._client.label_config(project))
