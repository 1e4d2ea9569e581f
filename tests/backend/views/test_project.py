"""A project as a value: what its five steps say, and what they offer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import asdict

from backend.database.database import Database
from backend.jobs.job_store import JobState, JobStore
from backend.views.jobs import JobView
from backend.views.next_step import TaskCounts
from backend.views.project import (
    REMAKING,
    Learned,
    NewestDataset,
    Offer,
    ProjectState,
    Reading,
    StepView,
    WordsCheck,
    step_views,
)
from backend.views.text import Pill, plain

TEN_DAYS_AGO = time.time() - 864_000
TASKS_URL = "https://studio/projects/7/data"


def url_of(page: str, **values: Any) -> str:
    return f"/{page}" + "".join(f"/{value}" for value in values.values())


def steps(**known: Any) -> dict[str, StepView]:
    state = ProjectState(**{"project": 7} | known)
    return {step.name: step for step in step_views(state, url_of, TASKS_URL)}


def told(name: str, **known: Any) -> str:
    step = steps(**known)[name]
    return f"{step.figure} {plain(step.sentence)}".lstrip()


def pill(name: str, **known: Any) -> Pill | None:
    return steps(**known)[name].pill


def job(state: JobState = "queued", **more: Any) -> JobView:
    made = JobStore(Database("sqlite://")).start_job(7)
    over = state in ("done", "failed")
    return JobView(**asdict(made) | {"state": state, "over": over} | more)


def counts(left: int, waiting: int = 0, older: int = 0, **more: int) -> TaskCounts:
    return TaskCounts(15, left, waiting, older, **more)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (None, "not checked yet: does the model know these words?"),
        (WordsCheck(1), "the words of all labels are being checked"),
        (
            WordsCheck(1, TEN_DAYS_AGO, 4, 1, is_old=True),
            "the words were changed since they were checked, 10 d ago",
        ),
        (WordsCheck(1, TEN_DAYS_AGO, 4, 1), "1 of 4 labels may need other words, checked 10 d ago"),
    ],
)
def test_what_is_known_of_the_words(words: WordsCheck | None, sentence: str) -> None:
    assert told("words", words=words) == sentence


def test_weak_words_wait_for_somebody() -> None:
    assert pill("words", words=WordsCheck(1, 1.0, 4, weak=2)) == Pill("weak words", "wait")
    assert pill("words", words=WordsCheck(1, 1.0, 4)) == Pill("checked", "good")


@pytest.mark.parametrize(
    ("known", "offer"),
    [
        ({}, Offer("Prelabel", has_choice=True)),
        ({"has_key": False}, None),
        ({"counts": counts(15, 15)}, Offer("Prelabel")),
        ({"counts": counts(12, 12)}, Offer("Prelabel", has_choice=True)),
        (
            {"counts": counts(15, 1, 1)},
            Offer("Prelabel the 1 that is left with the version in use"),
        ),
        (
            {"counts": counts(15, 4, 4), "learned": Learned(live=2, gain=0.0312)},
            Offer("Prelabel the 4 that are left with version 2 (+3.1)"),
        ),
        ({"counts": counts(15, 3, failed=3)}, Offer("Try the 3 again")),
        ({"counts": counts(0)}, Offer("Prelabel annotated tasks", is_all=True)),
        ({"counts": counts(15)}, None),
        ({"counts": counts(15, 4, 4), "learned": Learned(made_again=True)}, None),
        ({"counts": counts(15, 15), "jobs": (job(),)}, None),
    ],
)
def test_the_job_that_is_offered(known: dict[str, Any], offer: Offer | None) -> None:
    assert steps(**known)["prelabel"].offer == offer


def test_a_job_that_is_open_shows_how_far_it_is() -> None:
    step = steps(jobs=(job(state="running", total=10, done=3, skipped=2, failed=1),))["prelabel"]
    assert step.progress is not None
    assert (step.progress.done, step.progress.total) == (6, 10)


def test_a_job_that_has_failed_says_why() -> None:
    step = steps(jobs=(job(state="failed", reason="It is gone."),))["prelabel"]
    assert [plain(note.text) for note in step.notes] == ["Job 1: It is gone."]


@pytest.mark.parametrize("jobs", [(), (job(),)])
def test_a_version_that_is_made_again_says_so_beside_a_job_that_waits_for_it(
    jobs: tuple[JobView, ...],
) -> None:
    step = steps(jobs=jobs, learned=Learned(made_again=True))["prelabel"]
    assert [plain(note.text) for note in step.notes] == [REMAKING]


def test_an_experiment_says_which_tasks_it_leaves_out() -> None:
    step = steps(counts=counts(15, 1, withheld=1))["prelabel"]
    (note,) = step.notes
    assert plain(note.text) == (
        "1 task gets none while the time that a prediction saves is measured."
    )


def test_tasks_are_corrected_in_label_studio() -> None:
    first, second = steps(counts=counts(15, 3))["correct"].buttons
    assert (first.url, second.text) == (f"{TASKS_URL}?labeling=1", "Review at a glance")


def test_tasks_without_masks_cannot_be_reviewed() -> None:
    assert len(steps(counts=counts(15, 15))["correct"].buttons) == 1


@pytest.mark.parametrize(
    ("learned", "sentence"),
    [
        (None, "not known: the model is not there"),
        (Learned(), "the words alone are in use"),
        (
            Learned(changed=1, every=10),
            "the words alone are in use; 1 correction, the next version comes after 10",
        ),
        (
            Learned(live=2, gain=0.0312, changed=12, every=10),
            "+3.1 points of IoU on held-out pictures: version 2 is in use; 12 corrections since, "
            "enough for the next version",
        ),
        (
            Learned(live=2, changed=3, every=10, asked=True),
            "not measured yet: version 2 is in use; 3 corrections since, the next version is "
            "being made",
        ),
        (
            Learned(live=2, gain=-0.01, pinned=True, changed=3),
            "-1.0 points of IoU on held-out pictures: version 2 is in use, chosen by hand, so no "
            "new version is made",
        ),
        (
            Learned(live=2, waits=3, waits_gain=0.02),
            "+2.0 points of IoU on held-out pictures: version 3 waits for you; version 2 is in use",
        ),
        (
            Learned(live=2, adapt="off"),
            'the labeling config or the backend\'s settings say adapt="off": corrections teach '
            "nothing",
        ),
    ],
)
def test_what_was_learned(learned: Learned | None, sentence: str) -> None:
    assert told("learn", learned=learned) == sentence


def test_twenty_tasks_without_a_correction_can_teach_too() -> None:
    many = TaskCounts(20, 20, 0, 0)
    assert told("learn", learned=Learned(), counts=many).endswith(
        "; unlabelled pictures can teach, too"
    )
    assert "unlabelled" not in told("learn", learned=Learned(), counts=counts(15))


def test_a_version_that_waits_is_to_be_decided_on() -> None:
    assert steps(learned=Learned(waits=3))["learn"].buttons[0].text == "Decide"


@pytest.mark.parametrize(
    ("data_set", "sentence"),
    [
        (NewestDataset(), "0 tasks corrected and no data set yet"),
        (
            NewestDataset(4, TEN_DAYS_AGO, 1, 30),
            "1 task corrected since the last data set, 10 d ago",
        ),
        (
            NewestDataset(4, TEN_DAYS_AGO, 0, 30, left_out=2),
            "0 tasks corrected since the last data set, 10 d ago. It has 30 pictures; "
            "why 2 tasks were left out",
        ),
    ],
)
def test_what_the_newest_data_set_lacks(data_set: NewestDataset, sentence: str) -> None:
    assert told("export", data_set=data_set) == sentence


def test_the_next_step_alone_has_the_first_button() -> None:
    shown = steps(counts=counts(15, 15), words=WordsCheck(1, 1.0, 4))
    assert [name for name, step in shown.items() if step.is_next] == ["prelabel"]
    firsts = [button.is_first for step in shown.values() for button in step.buttons]
    assert firsts == [False] * len(firsts)


def test_annotations_are_read_for_the_first_time() -> None:
    assert Reading(True, None, 9, 3, 12).sentence == (
        "The annotations that the project had are being read, the newest first: 3 of 12 tasks so "
        "far."
    )


def test_old_figures_have_their_age() -> None:
    assert Reading(True, time.time() - 600).sentence == ("Annotations were read 10 min ago.")
