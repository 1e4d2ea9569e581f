"""What pictures teach that nobody has corrected, where the truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    Example,
    Label,
    Scores,
    UnlabelledFit,
    Vocabulary,
    adapt_unlabelled,
    judge_adaptation,
)
from clearclip_core.adaptation import targets, unlabelled
from clearclip_core.adaptation.unlabelled import Judgement
from tests.core.adaptation.test_fitting import KNOWN, WORDS, drawn_image, embed

#: Where features lie: on the side of their words that is turned to another one.
TURNED = {
    "sofa": embed(["sofa"])[0],
    "sky": F.normalize(embed(["sky"])[0] + 0.9 * embed(["couch"])[0], dim=-1),
    "": embed(["wall"])[0],
}


def seen(seed: int, places: Mapping[str, torch.Tensor] = TURNED) -> Example:
    features, _ = drawn_image(seed, places)
    return Example.of(features, {}, KNOWN, str(seed))


EXAMPLES = [seen(seed) for seed in range(30)]


def right(fit: UnlabelledFit | None, places: Mapping[str, torch.Tensor] = TURNED) -> float:
    """Return the share of pixels of other pictures that get their label."""
    embeddings, bias, shares = embed(WORDS.queries), None, []
    if fit is not None and fit.adaptation is not None:
        embeddings, bias = fit.adaptation.apply(embeddings, WORDS)
    for seed in range(100, 110):
        features, masks = drawn_image(seed, places)
        truth = np.select([masks["sofa"], masks["sky"]], [0, 1], -1)
        shares.append((Scores.of(features, embeddings, WORDS, bias).label_map() == truth).mean())
    return float(np.mean(shares))


def test_other_pictures_are_labelled_better_without_any_correction() -> None:
    fit = adapt_unlabelled(EXAMPLES, embed, WORDS)
    assert repr(fit) == f"UnlabelledFit(adaptation={fit.adaptation}, images=30)"
    assert right(fit) > right(None) + 0.02
    for name, (before, after) in fit.areas.items():
        shown = {"sofa": 0.6, "sky": 0.2, "dog": 0.0}[name]  # of the pictures, nearly
        assert abs(after - shown) <= abs(before - shown)


def test_a_label_that_the_words_do_not_find_is_made_no_worse() -> None:
    places = TURNED | {"sky": embed(["blicket"])[0]}
    fit = adapt_unlabelled([seen(seed, places) for seed in range(30)], embed, WORDS)
    assert right(fit, places) >= right(None, places) - 0.01


@pytest.mark.parametrize("as_one", [True, False])
def test_labels_with_words_alike_keep_their_order_or_at_least_their_areas(
    monkeypatch: pytest.MonkeyPatch, as_one: bool
) -> None:
    if not as_one:
        monkeypatch.setattr(unlabelled, "_ALIKE", 2)

    def alike(prompts: Sequence[str]) -> torch.Tensor:
        rows = embed(prompts)
        hazy = torch.tensor([[prompt == "haze"] for prompt in prompts])
        return F.normalize(rows + 1.5 * hazy * embed(["sky"]), dim=-1)

    words = Vocabulary((*WORDS.labels, Label("haze")), WORDS.contrast)
    known = tuple(sorted([*KNOWN, "haze"]))
    fit = adapt_unlabelled([replace(each, known=known) for each in EXAMPLES], alike, words)
    assert fit.adaptation is not None
    learned = dict(zip(fit.adaptation.names, fit.adaptation.directions, strict=True))
    assert np.array_equal(learned["haze"], learned["sky"]) == as_one
    for before, after in fit.areas.values():
        assert after >= 0.75 * before


def test_what_all_words_have_in_common_makes_no_labels_alike() -> None:
    def in_a_cone(prompts: Sequence[str]) -> torch.Tensor:  # as CLIP's words are
        return F.normalize(embed(prompts) + 3 * embed(["haze"]), dim=-1)

    made = adapt_unlabelled(EXAMPLES, in_a_cone, WORDS).adaptation
    assert made is not None
    assert len(np.unique(made.directions, axis=0)) == len(made.names) > 1


def test_pictures_that_differ_are_counted_and_too_few_teach_nothing() -> None:
    again = (replace(each, picture=f"again {each.picture}") for each in EXAMPLES[:5])
    few = adapt_unlabelled([*EXAMPLES[:19], *again], embed, WORDS)
    assert few.adaptation is None
    assert few.images == adapt_unlabelled(EXAMPLES[:19], embed, WORDS).images < 20
    assert adapt_unlabelled([], embed, KNOWN).images == 0


def test_order_and_drawn_labels_change_nothing_and_broken_numbers_are_left_out() -> None:
    made = adapt_unlabelled(EXAMPLES, embed, WORDS).adaptation
    assert made is not None
    broken = replace(EXAMPLES[0], features=np.full_like(EXAMPLES[0].features, np.nan), picture="n")
    again = adapt_unlabelled([broken, *EXAMPLES[::-1]], embed, WORDS).adaptation
    assert again is not None
    assert again.digest == made.digest


def test_a_second_encoder_takes_part() -> None:
    def both(seed: int) -> Example:
        features, _ = drawn_image(seed, TURNED)
        told, _ = drawn_image(seed)
        return Example.of(replace(features, second=told.patches), {}, KNOWN, str(seed))

    made = adapt_unlabelled(map(both, range(30)), embed, WORDS).adaptation
    assert made is not None
    assert np.abs(made.directions[:, embed(["sky"]).shape[1] :]).max() > 0


def test_2997_labels_more_that_no_picture_shows_win_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "_PIXELS", 900)
    none = [f"none {number}" for number in range(2997)]

    def far_off(prompts: Sequence[str]) -> torch.Tensor:
        rows = embed(prompts)
        away = torch.tensor([[prompt.startswith("none")] for prompt in prompts])
        return F.normalize(rows - 3 * away * sum(TURNED.values()), dim=-1)

    words = Vocabulary((*WORDS.labels, *map(Label, none)), WORDS.contrast)
    known = tuple(sorted([*KNOWN, *none]))
    fit = adapt_unlabelled([replace(each, known=known) for each in EXAMPLES], far_off, words)
    assert right(fit) > right(None) + 0.02
    assert len(fit.areas) == 3000
    assert max(max(fit.areas[name]) for name in none) == 0


def test_what_it_gained_is_told_by_corrections() -> None:
    made = adapt_unlabelled(EXAMPLES, embed, WORDS).adaptation
    assert made is not None
    corrections = []
    for seed in range(200, 206):
        features, masks = drawn_image(seed, TURNED)
        corrections.append(Example.of(features, masks, KNOWN, str(seed)))
    judged = judge_adaptation(made, corrections, embed, WORDS)
    assert (judged.gain > 0.01, judged.has_lost) == (True, False)
    turned = replace(made, directions=-made.directions, offsets=-made.offsets)
    judged = judge_adaptation(turned, corrections, embed, WORDS)
    assert (judged.gain < 0, judged.has_lost) == (True, True)
    assert judged.losing
    assert judge_adaptation(made, [], embed, KNOWN) == Judgement()


def test_masks_that_stood_neither_praise_nor_blame_what_showed_them() -> None:
    """One label was drawn and the other stood as it was shown, right or wrong."""
    made = adapt_unlabelled(EXAMPLES, embed, WORDS).adaptation
    assert made is not None
    gains = []
    for shown in ("sky", "dog"):  # what stands where the sky is
        corrections = []
        for seed in range(200, 206):
            features, masks = drawn_image(seed, TURNED)
            stood = {shown: masks["sky"]}
            drawn = {"sofa": masks["sofa"]}
            corrections.append(Example.of(features, drawn | stood, KNOWN, str(seed), kept=stood))
        gains.append(judge_adaptation(made, corrections, embed, WORDS).gain)
    assert gains[0] == pytest.approx(gains[1], abs=1e-6)
