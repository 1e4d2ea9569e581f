"""When a trial asks for a rollback; the sequential test itself is tested in the core."""

from __future__ import annotations

from backend.feedback.learning.trials import Rollback, Trial, TrialPicture, find_rollback

TRIAL = Trial(3, 2, since=10.0)


def pictures(
    count: int, from_before: float | None, from_words: float, number: int = 3, at: float = 10.0
) -> list[TrialPicture]:
    return [
        TrialPicture(number, f"{number}-{at}-{index}", 100 + index, from_before, from_words, at)
        for index in range(count)
    ]


def test_a_version_that_is_worse_than_the_one_before_leaves_to_it() -> None:
    assert find_rollback(TRIAL, pictures(5, -0.3, 0.2), "d") is None
    found = find_rollback(TRIAL, pictures(40, -0.3, 0.2), "d")
    assert found == Rollback(3, 2, 40, found.mean if found else 0, "d", tuple(range(100, 140)))
    assert abs(found.mean + 0.3) < 1e-9
    assert "Version 3 was rolled back to version 2: on 40 pictures" in found.sentence
    assert "30.0 points lower" in found.sentence


def test_versions_that_are_worse_than_the_words_leave_to_these_together() -> None:
    few = [pictures(14, 0.0, -0.2, number, float(number)) for number in (1, 2)]
    now = pictures(14, 0.0, -0.2, 3)
    assert find_rollback(TRIAL, now, "d") is None, "alone, too few"
    found = find_rollback(TRIAL, [*few[0], *few[1], *now], "d")
    assert found is not None
    assert (found.target, found.pictures) == (None, 42)
    assert "rolled back to the words alone" in found.sentence


def test_what_is_no_worse_stays() -> None:
    for from_before, from_words in ((0.0, 0.0), (0.1, 0.1), (0.0, 0.3), (None, 0.1)):
        assert find_rollback(TRIAL, pictures(300, from_before, from_words), "d") is None


def test_what_a_version_did_in_an_earlier_trial_says_nothing_of_the_one_before_now() -> None:
    earlier = pictures(40, -0.3, 0.2, at=5.0)
    assert find_rollback(TRIAL, earlier, "d") is None
    assert find_rollback(Trial(3, None, 10.0), pictures(40, -0.3, 0.2), "d") is None


def test_a_rollback_survives_as_json() -> None:
    rollback = Rollback(3, None, 9, -0.25, "d", (4, 5), 12.0)
    assert Rollback.from_facts(3, None, 12.0, rollback.facts) == rollback
    assert rollback.to_json() | {"reason": ""} == {
        "number": 3,
        "to": 0,
        "at": 12.0,
        "pictures": 9,
        "mean": -0.25,
        "reason": "",
    }
