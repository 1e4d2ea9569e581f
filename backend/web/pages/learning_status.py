"""Describe what a project has learned: for its routes, its page and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from backend.errors import ModelUnavailable
from backend.feedback.learning.learner import Learner
from backend.feedback.learning.thresholds import ThresholdCounts, counts_from_json
from backend.feedback.learning.trials import TrialPicture
from backend.feedback.learning.versions import LearningState, Version, due_after
from backend.settings import Settings

Json = dict[str, Any]

#: Projects of which the parsed threshold counts are kept in memory; each takes about 0.2 MB.
_MAX_PARSED: Final = 8


def describe_learning(
    settings: Settings,
    learner: Learner,
    project: int,
    tasks: Callable[[Iterable[int]], Mapping[int, int]] | None = None,
) -> Json:
    """Describe a project's learning state, its versions, and the thresholds of its corrections.

    Where the model is unavailable, the description has a ``trouble`` and neither versions nor
    labels.

    Args:
        settings: what is served.
        learner: the learner, with its training examples and versions.
        project: number of the project.
        tasks: annotations -> the task of each that is known; None: tasks are not described.
    """
    described: Json = {
        "project": project,
        "adapt": settings.adapt,
        "every": settings.adapt_every,
        "can_learn": learner.can_learn,
        "has_key": settings.label_studio_api_key is not None,
        "versions": [],
        "labels": {},
    }
    try:
        state = learner.registry.state(project)
        versions = learner.registry.versions(project)
        counts = _parsed(learner.examples.threshold_sums(project))
        trial = _describe_trial(learner, project)
    except ModelUnavailable as error:
        return described | LearningState(project, trouble=str(error)).to_json()
    described["every"] = due_after(settings.adapt_every, state.annotations)
    return described | {
        **state.to_json(),
        "versions": [v.to_json() | {"live": v.number == state.live} for v in versions],
        "labels": {label: _describe_threshold(each) for label, each in counts.items()},
        **trial,
        **({} if tasks is None else _describe_tasks(tasks, versions, trial.get("trusted", ()))),
    }


def _describe_tasks(
    tasks: Callable[[Iterable[int]], Mapping[int, int]],
    versions: Iterable[Version],
    trusted: Iterable[int],
) -> Json:
    """Name the tasks of annotations that are set aside or trusted; empty where there are none."""
    named = {each.annotation for version in versions for each in version.set_aside} | {*trusted}
    return {"tasks": dict(tasks(named))} if named else {}


def _describe_trial(learner: Learner, project: int) -> Json:
    """Describe what the live version did since, what was rolled back, and whom people trust.

    Each key is there only where there is something to say.
    """
    rollbacks = [each.to_json() for _, each in learner.trials.rollbacks(project)]
    said = {
        "trial": summarize_trial(learner.trials.pictures(project)),
        "rollbacks": rollbacks,
        "trusted": learner.examples.trusted(project),
    }
    return {key: value for key, value in said.items() if value}


def summarize_trial(pictures: Sequence[TrialPicture]) -> Json | None:
    """Return how the newest version on trial compares, in mean IoU; None without a picture."""
    if not pictures:
        return None
    number = pictures[-1].number
    own = [each for each in pictures if each.number == number]
    before = [each.from_before for each in own if each.from_before is not None]
    return {
        "number": number,
        "pictures": len(own),
        "from_words": sum(each.from_words for each in own) / len(own),
        "from_before": sum(before) / len(before) if before else None,
    }


def _describe_threshold(counts: ThresholdCounts) -> Json:
    best = counts.best
    return {
        "pictures": counts.pictures,
        "threshold": best,
        "saved": counts.saved(0.0),
        "saved_with_threshold": None if best is None else counts.saved(best),
    }


@lru_cache(maxsize=_MAX_PARSED)
def _parsed(sums: str) -> Mapping[str, ThresholdCounts]:
    """Parse the sums of a project, for reading alone: mostly they are as at the last look."""
    return counts_from_json(sums)
