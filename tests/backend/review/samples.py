"""Verdicts on predictions of a stand-in for Label Studio."""

from collections.abc import Sequence
from typing import Any

from backend.review.verdicts import Reviewed
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.feedback.test_annotation_reader import OURS, region

MASK = region("a", "red", 4)


def good(studio: FakeStudio, task: int, result: Sequence[Any] = (MASK,)) -> Reviewed:
    """Say that a new prediction is good, one that is not drawn to be checked."""
    while True:
        said = Reviewed(task, studio.add(task, OURS, 1.0, result), "good", 1.5, OURS, 0.5)
        if not said.is_checked:
            return said
