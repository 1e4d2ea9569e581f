"""A project at a glance: the pictures whose masks are least and most certain."""

from __future__ import annotations

from itertools import chain, islice
from typing import Final

from msgspec import Struct

from backend.projects.scores import ScoreStore

#: Pictures of each end.
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
