"""What corrections teach: the best answer against autograd, and what it does to label maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_info, threadpool_limits

from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Example,
    Label,
    Scores,
    Segmenter,
    SufficientStatistics,
    Vocabulary,
    adapt,
    render_scene,
)
from clearclip_core.adaptation.acceptance import Comparison
from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.selection import Refusal, Selection
from tests.core.adaptation.test_examples import SMALL, WIDTH, features_of

WORDS = Vocabulary((Label("sofa", ("sofa", "couch")), Label("sky"), Label("dog")), ("wall", "tin"))


def embed(prompts: Sequence[str]) -> torch.Tensor:
    """Any words, each with a direction of its own."""
    seeds = [sum(map(ord, prompt)) for prompt in prompts]
    rows = [np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]
    return F.normalize(torch.tensor(np.array(rows), dtype=torch.float32), dim=-1)


#: Where the features of what is shown really lie: "sky" is not where its word is.
PLACES = {"sofa": embed(["sofa"])[0], "sky": embed(["blicket"])[0], "": embed(["wall"])[0]}


def drawn_image(
    seed: int, places: Mapping[str, torch.Tensor] = PLACES
) -> tuple[DenseFeatures, dict]:
    """A picture of two labels and nothing, whose features lie at their places but for noise.

    Their borders move by a patch where the second window ends, so no mask is a box.
    """
    rng = np.random.default_rng(seed)
    left, right = sorted(rng.choice(np.arange(1, 4), 2, replace=False))
    owners = np.full((5, 4), "", object)  # of patches of 16 px
    for row in range(5):
        step = row // 3
        owners[row, : left + step] = "sofa"
        owners[row, left + step : right + step] = "sky"
    masks = {name: np.kron(owners == name, np.ones((16, 16), np.bool_)) for name in ("sofa", "sky")}
    noise = torch.randn(SMALL.count, *SMALL.grid_hw, WIDTH, generator=torch.manual_seed(seed))
    windows = (owners[:4], owners[1:])
    means = torch.stack([places[name] for window in windows for name in window.ravel()])
    features = means.reshape(noise.shape) + 0.15 * noise
    return DenseFeatures(F.normalize(features, dim=-1), SMALL), masks


def examples_of(count: int) -> list[Example]:
    return [Example.of(*drawn_image(seed), known=["sofa", "sky", "dog"]) for seed in range(count)]


def learn(count: int = 8, vocabulary: Vocabulary = WORDS) -> Adaptation:
    made = adapt(examples_of(count), embed, vocabulary).adaptation
    assert made is not None
    return made


def test_pictures_that_were_not_learned_from_are_labelled_better() -> None:
    fit = adapt(examples_of(8), embed, WORDS)
    assert fit.pictures == 8
    assert fit.adapted_iou > fit.text_iou + 0.2
    assert fit.adaptation is not None
    embeddings, bias = fit.adaptation.apply(embed(WORDS.queries), WORDS)
    shares = []
    for seed in range(100, 105):
        features, masks = drawn_image(seed)
        truth = np.select([masks["sofa"], masks["sky"]], [0, 1], -1)
        with_words = Scores.of(features, embed(WORDS.queries), WORDS).label_map()
        learned = Scores.of(features, embeddings, WORDS, bias).label_map()
        shares.append([(with_words == truth).mean(), (learned == truth).mean()])
    before, after = np.mean(shares, axis=0)
    assert after > before + 0.15


def test_labels_without_corrections_keep_their_scores_bit_for_bit() -> None:
    learned = learn()
    assert learned.names == ("sky", "sofa")
    embeddings = embed(WORDS.queries)
    made, bias = learned.apply(embeddings, WORDS)
    dog = WORDS.queries.index("dog")
    assert torch.equal(made[dog], embeddings[dog])
    assert bias[dog] == 0
    sofa, couch = (made - embeddings)[:2]
    assert sofa.numpy() == pytest.approx(
        couch.numpy(), abs=1e-6
    )  # all queries get the label's term
    features, _ = drawn_image(3)
    plain = Scores.of(features, embeddings, WORDS).cosines
    adapted = Scores.of(features, made, WORDS, bias).cosines
    assert adapted[dog].numpy() == pytest.approx(plain[dog].numpy(), abs=1e-7)


def test_renamed_and_new_labels_leave_what_the_others_learned() -> None:
    words = Vocabulary((Label("couch"), Label("sky"), Label("cat")), ("wall", "tin"))
    learned = learn(vocabulary=words)
    assert learned.names == ("sky",)


def test_labels_that_came_later_had_no_chance_on_older_pictures() -> None:
    """Even one whose word is just where the sky's features lie."""
    later = Vocabulary((*WORDS.labels, Label("blicket")), WORDS.contrast)
    assert (
        adapt(examples_of(4), embed, later).text_ious
        == adapt(examples_of(4), embed, WORDS).text_ious
    )
    knowing = [Example.of(*drawn_image(seed), known=["blicket"]) for seed in range(4)]
    assert adapt(knowing, embed, later).text_ious != adapt(examples_of(4), embed, later).text_ious


