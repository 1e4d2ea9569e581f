"""The presence prior against shifted features, and what it is for."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Scores, Vocabulary
from clearclip_core.segmentation.scores import apply_presence
from tests.core.segmentation.test_scores import PLAN, WORDS, features_of, unit
from tests.core.segmentation.test_sliding_windows import plan_of


def test_it_equals_a_constant_shift_of_the_features() -> None:
    features, queries, image_cls = features_of(), unit(8, 12, seed=2), unit(1, 12, seed=4)[0]
    shifted = DenseFeatures(0.7 * features.patches + 0.3 * image_cls, PLAN)
    embeddings, offsets = apply_presence(queries, image_cls, 0.3)
    made = Scores.of(features, embeddings, WORDS, offsets).cosines
    expected = Scores.of(shifted, queries, WORDS).cosines
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)


def test_of_two_words_that_a_patch_fits_alike_the_one_that_the_image_shows_wins() -> None:
    dog, wolf = torch.eye(2)
    plan = plan_of((32, 32), (32, 32))
    features = DenseFeatures(F.normalize(dog + wolf, dim=0).expand(1, 2, 2, 2), plan)
    for image_cls, winner in ((dog, 0), (wolf, 1)):
        embeddings, offsets = apply_presence(torch.eye(2), image_cls, 0.1)
        scores = Scores.of(features, embeddings, Vocabulary.of(["dog", "wolf"]), offsets)
        assert np.unique(scores.label_map()).tolist() == [winner]
