"""A project at a glance: its least and most certain masks, and what it has learned, as pictures."""

from __future__ import annotations

from itertools import chain, islice
from typing import Final

from msgspec import Struct

from backend.errors import ModelUnavailable
from backend.learning.compared_images import ComparedImage
from backend.learning.versions import VersionStore
from backend.projects.scores import ScoreStore

#: Pictures of each end of the scores, and of what a version changes.
_SHOWN: Final = 3


class GlancedTask(Struct, frozen=True):
    """A task whose picture is shown with its masks."""

    task: int
    caption: str


def glance(
    scores: ScoreStore, project: int, version: str, *, by_confidence: bool
) -> tuple[GlancedTask, ...]:
    """Choose the tasks with the least and the most certain masks that nobody has annotated.

    Args:
        scores: of the project's predictions.
        project: its number.
        version: the model version in use; predictions of others are left out.
        by_confidence: whether a high score is that of a certain prediction.

    Returns:
        Up to six tasks, the least certain first.
    """
    least = _first(scores, project, version, highest_first=not by_confidence)
    most = _first(scores, project, version, highest_first=by_confidence)
    shown = [GlancedTask(task, "among the least certain") for task in least]
    certain = [GlancedTask(task, "among the most certain") for task in most if task not in least]
    return (*shown, *reversed(certain))


def _first(scores: ScoreStore, project: int, version: str, *, highest_first: bool) -> list[int]:
    ordered = scores.in_order(project, version, highest_first=highest_first)
    own = (each.task for each in chain.from_iterable(ordered) if each.version == version)
    return list(islice(own, _SHOWN))


class LearnedChanges(Struct, frozen=True):
    """What learning has changed, in the pictures with the most changes; without any: nothing."""

    heading: str = ""
    sentence: str = ""  # what the pictures show
    pictures: tuple[ComparedImage, ...] = ()
    version: int = 0

    @classmethod
    def read(cls, versions: VersionStore, project: int) -> LearnedChanges:
        """Read what the version that waits for somebody changes, else the one in use.

        Args:
            versions: of all projects.
            project: id of the project.
        """
        try:
            state = versions.state(project)
            number = state.waits or state.live
            if not number:
                return cls()
            compared = versions.before_after(project, number).pictures
        except ModelUnavailable:
            return cls()

        drawn = tuple(each for each in compared if each.changes)[:_SHOWN]
        if not drawn:
            return cls()
        verb = "would change" if state.waits else "has changed"
        return cls(f"What version {number} {verb}", _colours_sentence(drawn[0]), drawn, number)


def _colours_sentence(picture: ComparedImage) -> str:
    """Say what the colours of pictures of changes are, where each has those of `picture`.

    >>> _colours_sentence(ComparedImage(1, "", "", "", gained=0.1, lost=0.0))
    'Green: right by the version alone. Red: right by the words alone.'
    """
    if picture.gained is None:
        return "In colour: the new label of what changes; red where one is taken away."
    return "Green: right by the version alone. Red: right by the words alone."