def test_order_makes_no_difference_to_a_bit() -> None:
    one, other = (adapt(some, embed, WORDS) for some in (examples_of(6), examples_of(6)[::-1]))
    assert one.adaptation is not None
    assert other.adaptation is not None
    assert one.adaptation.digest == other.adaptation.digest
    assert (one.text_iou, one.adapted_iou) == (other.text_iou, other.adapted_iou)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_example_that_is_not_finite_is_left_out_and_the_others_stay_to_a_bit(
    value: float,
) -> None:
    """One patch of it, as a picture gives it, and as earlier releases have kept it."""
    features, masks = drawn_image(50)
    features.patches[0, 2, 1, 3] = value
    broken = Example.of(features, masks, known=["sofa", "sky", "dog"])
    whole = Example.of(*drawn_image(50), known=["sofa", "sky", "dog"])
    assert (broken.is_finite, whole.is_finite) == (False, True)
    patches = whole.patches.copy()
    patches[0, 0] = value
    kept = Example.from_bytes(replace(whole, patches=patches).to_bytes())
    expected = adapt(examples_of(6), embed, WORDS)
    fit = adapt([broken, *examples_of(6), kept], embed, WORDS)
    assert expected.adaptation is not None
    assert fit.adaptation is not None
    assert fit.adaptation.digest == expected.adaptation.digest
    assert asdict(replace(fit, adaptation=None)) == asdict(replace(expected, adaptation=None))


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_learned_where_nothing_can_be_held_out(count: int) -> None:
    fit = adapt(examples_of(count), embed, WORDS)
    assert (fit.adaptation, fit.priors, fit.pictures) == (None, {}, count)
    assert fit.text_iou == fit.adapted_iou


def corrections_of(count: int, picture: str, places: Mapping[str, torch.Tensor]) -> list[Example]:
    """A picture as several annotators leave it: each paints the sky lower by another patch."""
    features, masks = drawn_image(int(picture), places)
    made = []
    for lower in range(count):
        masks["sky"][: 16 * lower] = False
        made.append(Example.of(features, masks, ["sofa", "sky", "dog"], picture))
    return made


def test_one_picture_is_one_however_many_annotators_it_had() -> None:
    fit = adapt(corrections_of(3, "5", PLACES), embed, WORDS)
    assert (fit.adaptation, fit.priors, fit.pictures) == (None, {}, 1)
    assert fit.text_iou == fit.adapted_iou
    some = [example for picture in "012567" for example in corrections_of(3, picture, PLACES)]
    fit = adapt(some, embed, WORDS)
    assert fit.adaptation is not None
    assert (fit.pictures, fit.adaptation.pictures) == (6, 6)


