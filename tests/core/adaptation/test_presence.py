"""Learned presence: logistic regression against SciPy, what is known of absence, and the gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Example,
    Label,
    ScoreOptions,
    Vocabulary,
    adapt,
)
from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.learned_presence import LearnedPresence
from clearclip_core.adaptation.presence import Presences, fit_presence, logistic, shown
from tests.core.adaptation.test_examples import SMALL

NAMES = ("dog", "sky", "wolf")
WORDS = Vocabulary.of(NAMES)
#: Words in 8 dimensions. The wolf's lies close to the dog's.
VECTORS = F.normalize(torch.eye(8)[:3] + torch.tensor([[0.0], [0], [1]]) * torch.eye(8)[0], dim=1)
GRID = (5, 4)


def embed(prompts: object) -> torch.Tensor:
    return torch.stack([VECTORS[NAMES.index(prompt)] for prompt in prompts])  # type: ignore[attr-defined]


def image(seed: int, wolf: bool = False) -> tuple[DenseFeatures, dict[str, np.ndarray]]:
    """A sky above a dog, or above a wolf: features halfway between both words, and noise."""
    owners = np.zeros(GRID, int)
    owners[2:] = 1
    owners[2, : 1 + seed % 3] = 0
    noise = 0.25 * torch.randn(SMALL.count, *SMALL.grid_hw, 8, generator=torch.manual_seed(seed))
    windows = np.stack([owners[:4], owners[1:]])
    between = F.normalize(VECTORS[0] + VECTORS[2], dim=0)
    patches = torch.where(torch.from_numpy(windows)[..., None] > 0, between, VECTORS[1])
    cls = VECTORS[2 if wolf else 0].expand(SMALL.count, 8)
    features = DenseFeatures(F.normalize(patches + noise, dim=-1), SMALL, cls)
    below = np.kron(owners > 0, np.ones((16, 16), np.bool_)).astype(bool)
    return features, {"sky": ~below, "wolf" if wolf else "dog": below}


def examples_of(count: int, **given: object) -> list[Example]:
    images = (image(seed, wolf=seed % 10 == 9) for seed in range(count))
    return [Example.of(*each, known=NAMES, picture=str(i)) for i, each in enumerate(images)]


def test_the_regression_is_the_minimum_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(0.2, 0.05, 12), rng.uniform(0.3, 1, 12)
    y = (x + rng.normal(0, 0.05, 12) > 0.2).astype(float)
    mean = np.average(x, weights=weights)
    spread = np.sqrt(np.average((x - mean) ** 2, weights=weights))

    def loss(solution: np.ndarray) -> float:
        odds = solution[0] + solution[1] * x
        total = (weights * (np.logaddexp(0, odds) - y * odds)).sum()
        middle = solution[0] + solution[1] * mean  # one image of the prior, half of it there
        total += np.logaddexp(0, middle) - middle / 2
        return float(total + (solution[1] * spread) ** 2 / 2)

    expected = minimize(loss, [0, 0], method="Nelder-Mead", options={"maxiter": 9999}).x
    made = logistic(x, y, weights)
    assert loss(np.array(made)) <= loss(expected) + 1e-9
    assert made == pytest.approx(expected, rel=1e-2)
    assert made[1] > 0


def test_a_label_that_is_never_there_has_the_priors_chance_and_no_slope() -> None:
    x = np.full(9, 0.3)
    intercept, slope = logistic(x, np.zeros(9), np.ones(9))
    assert (intercept, slope) == pytest.approx((np.log(0.5 / 9.5), 0), abs=1e-6)


def test_near_duplicates_count_once_and_few_pictures_say_nothing() -> None:
    states, scores = np.zeros((10, 1)), np.full((10, 1), 0.3)
    twice = Presences(states, scores, np.repeat(np.arange(5), 2))
    once = Presences(states[:5], scores[:5], np.arange(5))
    assert fit_presence(twice, ["a"]).intercepts == pytest.approx(
        fit_presence(once, ["a"]).intercepts
    )
    assert fit_presence(Presences(states[:4], scores[:4], np.arange(4)), ["a"]).names == ()
    unknown = Presences(np.where(np.arange(10) < 6, np.nan, 0)[:, None], scores, np.arange(10))
    assert fit_presence(unknown, ["a"]).names == ()


def evidence_of(
    painted: list[list[float]], removed: list[float] | None = None, complete: bool = False
) -> Evidence:
    """Four patches: their shares of dog and sky, where the dog was removed, nobody's otherwise."""
    shares = np.array(painted, np.float32)
    taken = np.zeros((4, 3), np.float32)
    taken[:, 0] = removed or [0] * 4
    batch = Batch(
        "",
        "",
        np.zeros((4, 8), np.float32),
        np.zeros((4, 3), np.float32),
        np.pad(shares, ((0, 0), (0, 1))),
        shares.sum(axis=1),
        np.zeros(4, np.float32),
        taken,
        np.ones(4, np.float32),
        np.zeros(3, np.bool_),
    )
    known = shares.sum(axis=1) > 0.9
    labels = np.array([complete, False, False])
    contested, words = np.zeros_like(batch.painted), np.ones(batch.painted.shape[1], np.float32)
    doubted = np.zeros_like(labels)
    return Evidence(batch, batch.painted, known, 0, 1.0, labels, contested, doubted, words)


