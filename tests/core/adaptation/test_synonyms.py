"""Which labels' words are joined by corrections: the formula, what gains, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Example,
    Label,
    Scores,
    Vocabulary,
    adapt,
)
from clearclip_core.adaptation.batch import text_logits
from clearclip_core.segmentation.scores import join_synonyms
from tests.core.adaptation.test_examples import SMALL

WORDS = Vocabulary((Label("ground", ("lawn", "snow")), Label("sky")), ("wall",))
VECTORS = torch.eye(8)[:4]  # lawn, snow, sky, wall
LAWN, SNOW, SKY = VECTORS[:3]
BETWEEN = F.normalize(SNOW + SKY, dim=0)
GRID = (5, 4)


def embed(prompts: Sequence[str]) -> torch.Tensor:
    return torch.stack([VECTORS[("lawn", "snow", "sky", "wall").index(word)] for word in prompts])


def example(seed: int, above: torch.Tensor, below: torch.Tensor, ground_rows: int = 3) -> Example:
    """A sky above ground, painted whole; features with noise."""
    owners = np.zeros(GRID, int)
    owners[GRID[0] - ground_rows :] = 1
    owners[GRID[0] - ground_rows, : 1 + seed % 3] = 0  # else its paint is a box
    windows = torch.from_numpy(np.stack([owners[:4], owners[1:]]))[..., None]
    noise = 0.25 * torch.randn(*windows.shape[:3], 8, generator=torch.manual_seed(seed))
    patches = F.normalize(torch.where(windows > 0, below, above) + noise, dim=-1)
    ground = np.kron(owners > 0, np.ones((16, 16), np.bool_)).astype(bool)
    masks = {"sky": ~ground, "ground": ground}
    return Example.of(
        DenseFeatures(patches, SMALL), masks, known=("ground", "sky"), picture=str(seed)
    )


def seasons(count: int) -> list[Example]:
    """Summers whose clouds look like snow, and winters whose snow looks like clouds."""
    summer, winter = (BETWEEN, LAWN), (SKY, BETWEEN)
    return [example(seed, *(summer if seed % 4 else winter)) for seed in range(count)]


def joined_plainly(logits: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(N, n) logits of a label's prompts -> (N,), prompt by prompt."""
    shares = [np.exp(mean) / sum(np.exp(other) for other in means) for mean in means]
    total = sum(share * np.exp(own) for share, own in zip(shares, logits.T, strict=True))
    return np.log(total)


def test_text_logits_are_those_of_the_formula() -> None:
    made = seasons(1)[0]
    patches = made.patches.astype(np.float32)
    own = 50.0 * patches.astype(np.float64) @ VECTORS.numpy().astype(np.float64).T
    mean = (made.weights[:, None] * own).sum(axis=0) / made.weights.sum()
    text = text_logits(patches, VECTORS.numpy(), WORDS, made, joined={"ground"})
    np.testing.assert_allclose(text[:, 0], joined_plainly(own[:, :2], mean[:2]), atol=1e-3)
    np.testing.assert_allclose(text[:, 1:], own[:, 2:], atol=1e-3)
    best = text_logits(patches, VECTORS.numpy(), WORDS, made)
    np.testing.assert_allclose(best[:, 0], own[:, :2].max(axis=1), atol=1e-3)
    unknown = replace(made, known=("sky",))
    assert text_logits(patches, VECTORS.numpy(), WORDS, unknown, {"ground"})[:, 0].max() == -1e4


def test_what_is_learned_of_a_label_is_added_to_its_joined_words() -> None:
    """So a fit judges what predictions do, which join words after directions were added."""
    patches = F.normalize(torch.randn(2, 4, 4, 8, generator=torch.manual_seed(3)), dim=-1)
    features = DenseFeatures(patches, SMALL)
    direction = np.linspace(-0.1, 0.1, 8, dtype=np.float32)[None]
    offset = np.array([0.05], np.float32)
    learned = Adaptation(("ground",), direction, offset, 5, joined=("ground",))
    embeddings, bias = learned.apply(VECTORS, WORDS)
    scores = join_synonyms(Scores.of(features, embeddings, WORDS, bias), learned.joined)
    plain = join_synonyms(Scores.of(features, VECTORS, WORDS), ("ground",))
    term = (patches @ torch.from_numpy(direction[0]) + 0.05)[:, None]  # (windows, 1, h, w)
    expected = plain.cosines[:1] + SMALL.mosaic(term)
    torch.testing.assert_close(scores.cosines[:1], expected, rtol=1e-4, atol=1e-5)
    assert scores.vocabulary.queries == ("lawn", "sky", "wall")
    untouched = join_synonyms(Scores.of(features, VECTORS, WORDS), ("sky", "gone"))
    assert untouched.vocabulary.queries == WORDS.queries


def test_words_are_joined_where_the_picture_tells_which_is_meant() -> None:
    made = seasons(24)
    learned = adapt(made, embed, WORDS, learn_synonyms=True)
    plain = adapt(made, embed, WORDS)
    assert plain.synonyms == ""
    assert plain.adaptation is None or not plain.adaptation.joined
    assert learned.adaptation is not None
    assert learned.adaptation.joined == ("ground",)
    assert learned.synonyms.startswith("The words of “ground” are joined; with it the IoU on held")
    assert learned.adapted_iou > plain.adapted_iou + 0.03
    assert learned.text_iou == plain.text_iou


def test_words_stay_apart_where_both_are_in_the_picture() -> None:
    """A strip of snow below a clear sky, on a lawn's picture: joined words would miss it."""
    made = []
    for seed in range(12):
        rows = example(seed, SKY, LAWN)
        strip = example(seed + 100, SKY, F.normalize(SNOW + 0.9 * SKY, dim=0), 1)
        both = replace(
            rows,
            patches=np.concatenate([rows.patches, strip.patches]),
            coverage=np.concatenate([rows.coverage, strip.coverage]),
            weights=np.concatenate([rows.weights, 0.2 * strip.weights]),
        )
        made.append(both)
    fit = adapt(made, embed, WORDS, learn_synonyms=True)
    assert fit.synonyms == "No label gains by it."
    assert fit.adaptation is None or fit.adaptation.joined == ()


@pytest.mark.parametrize(
    ("count", "words", "reason"),
    [
        (4, WORDS, "It can be learned from 4 different pictures, and needs 5."),
        (8, Vocabulary.of(["lawn", "sky"]), "No label has several words."),
    ],
)
def test_why_words_stay_apart_is_said(count: int, words: Vocabulary, reason: str) -> None:
    fit = adapt(seasons(count), embed, words, learn_synonyms=True)
    assert fit.synonyms == reason
    assert adapt([], embed, words, learn_synonyms=True).synonyms == ""


def test_joined_names_are_written_and_read_and_change_the_digest_where_there_are_any() -> None:
    nothing = np.zeros((0, 8), np.float32), np.zeros(0, np.float32)
    plain, joined = Adaptation((), *nothing, 3), Adaptation((), *nothing, 3, joined=("a", "b"))
    assert Adaptation.from_bytes(joined.to_bytes(), 8).joined == ("a", "b")
    assert Adaptation.from_bytes(plain.to_bytes()).joined == ()
    assert joined.digest == Adaptation.from_bytes(joined.to_bytes()).digest != plain.digest
    with pytest.raises(ValueError, match="names to be sorted"):
        Adaptation((), *nothing, 3, joined=("b", "a"))