def test_a_second_annotator_who_agrees_changes_nothing() -> None:
    """Nor where one picture has two and the others one: it still counts as one."""
    once = [example for seed in range(6) for example in corrections_of(1, f"{seed}", PLACES)]
    one = adapt(once, embed, WORDS)
    assert one.adaptation is not None
    for more in (once, once[:1]):
        twice = adapt([*once, *more], embed, WORDS)
        assert twice.adaptation is not None
        assert (twice.priors, twice.pictures) == (one.priors, 6)
        assert twice.text_iou == pytest.approx(one.text_iou, abs=1e-6)
        assert twice.adapted_iou == pytest.approx(one.adapted_iou, abs=0.01)
        assert twice.adaptation.directions == pytest.approx(one.adaptation.directions, abs=0.02)


def test_what_is_known_by_heart_does_not_go_live() -> None:
    """The words are right but where annotators were wrong by lot. Of those pictures nothing holds
    for others; each is known again by itself where its other annotator was learned from."""
    width, words = 48, Vocabulary((Label("sofa"), Label("sky")))
    is_wrong = np.random.default_rng(0).random(15) < 0.3

    def prompts(phrases: Sequence[str]) -> torch.Tensor:
        return torch.eye(width)[[words.queries.index(phrase) for phrase in phrases]]

    def examples(named: bool) -> Iterator[Example]:
        for index, wrong in enumerate(is_wrong):
            random = torch.manual_seed(index)
            place = torch.randn(width, generator=random)
            place[:2] = torch.tensor([2.0, -2.0]) * (-1) ** index
            noise = torch.randn(SMALL.count, *SMALL.grid_hw, width, generator=random)
            features = DenseFeatures(F.normalize(place + 0.2 * noise, dim=-1), SMALL)
            name = ("sofa", "sky")[(index + wrong) % 2]
            for top in (0, 16):
                mask = np.ones((80, 64), np.bool_)
                mask[:top] = False
                mask[-16:, 32:] = False  # no box
                example = Example.of(features, {name: mask}, ["sofa", "sky"])
                # Without a name and a layout nobody sees that two examples are of one picture.
                yield replace(example, picture=f"{index}" if named else "", layout=None)

    def learned(named: bool) -> Adaptation | None:
        some = list(examples(named))
        return adapt(some, prompts, words, trusted=[each.digest for each in some]).adaptation

    assert learned(named=False) is not None
    assert learned(named=True) is None


def test_words_that_are_right_are_left_alone() -> None:
    right = {"sofa": embed(["sofa"])[0], "sky": embed(["sky"])[0], "": embed(["wall"])[0]}
    fit = adapt(
        [Example.of(*drawn_image(i, right), known=["sofa"]) for i in range(4)], embed, WORDS
    )
    assert fit.text_iou > 0.95
    assert fit.adapted_iou >= fit.text_iou


def test_a_fit_takes_one_thread_and_gives_the_others_back() -> None:
    def blas_threads() -> set[int]:
        pools = threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    seen: list[set[int]] = []

    def noting(prompts: Sequence[str]) -> torch.Tensor:
        seen.append(blas_threads())
        return embed(prompts)

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        adapt(examples_of(2), noting, WORDS)
        assert blas_threads() == before
    assert 2 in before
    assert seen == [{1}]


def test_what_costs_a_label_more_than_the_bound_is_refused_with_a_reason() -> None:
    """Every label keeps less than a whole IoU more, so that none can keep this bound."""
    fit = adapt(examples_of(8), embed, WORDS, label_loss=-1)
    assert (fit.adaptation, fit.priors) == (None, {})
    assert fit.adapted_iou == fit.text_iou
    assert fit.refused.keys() == {"sky", "sofa"}
    assert "above the bound of -100" in fit.refused["sky"]


def test_labels_that_show_on_one_picture_are_named_as_such() -> None:
    fit = adapt(examples_of(1), embed, WORDS)
    assert fit.refused["sky"] == (
        "It can be learned from 1 of 1 different pictures that show it, and needs 2."
    )


