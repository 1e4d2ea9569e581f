"""How far a label may move: chosen by held-out images, of a validation whose fits are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core import Example
from clearclip_core.adaptation.acceptance import compare
from clearclip_core.adaptation.adaptation import group_names
from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.cross_validation import (
    CAUTIOUS,
    FREE,
    PRIORS,
    Caution,
    CrossValidation,
)
from clearclip_core.adaptation.evidence import gather_evidence
from clearclip_core.adaptation.posterior import Posterior, Prior
from tests.core.adaptation.test_evidence import example, gather, notched
from tests.core.adaptation.test_fitting import WORDS, drawn_image, embed, examples_of

NAMES = group_names(WORDS)
LEARNING = np.array([name in ("sofa", "sky") for name in NAMES])


def validation_of(count: int) -> CrossValidation:
    return validation_of_examples(examples_of(count))


def validation_of_examples(
    examples: Sequence[Example], clusters: npt.NDArray[np.intp] | None = None
) -> CrossValidation:
    """Make a validation; by default each example is of an image of its own."""
    embeddings = embed(WORDS.queries).numpy()
    batches = [Batch.of(each, embeddings, WORDS, 1000) for each in examples]
    numbers = np.arange(len(batches)) if clusters is None else clusters
    return CrossValidation(gather_evidence(batches, numbers, NAMES, []))


def gain_of_sky(validation: CrossValidation, precision: float) -> float:
    """Return what the sky gains on held-out images by a prior, against the largest one."""
    clusters = np.arange(8)
    largest, other = (
        validation.attempt(LEARNING, Prior(np.full(2, each), variance)).counts
        for each, variance in ((3.0, 10**-0.25), (precision, 1.0))
    )
    comparison = compare(largest, other, clusters)
    return float((comparison.after - comparison.before)[NAMES.index("sky")])


def test_a_label_moves_farther_only_where_that_gains_as_much_as_asked() -> None:
    """The sky's word is wrong in these pictures, and the sofa's is right."""
    validation = validation_of(8)
    gain = gain_of_sky(validation, 1.0)
    assert gain > 0.02
    sky, sofa = (
        int(np.flatnonzero(np.flatnonzero(LEARNING) == NAMES.index(n))[0]) for n in ("sky", "sofa")
    )
    # with eight images 1.0 is the smallest precision of a product of at least 3
    for asked, precision in ((gain * 0.9, 1.0), (gain * 1.1, 3.0)):
        chosen = validation.choose(LEARNING, Caution(asked, 3.0)).prior.precisions
        assert chosen[sky] == precision
        assert chosen[sofa] == 3.0


def test_the_last_prior_is_for_labels_that_enough_images_show() -> None:
    """0.8 over the number of images that show the label: both are shown by each of these."""
    validation = validation_of(8)
    asked = Caution(-1.0, 2.0, 0.01)
    assert validation.choose(LEARNING, asked).prior.precisions.min() == pytest.approx(0.8 / 8)
    kept = validation.choose(LEARNING, replace(asked, clear_gain=9.0)).prior.precisions
    assert kept.tolist() == [3, 3]
    wide = validation.choose(LEARNING, replace(asked, smallest=0.2)).prior.precisions
    assert wide.min() == pytest.approx(0.2)


@pytest.mark.parametrize("finds", [0.0, 0.09, 0.11])
def test_a_label_of_which_its_words_find_nothing_moves_far_at_once(
    monkeypatch: pytest.MonkeyPatch, finds: float
) -> None:
    """The sky gains enough by the priors before too; the sofa gains enough by none."""
    validation = validation_of(8)
    sky, sofa = NAMES.index("sky"), NAMES.index("sofa")
    enough = gain_of_sky(validation, 1.0) * 0.9
    assert gain_of_sky(validation, 0.1) > enough
    words = np.full(len(NAMES), 0.5)
    words[sky] = finds
    monkeypatch.setattr(CrossValidation, "words_ious", lambda self: words)
    chosen = validation.choose(LEARNING, Caution(enough, 3.0, uninformative=0.05)).prior.precisions
    expected = {sky: 0.8 / 8 if finds < 0.1 else 1.0, sofa: 3.0}
    assert dict(zip(np.flatnonzero(LEARNING), chosen, strict=True)) == pytest.approx(expected)
    too_much = Caution(gain_of_sky(validation, 0.1) + 0.01, 3.0, uninformative=0.05)
    assert validation.choose(LEARNING, too_much).prior.precisions.tolist() == [3.0, 3.0]


def test_labels_that_may_move_alone_are_those_that_gain_enough_the_larger_prior_first() -> None:
    validation = validation_of(8)
    trial = validation.choose(LEARNING, Caution(9.0, 2.0))
    sky = np.flatnonzero(LEARNING).tolist().index(NAMES.index("sky"))
    gains = [gain_of_sky(validation, each) for each in (1.0, 0.3)]
    assert 0 < gains[0] < gains[1]
    found = [
        list(validation.smaller_priors(trial, each))
        for each in (gains[0] * 0.99, gains[1] * 0.99, gains[1] * 1.01)
    ]
    assert found == [[(sky, 1.0), (sky, 0.3)], [(sky, 0.3)], []]


@pytest.mark.parametrize(("count", "precisions"), [(6, [1.0]), (7, [1.0, 0.3])])
def test_labels_that_few_images_show_move_less_far_alone(
    count: int, precisions: list[float]
) -> None:
    """0.3 times 6 is less than 2, 0.3 times 7 is not."""
    validation = validation_of(count)
    trial = validation.choose(LEARNING, Caution(9.0, 2.0))
    found = validation.smaller_priors(trial, -1.0)
    sky = np.flatnonzero(LEARNING).tolist().index(NAMES.index("sky"))
    assert [precision for row, precision in found if row == sky] == precisions


@pytest.mark.parametrize(("count", "largest"), [(2, 3.0), (10, 3.0), (20, 5.0454), (40, 8.4853)])
def test_words_weigh_more_beside_more_images(count: int, largest: float) -> None:
    """3, and 3 times 2 ** 0.75 and 4 ** 0.75 with twice and four times ten images."""
    validation = validation_of(count)
    assert validation.largest_prior == pytest.approx(largest, abs=1e-4)
    kept = validation.choose(LEARNING, Caution(9.0, 0.1)).prior.precisions
    assert kept == pytest.approx([largest] * 2, abs=1e-4)


def test_images_that_nobody_painted_add_nothing_to_the_weight_of_words() -> None:
    painted = examples_of(12)
    bare = [Example.of(drawn_image(seed)[0], {}, ["sofa", "sky"]) for seed in range(20, 60)]
    few, many = (validation_of_examples(each) for each in (painted, painted + bare))
    assert few.largest_prior == many.largest_prior == pytest.approx(3 * 1.2**0.75)


def test_frames_of_a_video_add_nothing_to_the_weight_of_words() -> None:
    frames = validation_of_examples(examples_of(40), np.arange(40) // 4)
    assert frames.largest_prior == 3.0


def test_each_prior_is_fitted_once_to_each_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[float] = []
    mode = Posterior.mode

    def counting(self: Posterior, prior: Prior, *start: object) -> object:
        if len(set(prior.precisions)) == 1:
            fitted.append(float(prior.precisions[0]))
        return mode(self, prior, *start)  # type: ignore[arg-type]

    monkeypatch.setattr(Posterior, "mode", counting)
    validation = validation_of(8)
    for caution in (CAUTIOUS, FREE, CAUTIOUS):
        validation.choose(LEARNING, caution)
    folds = 5
    expected: Sequence[float] = [each for each in PRIORS for _ in range(folds)]
    assert sorted(each for each in fitted if each in PRIORS) == sorted(expected)


def test_a_prior_of_which_words_find_nothing_is_fitted_once_to_each_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: list[tuple[float, ...]] = []
    mode = Posterior.mode

    def counting(self: Posterior, prior: Prior, *start: object) -> object:
        fitted.append(tuple(prior.precisions))
        return mode(self, prior, *start)  # type: ignore[arg-type]

    monkeypatch.setattr(Posterior, "mode", counting)
    validation = validation_of(8)
    assert validation.words_ious()[NAMES.index("sky")] < 0.1
    asked = Caution(0.01, 9.0, uninformative=0.05)
    first, second = (validation.choose(LEARNING, asked) for _ in range(2))
    assert 0.1 in first.prior.precisions.tolist()
    assert fitted.count(tuple(first.prior.precisions)) == 5
    assert all((a == b).all() for a, b in zip(first.counts, second.counts, strict=True))


def test_offsets_of_labels_that_keep_the_largest_prior_vary_less() -> None:
    prior = validation_of(12).choose(LEARNING, Caution(9.0, 0.1)).prior
    assert prior.offset_variance == pytest.approx([10**-0.25] * 2)
    prior = validation_of(12).choose(LEARNING, Caution(-1.0, 0.1)).prior
    far = prior.precisions <= PRIORS[1]
    assert far.any()
    assert np.asarray(prior.offset_variance)[far] == pytest.approx(1)


def test_a_label_counts_in_the_gain_as_far_as_its_truth_is_paint() -> None:
    """By hand: 15 of a picture's 16 patches of sky are painted, on two pictures of four."""
    pictures = [example(seed, {"sky": notched(0)} if seed < 2 else {}) for seed in range(4)]
    painted, all_ = CrossValidation(gather(pictures[:2])), CrossValidation(gather(pictures))
    assert painted.painted_shares[0] == pytest.approx(15 / 16, abs=1e-3)
    assert all_.painted_shares[0] == pytest.approx(30 / 64, abs=1e-3)
    assert all_.painted_shares[1:] == pytest.approx(0)
    trial = all_.attempt(np.arange(4) == 0, Prior(np.array([3.0])))
    sky = (trial.comparison.after - trial.comparison.before)[0]
    assert trial.comparison.gain == pytest.approx(sky), "of no other label any truth is paint"
