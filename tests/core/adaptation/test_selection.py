"""Which labels learn and how far, against a validation whose every answer is written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import pytest

from clearclip_core.adaptation.acceptance import Comparison, at_prevalence, compare
from clearclip_core.adaptation.contradictions import BoolArray
from clearclip_core.adaptation.cross_validation import (
    CAUTIOUS,
    FREE,
    UNINFORMED,
    Caution,
    Trial,
)
from clearclip_core.adaptation.posterior import Prior
from clearclip_core.adaptation.selection import Selection

#: Differences of IoU of three labels and, after that, the lower bound of the mean gain.
Answer = tuple[float, float, float, float]
GOOD: Answer = (0.02, 0.01, 0.01, 0.01)
UNCERTAIN: Answer = (0.02, -0.01, 0.01, -0.001)
LABELS = np.ones(3, bool)
SPREAD = 0.005  # between a difference and its bounds


class Validation:
    """Answers by what is asked for.

    Args:
        answers: (names of the labels that learn, what) -> the answer, where `what` is "cautious",
            "far", "free", "alone", "wide" or "partly wide"; what is missing is like "cautious".
        gains: what others are compared and gain for certain.
        unsure: of which steps a label may have cost the bound, though it has not; with "if
            frequent" behind, only where it is more frequent than in these pictures.
        alone: rows of labels that gain alone, with smaller precisions.
    """

    def __init__(
        self,
        answers: dict[tuple[str, str], Answer],
        gains: set[str],
        unsure: AbstractSet[str],
        alone: Sequence[tuple[int, float]] = (),
    ) -> None:
        self._answers, self._gains, self._unsure = answers, gains, unsure
        self._alone = alone
        self.asked: list[tuple[str, str]] = []

    def choose(self, learning: BoolArray, caution: Caution) -> Trial:
        precision = {CAUTIOUS: 3.0, UNINFORMED: 0.1, FREE: 0.3}[caution]
        prior = Prior(np.where(np.arange(learning.sum()) == 0, precision, 3.0))
        if (names(learning), kind(prior)) not in self._answers:
            prior = Prior(np.full(learning.sum(), 3.0))
        return self.attempt(learning, prior)

    def smaller_priors(self, trial: Trial, label_gain: float) -> Sequence[tuple[int, float]]:
        assert label_gain == 0.05
        return self._alone

    def attempt(self, learning: BoolArray, prior: Prior) -> Trial:
        what = kind(prior)
        self.asked.append((names(learning), what))
        fallback = self._answers.get((names(learning), "cautious"), GOOD)
        *differences, bound = self._answers.get((names(learning), what), fallback)
        after = 0.5 + np.array(differences)
        lows, highs = np.array(differences) - SPREAD, np.array(differences) + SPREAD
        mean = float(np.mean(differences))
        comparison = Comparison(np.full(3, 0.5), after, mean, bound, lows, highs)
        return Trial(learning, prior, [], comparison)

    def step(self, trial: Trial, other: Trial, prevalence: float = 1.0) -> Comparison:
        before, after = trial.comparison.after, other.comparison.after
        what = kind(other.prior)
        unsure = what in self._unsure or (prevalence > 1 and f"{what} if frequent" in self._unsure)
        spreads = np.array([0, 0, 0.031 if unsure else 0])
        bound = 0.001 if what in self._gains else -0.001
        return Comparison(before, after, 0.002, bound, -spreads, spreads)


class Counted:
    """Answers by counts on 20 held-out images, of a label that gains and of one that loses.

    By the words the other label's IoU is 0.5; by the first choice it differs by 0.3, now up and now
    down from image to image; each step costs it the same on all of them.

    Args:
        costs: IoU that the two steps cost the label.
    """

    clusters = np.arange(20)

    def __init__(self, costs: tuple[float, float]) -> None:
        noisy = 0.5 + 0.3 * np.where(self.clusters % 2, 1, -1)
        losses = np.cumsum([0, *costs])
        self._words = self._counts(0.5, np.full(20, 0.5))
        self._answers = {
            what: self._counts(gained, noisy - loss)
            for what, gained, loss in zip(
                ("cautious", "free", "wide"), (0.6, 0.65, 0.7), losses, strict=True
            )
        }

    def choose(self, learning: BoolArray, caution: Caution) -> Trial:
        prior = Prior(np.array([0.3 if caution is FREE else 3.0, 3.0]))
        return self.attempt(learning, prior)

    def smaller_priors(self, trial: Trial, label_gain: float) -> Sequence[tuple[int, float]]:
        return ()

    def attempt(self, learning: BoolArray, prior: Prior) -> Trial:
        counts = self._answers[kind(prior).removeprefix("partly ")]
        return Trial(learning, prior, counts, compare(self._words, counts, self.clusters))

    def step(self, trial: Trial, other: Trial, prevalence: float = 1.0) -> Comparison:
        before, after = (at_prevalence(each.counts, prevalence) for each in (trial, other))
        return compare(before, after, self.clusters, trial.learning)

    @staticmethod
    def _counts(gained: float, other: np.ndarray) -> list[np.ndarray]:
        """Return (3, 2) counts of 100 patches of each label, by IoU: none is falsely found."""
        right = [100 * np.array([gained, each]) for each in other]
        return [np.stack([each, np.full(2, 100.0), each]) for each in right]


def kind(prior: Prior) -> str:
    """Say how a prior differs from the usual one, the last step first."""
    wide = np.broadcast_to(prior.offset_variance, prior.precisions.shape) > 1
    if wide.any():
        return "wide" if wide.all() else "partly wide"
    if (prior.precisions[1:] < 3).any():
        return "alone"
    return {0.1: "far", 0.3: "free"}.get(prior.precisions[0], "cautious")


def names(learning: BoolArray) -> str:
    return "".join(name for name, learns in zip("abc", learning, strict=True) if learns)


def select(
    answers: dict[tuple[str, str], Answer],
    gains: set[str],
    learning: str = "abc",
    unsure: AbstractSet[str] = frozenset(),
    alone: Sequence[tuple[int, float]] = (),
) -> tuple[Trial | None, Selection, Validation]:
    validation = Validation(answers, gains, unsure, alone)
    selection = Selection(validation, 0.03, LABELS)  # type: ignore[arg-type]
    return selection.select(np.array([name in learning for name in "abc"])), selection, validation


def selected(*asked: object, **more: object) -> tuple[str, str] | None:
    trial, _, _ = select(*asked, **more)  # type: ignore[arg-type]
    return None if trial is None else (names(trial.learning), kind(trial.prior))


@pytest.mark.parametrize(
    ("gains", "answers", "found"),
    [
        (set(), {}, "cautious"),
        ({"free"}, {("abc", "free"): GOOD}, "free"),
        ({"wide"}, {}, "wide"),
        ({"free", "wide"}, {("abc", "free"): GOOD}, "wide"),
        # a step that gains on average, and costs a label a little more than the bound
        ({"wide"}, {("abc", "wide"): (0.2, 0.2, -0.033, 0.1)}, "cautious"),
    ],
)
def test_what_passes_goes_farther_as_long_as_each_step_gains_and_passes(
    gains: set[str], answers: dict[tuple[str, str], Answer], found: str
) -> None:
    assert selected({("abc", "cautious"): GOOD, **answers}, gains) == ("abc", found)


@pytest.mark.parametrize(
    ("unsure", "found"),
    [
        ({"wide"}, "free"),
        ({"free"}, "wide"),
        ({"free", "wide"}, "cautious"),
        ({"wide if frequent"}, "free"),
    ],
)
def test_no_step_is_taken_that_few_images_cannot_tell_the_costs_of(
    unsure: set[str], found: str
) -> None:
    """c, which hardly any image shows, may have lost more than the bound by it."""
    gains = {"free", "wide"}
    chosen = selected({("abc", "free"): GOOD}, gains, unsure=unsure)
    assert chosen == ("abc", found)


@pytest.mark.parametrize(
    ("costs", "found"),
    [((0.025, 0.025), "free"), ((0.014, 0.014), "wide"), ((0.025, 0.0), "wide")],
)
def test_all_steps_together_cost_no_label_the_bound_for_certain(
    costs: tuple[float, float], found: str
) -> None:
    """Against the words nothing is certain of the label; against the first choice all is."""
    validation = Counted(costs)
    trial = Selection(validation, 0.03, LABELS[:2]).select(  # type: ignore[arg-type]
        np.ones(2, bool)
    )
    assert trial is not None
    assert kind(trial.prior) == found
    assert trial.comparison.highs[1] > 0


def test_the_last_step_keeps_the_priors_that_passed() -> None:
    trial, _, _ = select({("abc", "free"): GOOD}, {"free", "wide"})
    assert trial is not None
    assert trial.prior.precisions.tolist() == [0.3, 3.0, 3.0]


def test_where_not_all_offsets_may_those_of_labels_that_moved_far_may_move_farther() -> None:
    answers = {("abc", "free"): GOOD}
    trial, _, validation = select(answers, {"free", "wide", "partly wide"}, unsure={"wide"})
    assert trial is not None
    assert kind(trial.prior) == "partly wide"
    assert trial.prior.precisions.tolist() == [0.3, 3.0, 3.0]
    assert trial.prior.offset_variance == pytest.approx([10**0.5, 1, 1])
    assert validation.asked[-2:] == [("abc", "wide"), ("abc", "partly wide")]
    unsure = {"wide", "partly wide"}
    assert selected(answers, {"free", *unsure}, unsure=unsure) == ("abc", "free")


def test_without_a_label_that_moved_far_no_part_of_the_offsets_is_tried() -> None:
    _, _, validation = select({}, {"partly wide"})
    assert ("abc", "partly wide") not in validation.asked


@pytest.mark.parametrize(
    ("far", "found"),
    [(GOOD, "far"), (UNCERTAIN, "cautious"), ((0.9, -0.05, 0.1, 0.1), "cautious")],
)
def test_labels_of_which_words_find_nothing_move_far_first_if_that_passes(
    far: Answer, found: str
) -> None:
    assert selected({("abc", "far"): far}, set()) == ("abc", found)


def test_labels_move_farther_one_by_one_where_all_may_not() -> None:
    """b and c gain alone, both by either prior; a has moved farther before."""
    alone = [(2, 1.0), (0, 1.0), (1, 0.3), (2, 0.3)]
    answers = {("abc", "free"): GOOD}
    gains = {"free", "wide", "alone"}
    trial, _, _ = select(answers, gains, unsure={"wide", "partly wide"}, alone=alone)
    assert trial is not None
    assert trial.prior.precisions.tolist() == [0.3, 0.3, 0.3]
    assert trial.prior.offset_variance == pytest.approx([1, 1, 1])
    trial, _, _ = select(answers, gains, alone=alone)
    assert trial is not None
    assert trial.prior.offset_variance == pytest.approx([10**0.5] * 3)


@pytest.mark.parametrize(("gains", "unsure"), [(set(), set()), ({"alone"}, {"alone"})])
def test_no_label_moves_farther_alone_by_a_step_that_may_not_be(
    gains: set[str], unsure: set[str]
) -> None:
    trial, _, validation = select({}, gains, unsure=unsure, alone=[(1, 1.0)])
    assert trial is not None
    assert kind(trial.prior) == "cautious"
    assert validation.asked[-1] == ("abc", "alone")


def test_unlabeled_things_are_spared_by_the_labels_that_cover_them() -> None:
    """c may have lost more than the bound for certain: too much, unless it is no label."""
    answers = {("abc", "free"): GOOD}
    validation = Validation(answers, {"free"}, {"free"})
    selection = Selection(validation, 0.03, np.array([True, True, False]))  # type: ignore[arg-type]
    trial = selection.select(np.ones(3, bool))
    assert trial is not None
    assert kind(trial.prior) == "free"
    assert selected(answers, {"free"}, unsure={"free"}) == ("abc", "cautious")


def test_nothing_is_selected_by_which_labels_lose_on_average() -> None:
    """The gain weighs labels by their paint: it may be certain where unpainted ones lose."""
    loses: Answer = (0.02, -0.02, -0.01, 0.01)
    assert selected({("abc", "cautious"): loses}, set()) is None
    even: Answer = (0.02, -0.01, -0.01, 0.01)
    assert selected({("abc", "cautious"): even}, set()) == ("abc", "cautious")


def test_what_has_no_label_does_not_make_up_for_labels_that_lose_on_average() -> None:
    gains_elsewhere: Answer = (0.02, -0.025, 0.02, 0.01)
    validation = Validation({("abc", "cautious"): gains_elsewhere}, set(), set())
    labels = np.array([True, True, False])
    selection = Selection(validation, 0.03, labels)  # type: ignore[arg-type]
    assert selection.select(np.ones(3, bool)) is None
    assert selected({("abc", "cautious"): gains_elsewhere}, set()) == ("abc", "cautious")


def test_a_label_that_loses_too_much_is_left_out_and_the_rest_stays_cautious() -> None:
    answers = {("abc", "cautious"): (0.05, -0.05, 0.05, 0.01)}
    trial, selection, validation = select(answers, {"free", "wide"})
    assert trial is not None
    assert (names(trial.learning), kind(trial.prior)) == ("ac", "cautious")
    assert validation.asked == [("abc", "cautious")] * 2 + [("ac", "cautious")]
    (refusal,) = selection.refusals
    assert refusal.losing.tolist() == [False, True, False]


def test_what_was_left_out_may_then_lose_no_more_than_the_bound() -> None:
    """A loss of 0.04 is below 1.5 times the bound: too much only for one that has lost before."""
    answers = {("abc", "cautious"): (0.05, -0.05, 0.05, 0.01)}
    slight = (0.05, -0.033, 0.05, 0.01)
    assert selected({("ac", "cautious"): slight}, set(), learning="ac") == ("ac", "cautious")
    assert selected(answers | {("ac", "cautious"): slight}, set()) is None


def test_without_a_certain_gain_of_all_no_label_is_taken_alone() -> None:
    """a and c gain for certain, on the pictures that would choose them."""
    trial, selection, validation = select({("abc", "cautious"): UNCERTAIN}, set())
    assert trial is None
    assert validation.asked == [("abc", "cautious")] * 3
    assert not selection.refusals[0].losing.any()


def test_labels_that_cannot_learn_may_be_spared_where_others_move_farther() -> None:
    """What c loses, b takes because a may not move far enough to take it."""
    answers = {("ab", "cautious"): (0.05, 0.01, -0.05, 0.01), ("ab", "free"): GOOD}
    assert selected(answers, set(), learning="ab") == ("ab", "free")
    del answers["ab", "free"]
    assert selected(answers, set(), learning="ab") is None


def test_labels_are_not_taken_alone_where_one_loses_that_cannot_learn() -> None:
    """a gains for certain and b does not; c, which does not learn, loses."""
    answers = {("ab", "cautious"): (0.05, -0.001, -0.05, 0.01)}
    assert selected(answers, set(), learning="ab") is None


def test_nothing_is_selected_where_no_label_gains_for_certain() -> None:
    nothing = (0.004, 0.004, 0.004, -0.001)
    trial, selection, _ = select({("abc", "cautious"): nothing}, {"free", "wide"})
    assert trial is None
    assert len(selection.refusals) == 1


def test_the_search_ends() -> None:
    """Another label loses in each round."""
    rounds: list[tuple[str, Callable[[float], Answer]]] = [
        ("abc", lambda loss: (loss, 0.1, 0.1, 0.1)),
        ("bc", lambda loss: (0.0, loss, 0.1, 0.1)),
        ("c", lambda loss: (0.0, 0.0, loss, 0.1)),
    ]
    trial, selection, _ = select(
        {(learning, "cautious"): answer(-0.1) for learning, answer in rounds}, set()
    )
    assert trial is None
    assert [names(each.learning) for each in selection.refusals] == ["abc", "bc", "c"]
