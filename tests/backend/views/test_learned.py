"""What a project has learned as a value: the sentences of its page."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace

from backend.learning.compared_images import PropagationTrial
from backend.learning.versions import Version
from backend.views.learned import LearningView, Losing, VersionView
from backend.views.text import Sentence, plain
from tests.backend.fakes.learning_stores import adaptation, version_with

PASSED = version_with(adaptation(), 20)
FAILED = version_with(None, 20)
TEN_DAYS_AGO = time.time() - 864_000


def url_of(page: str, **values: Any) -> str:
    return f"/{page}" + "".join(f"/{value}" for value in values.values())


def version(kind: Version = PASSED, number: int = 1, live: int | None = None, **more: Any) -> Any:
    return VersionView.of(replace(kind, number=number, **more), live)


def view(*versions: VersionView, **more: Any) -> LearningView:
    known = {"project": 7, "every": 10, "can_learn": True, "versions": versions}
    return LearningView(**known | more)


def standing(unread: int = 0, **more: Any) -> str:
    return plain(view(**more).standing(unread))


@pytest.mark.parametrize(
    ("trial", "sentence"),
    [
        (None, ""),
        (
            PropagationTrial(24, -0.004, False, ("pole",)),
            "Calmer masks (PROPAGATE) were tried and are not used: -0.4 points of mean IoU on 24 "
            "corrected pictures, and pole would lose.",
        ),
    ],
)
def test_a_version_says_whether_propagated_scores_were_better(
    trial: PropagationTrial | None, sentence: str
) -> None:
    assert version(propagation_trial=trial).propagation_sentence == sentence


@pytest.mark.parametrize(
    ("known", "end"),
    [
        ({"adapt": "off"}, 'corrections teach nothing: adapt="off"'),
        ({"pinned": True}, "no version is made until you let it learn again"),
        ({"asked": True}, "the next version is being made"),
        ({"changed": 3}, "the next version comes after 10, or with Learn now"),
        ({"changed": 10}, "the next version is made soon"),
        ({"changed": 10, "unread": 1}, "the next version is made when 1 annotation is read"),
    ],
)
def test_when_the_next_version_comes(known: dict[str, Any], end: str) -> None:
    unread = known.pop("unread", 0)
    assert standing(unread, **known).endswith(f" so far; {end}")


def fallen(first: float, second: float) -> str:
    """What is said where two versions have reached these IoUs in place of 0.4."""
    newest = version(number=2, live=2, adapted_iou=second)
    return view(newest, version(adapted_iou=first), live=2).fallen


def test_an_earlier_version_that_gained_much_more_is_named() -> None:
    assert fallen(0.625, 0.5) == (
        "Version 1 gained 22.5 points over the words, version 2 gains 10.0. Check what was "
        "annotated since, or use version 1 again."
    )


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.46), (0.46, 0.7)])
def test_a_version_that_gains_about_as_much_or_more_is_let_be(first: float, second: float) -> None:
    assert fallen(first, second) == ""


def test_a_version_that_did_not_pass_is_no_measure() -> None:
    failed = version(FAILED, adapted_iou=0.9)
    assert view(version(number=2, live=2), failed, live=2).fallen == ""


def test_what_the_version_in_use_was_made_of() -> None:
    told = plain(view(version(number=2, live=2), live=2, changed=1, asked=True).standing(0))
    assert told.startswith("learned from 20 annotations; 1 correction since the last version; ")


def test_the_words_alone_are_in_use_at_first() -> None:
    assert [pill.text for pill in view(pinned=True).pills] == ["the words alone", "chosen by hand"]


@pytest.mark.parametrize(
    ("asked", "number"), [(1, 1), (9, 3), (None, 3)], ids=["of the query", "not there", "newest"]
)
def test_the_pictures_are_of_the_version_that_was_asked_for(asked: int | None, number: int) -> None:
    shown = view(version(number=3), version(number=2, live=2), version(number=1)).chosen(asked)
    assert shown is not None
    assert shown.number == number


def test_the_pictures_are_of_the_version_in_use_where_the_newest_has_not_passed() -> None:
    shown = view(version(FAILED, 3), version(number=2, live=2), version(number=1)).chosen(None)
    assert shown is not None
    assert shown.number == 2


def test_a_version_that_has_not_passed_leads_to_its_pictures() -> None:
    told: Sentence = view(version(FAILED, 3)).unused(url_of)
    assert plain(told).startswith("Version 3 did not pass the check on held-out pictures")
    assert told[1].url == "/learning.show/7/3/before-after"


def test_too_few_different_pictures_are_counted() -> None:
    told = plain(view(version(FAILED, 3, unlabelled=5)).unused(url_of))
    assert told.endswith("pictures that differ are needed, and of those that were read 5 do.")


def test_weak_words_lead_to_the_page_of_words() -> None:
    told = view(weak_words=("sky", "fence")).weak(url_of)
    assert plain(told).startswith("The words find little of sky, fence. Try other words there")
    assert [part.url for part in told if part.url] == ["/words.page/7/sky", "/words.page/7/fence"]


def test_what_would_have_been_gained_is_said_of_a_version_that_has_not_passed() -> None:
    told = version(FAILED).measured
    assert plain(told).startswith("The mean IoU would go from 40.0 % to 50.0 %, measured on ")


def test_labels_without_a_figure_count_as_unchanged_in_the_gain_over_all() -> None:
    """The IoU of the car alone goes from 40 to 50 %: 10 points of one label in four."""
    told = plain(version(labels=4).measured)
    assert told.startswith("The IoU of car goes from 40.0 % to 50.0 %, measured on ")
    assert "Over all 4 labels that is +2.5 points, if the 3 without a figure stay" in told


def test_a_version_without_a_figure_has_no_gain() -> None:
    assert version(text_ious={}, adapted_ious={}).measured == ()


def test_labels_that_lose_come_in_the_order_of_their_losses() -> None:
    before = {"sky": 0.5, "car": 0.5, "road": 0.5, "tree": 0.5}
    after = {"sky": 0.4, "car": 0.2, "road": 0.495, "tree": 0.6}
    shown = dict.fromkeys(before, 9)
    assert version(text_ious=before, adapted_ious=after, shown=shown).losing == ["car", "sky"]


@pytest.mark.parametrize(
    ("losing", "end"),
    [
        (Losing(["car"], None, 0), "Label errors say which annotations to check first."),
        (Losing(["car"], TEN_DAYS_AGO, 2), "Label errors (10 d ago) would check these first:"),
        (Losing(["car"], TEN_DAYS_AGO, 0), "Label errors (10 d ago) have none left to check."),
    ],
)
def test_where_a_wrong_annotation_may_be_found(losing: Losing, end: str) -> None:
    start = "car loses more than a point. A wrong annotation may be the cause. "
    assert plain(losing.told("/label-errors")) == start + end


def test_labels_with_one_reason_share_a_sentence() -> None:
    refused = {"sky": "It may lose.", "car": "Little was drawn.", "sea": "It may lose."}
    assert version(refused=refused).refusals == [
        "sky, sea: It may lose.",
        "car: Little was drawn.",
    ]


def test_a_label_that_shrinks_or_grows_is_to_be_looked_for() -> None:
    made = version(unlabelled=9, areas={"sky": (0.4, 0.1), "car": (0.1, 0.2), "sea": (0.2, 0.2)})
    assert made.area_note("sky") == "less than a third: look for it"
    assert made.area_note("car") == "half as much again, or more: look for it"
    assert made.area_note("sea") == ""


def test_a_label_keeps_its_words_from_the_next_version_on() -> None:
    shown = version(refused={"sky": "It may lose."})
    told = view(shown, as_words=("car",))
    assert told.word_note("sky", shown) == "keeps its words"
    assert told.word_note("car", shown) == "keeps its words from the next version on"
    assert told.word_note("sea", shown) == ""


def test_labels_that_lose_are_the_first_to_be_left_to_their_words() -> None:
    shown = version(
        refused={"sky": "It may lose."},
        text_ious={"sea": 0.5, "sky": 0.5, "tree": 0.5},
        adapted_ious={"sea": 0.6, "sky": 0.4, "tree": 0.4},
        shown={"sea": 9, "sky": 9, "car": 9, "tree": 9},
    )
    assert view(shown, as_words=("car",)).keepable(shown) == ["tree", "sea"]


def done(action: str, label: str = "", **more: Any) -> str:
    return plain(view(version(number=2), **more).done(action, label, 1, url_of))


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("step", "The version is made."),
        ("unpin", "New versions are made again, and may replace what is in use."),
        ("learn-with", "From the next version on, these annotations teach again."),
        (
            "use",
            "The words alone are in use. Tasks keep the masks that they have until they are "
            "prelabelled again. Prelabel those that are left",
        ),
        (
            "reset",
            "What was learned is deleted. 1 annotation is still to be read again; the next version "
            "comes after 10 corrections, or with Learn now.",
        ),
        ("nothing", ""),
    ],
)
def test_what_a_decision_does(action: str, told: str) -> None:
    assert done(action) == told


def test_a_version_that_is_being_made_is_waited_for() -> None:
    assert done("step", asked=True).endswith("; this page loads itself until it is there.")


def test_only_a_label_of_the_project_is_named() -> None:
    assert done("learn-label", "car").startswith("car is learned from corrections again")
    assert done("learn-label", "<b>").startswith("The label is learned from corrections again")


@pytest.mark.parametrize(
    ("annotations", "can_learn", "is_offered"),
    [(10, True, True), (9, True, False), (10, False, False)],
)
def test_models_can_be_compared_after_ten_corrections(
    annotations: int, can_learn: bool, is_offered: bool
) -> None:
    offered = view(annotations=annotations, can_learn=can_learn).compare_models(url_of)
    assert [part.url for part in offered if part.url] == ["/models.page/7"] * is_offered