def test_a_label_that_covers_what_nobody_paints_with_its_own_is_named_as_such() -> None:
    """Skies are painted as skies and so are sofas, in all pictures."""
    right = {"sofa": embed(["sofa"])[0], "sky": embed(["sky"])[0], "": embed(["wall"])[0]}
    examples = []
    for seed in range(4):
        features, masks = drawn_image(seed, right)
        everything = {"sky": masks["sofa"] | masks["sky"]}
        examples.append(Example.of(features, everything, ["sofa", "sky"]))
    fit = adapt(examples, embed, WORDS)
    assert fit.adaptation is None
    assert fit.refused == {
        "sky": "Too much of its paint is where the words see labels that nobody paints."
    }


def test_an_exchanged_picture_is_set_aside_until_it_is_trusted() -> None:
    """Its sofa is called sky and its sky sofa; the words and the others say otherwise."""
    right = {"sofa": embed(["sofa"])[0], "sky": embed(["sky"])[0], "": embed(["wall"])[0]}
    others = [Example.of(*drawn_image(seed, right), known=["sofa", "sky"]) for seed in range(6)]
    features, masks = drawn_image(20, right)
    turned = {"sofa": masks["sky"], "sky": masks["sofa"]}
    wrong = Example.of(features, turned, ["sofa", "sky"])
    fit = adapt([*others, wrong], embed, WORDS)
    assert {(each.example, each.label) for each in fit.set_aside} == {
        (wrong.digest, "sofa"),
        (wrong.digest, "sky"),
    }
    assert not adapt([*others, wrong], embed, WORDS, trusted=[wrong.digest]).set_aside


def test_what_gains_by_paint_and_loses_on_average_is_refused_with_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(selection: Selection, learning: np.ndarray) -> None:
        ious, nothing = np.full(len(learning), 0.5), np.zeros_like(learning)
        falls = Comparison(ious, ious - 0.01, 0.02, 0.01, -ious, ious)
        selection.refusals.append(Refusal(learning, nothing, falls))

    monkeypatch.setattr(Selection, "select", refuse)
    fit = adapt(examples_of(2), embed, WORDS)
    assert fit.adaptation is None
    assert set(fit.refused.values()) == {
        "It gains where pictures are painted, but the mean IoU of all labels falls."
    }


def test_examples_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="another model"):
        adapt(examples_of(2), lambda prompts: torch.ones(len(prompts), 5), WORDS)


