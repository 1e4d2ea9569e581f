"""The rule that decides on the next step of a project."""

from typing import Any

import pytest

from backend.views.next_step import Facts, Step, TaskCounts, next_step


def facts(left: int, waiting: int, older: int = 0, *, failed: int = 0, **more: Any) -> Facts:
    """Facts of a project of 15 tasks whose words are checked."""
    counts = TaskCounts(15, left, waiting, older, failed=failed)
    return Facts(**{"counts": counts, "words_checked": True, "corrected": 15 - left, **more})


#: Situation -> its facts, and the next step.
TABLE: dict[str, tuple[Facts, Step]] = {
    "new, words never checked": (facts(15, 15, words_checked=False), "words"),
    "new, words checked": (facts(15, 15), "prelabel"),
    "a job predicts": (facts(15, 12, predicting=True), "correct"),
    "3 of 15 pictures cannot be read": (facts(15, 3, failed=3), "correct"),
    "only those 3 are left": (facts(3, 3, failed=3), "look"),
    "the storage was away: all have failed": (facts(15, 15, failed=15), "look"),
    "they are tried again": (facts(15, 15, failed=15, predicting=True), "correct"),
    "tasks came since": (facts(15, 5, failed=3), "prelabel"),
    "a new version, older masks left": (facts(15, 15, 15), "prelabel"),
    "the same, words never checked": (facts(15, 15, 15, words_checked=False), "prelabel"),
    "some older, some new, words never checked": (facts(9, 9, 5, words_checked=False), "words"),
    "nothing left to predict, words never checked": (facts(4, 0, words_checked=False), "correct"),
    "older masks left, their version is made again": (
        facts(15, 15, 15, made_again=True),
        "correct",
    ),
    "all corrected, words never checked": (facts(0, 0, words_checked=False), "export"),
    "all corrected": (facts(0, 0), "export"),
    "all corrected and exported": (facts(0, 0, corrected=0), ""),
    "a version waits while tasks are left": (facts(9, 9, 9, version_waits=True), "learn"),
    "a version waits, all corrected": (facts(0, 0, version_waits=True), "learn"),
    "Label Studio has never answered": (Facts(words_checked=True), ""),
    "no task yet": (Facts(counts=TaskCounts(0, 0, 0, 0)), ""),
}


@pytest.mark.parametrize("situation", TABLE)
def test_the_next_step(situation: str) -> None:
    known, step = TABLE[situation]
    assert next_step(known) == step