NAN = float("nan")
HALF = [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (evidence_of(HALF), (NAN, 1, NAN)),  # what is unpainted may be anything
        (evidence_of([[0.0, 1.0]] * 4), (0, 1, 0)),  # painted whole
        (evidence_of(HALF, removed=[0, 0, 1, 0]), (0, 1, NAN)),
        (evidence_of(HALF, complete=True), (0, 1, NAN)),
        (evidence_of([[0.0, 1.0]] * 3 + [[0.2, 0.8]]), (NAN, 1, 0)),  # a trace is not nothing
    ],
)
def test_absence_is_known_only_where_there_was_a_reason_to_paint(
    evidence: Evidence, expected: tuple[float, ...]
) -> None:
    np.testing.assert_array_equal(shown(evidence, NAMES), expected)


def test_a_label_that_could_not_be_chosen_or_is_nothing_is_unknown() -> None:
    whole = evidence_of([[0.0, 1.0]] * 4)
    text = np.zeros((4, 3), np.float32)
    text[:, 2] = -1e4
    later = replace(whole, batch=replace(whole.batch, text=text))
    np.testing.assert_array_equal(shown(later, NAMES), (0, 1, NAN))
    np.testing.assert_array_equal(shown(whole, ("dog", "sky", "")), (0, 1, NAN))


def test_presence_is_learned_where_it_tells_labels_apart_that_patches_do_not() -> None:
    learned = adapt(examples_of(30), embed, WORDS, learn_presence=True)
    plain = adapt(examples_of(30), embed, WORDS)
    assert plain.adaptation is None or plain.adaptation.presence is None
    assert plain.presence == ""
    assert learned.adaptation is not None
    assert learned.adaptation.presence is not None
    assert learned.presence.startswith("Learned of ")
    assert "held-out pictures changes by +" in learned.presence
    assert learned.adapted_iou > plain.adapted_iou + 0.05
    offsets = learned.adaptation.presence.of({"dog": 1.0, "sky": 0.0, "wolf": 0.7}, NAMES)
    assert offsets[2] < offsets[0] - 1 / 50  # on a dog's picture


def test_it_is_refused_where_it_does_not_gain_or_where_pictures_are_few() -> None:
    few = adapt(examples_of(4), embed, WORDS, learn_presence=True)
    assert few.presence == (
        "It can be learned from 4 different pictures with a CLS feature, and needs 5."
    )
    clear = [image(seed) for seed in range(8)]
    made: list[Example] = []
    for features, masks in clear:  # each patch is its own word: nothing to gain
        sky = torch.from_numpy(features.plan.coverage(masks["sky"]))[..., None] > 0.5
        noise = 0.18 * torch.randn(features.patches.shape, generator=torch.manual_seed(len(made)))
        own = torch.where(sky, VECTORS[1], VECTORS[0]) + noise
        made.append(
            Example.of(
                replace(features, patches=F.normalize(own, dim=-1)),
                masks,
                known=NAMES,
                picture=str(len(made)),
            )
        )
    fit = adapt(made, embed, WORDS, learn_presence=True)
    assert fit.presence == "That it gains on held-out pictures is not certain."
    assert fit.adaptation is None or fit.adaptation.presence is None
    without = [replace(each, cls=None) for each in examples_of(8)]
    assert "from 0 different pictures" in adapt(without, embed, WORDS, learn_presence=True).presence


def presence() -> LearnedPresence:
    return LearnedPresence(
        ("dog", "wolf"), np.array([0, -9], np.float32), np.array([0, 10], np.float32)
    )


def adapted(**given: object) -> Adaptation:
    return Adaptation((), np.zeros((0, 8), np.float32), np.zeros(0, np.float32), 3, presence())


def test_offsets_are_logarithms_of_the_probability_by_the_best_word() -> None:
    words = Vocabulary((Label("sky"), Label("wolf", ("wolf", "dog"))), ("sky",))
    embeddings = VECTORS[[1, 2, 0]]
    cls = F.normalize(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), dim=0)
    scaled, bias = adapted().apply(0.9 * embeddings, words, cls, embeddings)
    assert torch.equal(scaled, 0.9 * embeddings)
    expected = np.log(1 / (1 + np.exp(9 - 10 * 1.0))) / 50  # "dog" fits best, with a cosine of 1
    assert bias.tolist() == pytest.approx([0, expected, expected])
    _, least = adapted().apply(embeddings, words, torch.eye(8)[7], embeddings)
    assert least[1].item() == pytest.approx(np.log(0.02) / 50)
    with pytest.raises(ValueError, match="`image_cls` to be a feature where presence was learned"):
        adapted().apply(embeddings, words)
    assert not adapted().without_presence().needs_cls


def test_it_is_written_and_read_and_changes_no_digest_where_it_is_absent() -> None:
    made = Adaptation.from_bytes(adapted().to_bytes(), 8)
    assert made.presence is not None
    assert made.presence.names == ("dog", "wolf")
    assert made.presence.slopes.tolist() == [0, 10]
    assert made.digest == adapted().digest != adapted().without_presence().digest
    old = Adaptation((), np.zeros((0, 8), np.float32), np.zeros(0, np.float32), 3)
    assert old.digest == adapted().without_presence().digest
    assert Adaptation.from_bytes(old.to_bytes()).presence is None
    broken = replace(presence(), slopes=np.array([0, np.nan], np.float32))
    assert adapted().is_finite
    assert not replace(adapted(), presence=broken).is_finite
    assert ScoreOptions(with_cls=True).needs_cls