def reference_targets(
    example: Example, text: torch.Tensor, names: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (N, G) targets and (N,) which are paint; all patches are of one label or none.

    The annotator has painted the sofa wherever its word sees one. Where nothing is painted, the
    words' own answer without the sofa is the target.
    """
    paint = torch.zeros(len(text), len(names)).double()
    for column, name in enumerate(example.names):
        if name:
            paint[:, names.index(name)] = torch.from_numpy(example.coverage[:, column] * 1.0)
    known = paint.sum(dim=1) > 0
    words = text.softmax(dim=1)
    words[:, names.index("sofa")] = 0
    words = words / words.sum(dim=1, keepdim=True)
    return torch.where(known[:, None], paint, words), known


def reference_whitening(images: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Whiten within the most probable groups; n patches of an image weigh n / (n + 4)."""
    counts, sums = np.zeros(4), np.zeros((4, WIDTH))
    moment = np.zeros((WIDTH, WIDTH))
    for patches, target in images:
        owner = target.argmax(dim=1).numpy()
        for group in np.unique(owner):
            own = patches.numpy()[owner == group]
            weight = len(own) / (len(own) + 4)
            counts[group] += weight
            sums[group] += weight * own.mean(axis=0)
            moment += weight * own.T @ own / len(own)
    statistics = SufficientStatistics(("a", "b", "c", "d"), counts, sums, moment, len(images))
    return torch.from_numpy(statistics.whitening(0.1))


def reference_weights(areas: Sequence[np.ndarray]) -> torch.Tensor:
    """Weigh each group by how frequent it is in nine of ten draws of the images, at most."""
    table = np.array(areas)
    drawn = np.random.default_rng(0).multinomial(8, [1 / 8] * 8, size=400) @ table / 8
    mean, upper = table.mean(axis=0), np.quantile(drawn, 0.9, axis=0)
    factors = np.where(mean > 0, upper / np.maximum(mean, 1e-9), 1)
    return torch.from_numpy(factors * mean.sum() / (factors * mean).sum())


def posterior(
    priors: Mapping[str, float], offset_variances: Mapping[str, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best terms by autograd, all in one: directions and offsets of sofa, sky, dog and ""."""
    examples = sorted(examples_of(8), key=lambda each: each.digest)
    names = ["sofa", "sky", "dog", ""]
    owners = [[0, 1], [2], [3], [4, 5]]
    patches, text, targets, truth, areas_painted = [], [], [], [], []
    for each in examples:
        flat = torch.from_numpy(each.patches.astype(np.float64))
        cosines = 50 * flat @ embed(WORDS.queries).double().T
        patches.append(flat)
        text.append(torch.stack([cosines[:, some].amax(dim=1) for some in owners], dim=1))
        target, known = reference_targets(each, text[-1], names)
        targets.append(target)
        areas = target * known[:, None]
        share = areas.sum(dim=0) ** 0.75 * areas.sum(dim=0) / (areas.sum(dim=0) + 4)
        painted = areas / areas.sum(dim=0).clamp(min=1e-9) * share / share.sum()
        areas_painted.append(painted.sum(dim=0).numpy())
        truth.append(painted + target * ~known[:, None] / len(flat))
    root = reference_whitening(list(zip(patches, targets, strict=True)))
    x, base, y = torch.cat(patches), torch.cat(text), torch.cat(truth)
    y = y * reference_weights(areas_painted)
    middle = (y.sum(dim=1)[:, None] * x).sum(dim=0) / y.sum()
    free = torch.zeros(4, WIDTH, dtype=torch.float64, requires_grad=True)
    level = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    learning = torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    precisions = torch.tensor([priors.get(name, 1.0) for name in names]).double()
    variances = torch.tensor([offset_variances.get(name, 1.0) for name in names]).double()
    optimizer = torch.optim.LBFGS(
        [free, level], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = base + ((x - middle) @ root @ free.T + level) * learning
        lost = -(y * logits.log_softmax(dim=1)).sum()
        squares = (free**2).sum(dim=1) + level**2 / variances
        lost = lost + (precisions * squares).sum() / 2
        lost.backward()
        return lost

    optimizer.step(closure)
    directions = (free @ root).detach()
    return directions / 50, (level.detach() - directions @ middle) / 50


def test_terms_are_the_posterior_mode() -> None:
    fit = adapt(examples_of(8), embed, WORDS)
    assert fit.adaptation is not None
    assert fit.text_ious["sky"] < 0.1  # its word is wrong
    assert fit.priors["sky"] == pytest.approx(0.8 / 8)
    assert fit.priors["sofa"] < 3.0
    # wider offsets gain nothing here
    directions, offsets = posterior(fit.priors, {"sky": 10**0.5, "sofa": 10**0.5})
    order = [1, 0]  # sky, sofa
    assert fit.adaptation.directions == pytest.approx(directions[order].numpy(), abs=2e-3)
    assert fit.adaptation.offsets == pytest.approx(offsets[order].numpy(), abs=2e-3)


# ---- adaptations ----------------------------------------------------------------------------


def test_other_bytes_are_refused() -> None:
    learned = learn().to_bytes()
    for data in (b"", b"nonsense", learned[:-1], examples_of(1)[0].to_bytes()):
        with pytest.raises(ValueError, match="bytes of an adaptation"):
            Adaptation.from_bytes(data)
    with pytest.raises(ValueError, match="another model"):
        Adaptation.from_bytes(learned, width=WIDTH + 1)
    with pytest.raises(ValueError, match="another model"):
        Example.from_bytes(examples_of(1)[0].to_bytes(), width=512)


def test_adaptations_survive_their_bytes() -> None:
    learned = learn()
    read = Adaptation.from_bytes(learned.to_bytes(), width=WIDTH)
    assert read.digest == learned.digest
    assert (read.names, read.pictures) == (learned.names, 8)
    assert np.array_equal(read.directions, learned.directions)
    other = Adaptation(read.names, read.directions, read.offsets + np.float32(0.1), 8)
    assert other.digest != learned.digest


def test_adaptations_check_themselves() -> None:
    with pytest.raises(ValueError, match="sorted"):
        Adaptation(("b", "a"), np.ones((2, 3), np.float32), np.ones(2, np.float32), 1)
    with pytest.raises(ValueError, match="`offsets` to be of shape"):
        Adaptation(("a",), np.ones((1, 3), np.float32), np.ones(2, np.float32), 1)
    with pytest.raises(ValueError, match="another model"):
        learn().apply(torch.ones(6, WIDTH + 1), WORDS)


def test_a_segmenter_applies_what_was_learned() -> None:
    """Renamed to a word that means nothing, the sky is found again."""
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    names = ["blicket", "grass"]
    examples = []
    for seed in (4, 5, 6, 7, 9, 10, 11, 12):
        scene = render_scene(seed, size_hw=(128, 160))
        masks = {"blicket": scene.label_map == 0, "grass": scene.label_map == 4}
        examples.append(Example.of(segmenter.encode(scene.image), masks, names))
    words = segmenter.vocabulary(names, contrast=True)
    fit = adapt(examples, segmenter.embed, words)
    assert fit.adaptation is not None
    unseen = render_scene(8, size_hw=(128, 160))
    plain = segmenter.segment(unseen.image, words)
    learned = segmenter.segment(unseen.image, words, adaptation=fit.adaptation)
    again = segmenter.segment(unseen.image, words, adaptation=None)
    assert np.array_equal(plain.label_map, again.label_map)
    assert np.array_equal(plain.confidence, again.confidence)
    sky = unseen.label_map == 0
    assert (learned.label_map[sky] == 0).mean() > (plain.label_map[sky] == 0).mean() + 0.3
    assert json.dumps(dict(fit.adapted_ious))  # plain numbers, to be kept beside a version


def test_methods_that_weigh_classes_refuse_it() -> None:
    cls = torch.ones(SMALL.count, WIDTH)
    weighed = DenseFeatures(features_of(0).patches, SMALL, cls, remove_redundancy=True)
    with pytest.raises(ValueError, match="`bias` to be None"):
        Scores.of(weighed, embed(WORDS.queries), WORDS, torch.zeros(len(WORDS.queries)))


def test_lessons_are_fitted_to_words_with_the_presence_prior() -> None:
    """Against the sum of the two cosines, patch by patch."""
    rows, masks = drawn_image(1)
    sofa_words, other = embed(["sofa", "couch"]), embed(["blicket"])[0]
    cls = F.normalize(sofa_words.mean(dim=0) + other, dim=0).expand(SMALL.count, WIDTH)
    seen = Example.of(DenseFeatures(rows.patches, SMALL, cls), masks, ["sofa", "sky", "dog"])
    embeddings = embed(WORDS.queries)
    batch = Batch.of(seen.with_presence(0.25), embeddings.numpy(), WORDS, limit=10**6)
    kept = torch.from_numpy(seen.patches.astype(np.float32))
    cosines = 0.75 * kept @ embeddings.T + 0.25 * embeddings @ cls[0]
    expected = 50 * torch.stack([cosines[:, :2].amax(dim=1), cosines[:, 2]], dim=1)
    np.testing.assert_allclose(batch.text[:, :2], expected.numpy(), rtol=1e-3, atol=1e-2)
