"""Joined synonyms against plain numpy, and what they do to labels and probabilities."""

from __future__ import annotations

import numpy as np
import torch

from clearclip_core import Label, Scores, Vocabulary
from clearclip_core.segmentation.scores import join_synonyms
from tests.core.segmentation.test_scores import OWNERS, PLAN, scores_of
from tests.core.segmentation.test_sliding_windows import plan_of


def test_a_labels_prompts_become_one_query_by_the_formula() -> None:
    scores = scores_of()
    logits = 50 * scores.cosines.double().numpy()
    joined = join_synonyms(scores)
    assert joined.vocabulary.queries == ("sofa", "sky", "dog", "wall", "floor")
    for label in range(3):
        own = logits[np.array(OWNERS) == label]
        weights = np.exp(own.mean(axis=(1, 2)))
        weights /= weights.sum()
        expected = np.log((weights[:, None, None] * np.exp(own)).sum(axis=0)) / 50
        np.testing.assert_allclose(joined.cosines[label].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(joined.cosines[3:], scores.cosines[6:])
    assert joined.label_map().shape == PLAN.image_hw


def test_words_that_score_alike_gain_nothing_by_their_number() -> None:
    plan = plan_of((32, 32), (32, 32))
    labels = (Label("car", ("car", "auto", "van")), Label("road"))
    cosines = torch.tensor([0.3, 0.3, 0.3, 0.3]).reshape(4, 1, 1).expand(4, 2, 2)
    joined = join_synonyms(Scores(cosines, plan, Vocabulary(labels)))
    torch.testing.assert_close(joined.cosines, torch.full((2, 2, 2), 0.3))
    assert np.allclose(joined.probabilities(), 0.5)


def test_the_word_that_fits_the_picture_counts_most() -> None:
    """On the last patch the other word would have won; the picture's word is heard first."""
    plan = plan_of((32, 32), (32, 32))
    lawn, snow = torch.tensor([0.4, 0.4, 0.4, 0.2]), torch.tensor([0.1, 0.1, 0.1, 0.3])
    road = torch.full((4,), 0.25)
    cosines = torch.stack([lawn, snow, road]).reshape(3, 2, 2)
    labels = (Label("ground", ("lawn", "snow")), Label("road"))
    scores = Scores(cosines, plan, Vocabulary(labels))
    assert cosines[:2].amax(dim=0)[1, 1] > cosines[2, 1, 1]
    joined = join_synonyms(scores)
    assert joined.cosines[0, 1, 1] < joined.cosines[1, 1, 1]
    torch.testing.assert_close(joined.cosines[0, 0], cosines[0, 0], rtol=1e-3, atol=1e-4)


def test_a_background_and_contrast_words_stay_as_they_are() -> None:
    plan = plan_of((32, 32), (32, 32))
    labels = (Label("car", ("car", "van")), Label("other", ("thing", "stuff"), background=True))
    words = Vocabulary(labels, ("wall", "van"))
    scores = Scores(torch.rand(len(words.queries), 2, 2), plan, words)
    joined = join_synonyms(scores)
    assert joined.vocabulary.queries == ("car", "thing", "stuff", "wall")
    assert torch.equal(joined.cosines[1:], scores.cosines[2:])
    unbacked = Vocabulary(labels[:1], ("wall",))
    joined = join_synonyms(Scores(torch.rand(3, 2, 2), plan, unbacked))
    assert joined.vocabulary.queries == ("car", "wall")
