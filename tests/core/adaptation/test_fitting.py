"""What corrections teach: the mode against autograd, and what it does to label maps."""

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_info, threadpool_limits

from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Example,
    Fit,
    Label,
    Scores,
    Segmenter,
    Vocabulary,
    adapt,
    render_scene,
)
from clearclip_core.adaptation import fitting
from clearclip_core.adaptation.fitting import HeldOutAdaptations, Judge, Regression, find_losing
from clearclip_core.adaptation.targets import Targets
from clearclip_core.vocabulary import TEMPERATURE
from tests.core.adaptation.test_example import SMALL, WIDTH

Mask = npt.NDArray[np.bool_]

WORDS = Vocabulary((Label("sofa", ("sofa", "couch")), Label("sky"), Label("dog")), ("wall", "tin"))
KNOWN = ("sofa", "sky", "dog")
WORDS_AT = {"sofa": 0, "sky": 1, "dog": 2}


def embed(prompts: Sequence[str]) -> torch.Tensor:
    """Any words, each with a direction of its own."""
    seeds = [sum(map(ord, prompt)) for prompt in prompts]
    rows = [np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]
    return F.normalize(torch.tensor(np.array(rows), dtype=torch.float32), dim=-1)


#: Where the features of what is shown really lie: "sky" is not where its word is.
PLACES = {"sofa": embed(["sofa"])[0], "sky": embed(["blicket"])[0], "": embed(["wall"])[0]}


def drawn_image(
    seed: int, places: Mapping[str, torch.Tensor] = PLACES
) -> tuple[DenseFeatures, dict[str, npt.NDArray[np.bool_]]]:
    """A picture of two labels and nothing, whose features lie at their places but for noise."""
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


def example_of(seed: int, picture: str = "", annotator: str = "") -> Example:
    features, masks = drawn_image(seed)
    return Example.of(features, masks, KNOWN, picture, annotator=annotator)


def shown_by(adaptation: Adaptation | None, features: DenseFeatures) -> dict[str, Mask]:
    """The masks of the words, or of what was learned."""
    embeddings, bias = embed(WORDS.queries), None
    if adaptation is not None:
        embeddings, bias = adaptation.apply(embeddings, WORDS)
    label_map = Scores.of(features, embeddings, WORDS, bias).label_map()
    masks = {name: label_map == index for index, name in enumerate(KNOWN)}
    return {name: mask for name, mask in masks.items() if mask.any()}


def accepted(seed: int) -> Example:
    """A picture whose prediction by the words was accepted as it is."""
    features, _ = drawn_image(seed)
    masks = shown_by(None, features)
    return Example.of(features, masks, KNOWN, kept=masks)


EXAMPLES = [example_of(seed) for seed in range(8)]


def learn(examples: Sequence[Example] = EXAMPLES, words: Vocabulary = WORDS) -> Adaptation:
    made = adapt(examples, embed, words).adaptation
    assert made is not None
    return made


def test_a_gain_is_of_all_labels_and_those_without_a_figure_are_unchanged() -> None:
    """0.2 of one label and 0.4 of another, of the six that are in use."""
    before, after = {"sofa": 0.2, "sky": 0.4}, {"sofa": 0.4, "sky": 0.8}
    fit = Fit(None, before, after, shown={"sofa": 5, "sky": 5, "lamp": 2}, labels=6)
    assert fit.gain == pytest.approx((0.2 + 0.4) / 6)
    assert Fit(None, labels=6).gain == 0


def test_all_labels_in_use_count() -> None:
    assert adapt(EXAMPLES, embed, WORDS).labels == len(WORDS.labels)


def test_pictures_that_were_not_learned_from_are_labelled_better() -> None:
    fit = adapt(EXAMPLES, embed, WORDS)
    assert repr(fit) == f"Fit(adaptation={fit.adaptation}, pictures=8, refused={{}})"
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


def second_example(seed: int, words_tell: bool) -> Example:
    """A picture that one encoder sees right; the other one's features are noise."""
    told, masks = drawn_image(seed)
    noise = F.normalize(torch.randn(told.patches.shape, generator=torch.manual_seed(~seed)), dim=-1)
    parts = (told.patches, noise) if words_tell else (noise, told.patches)
    return Example.of(DenseFeatures(parts[0], SMALL, second=parts[1]), masks, KNOWN, str(seed))


@pytest.mark.parametrize("words_tell", [True, False])
def test_a_second_encoder_is_used_where_held_out_pictures_gain_by_it(words_tell: bool) -> None:
    both = [second_example(seed, words_tell) for seed in range(4)]
    alone = [replace(each, features=each.features[:, :WIDTH]) for each in both]
    fit, without = (adapt(examples, embed, WORDS) for examples in (both, alone))
    assert fit.adaptation is not None
    if words_tell:
        assert without.adaptation is not None
        assert fit.adaptation.digest == without.adaptation.digest
    else:
        assert fit.adaptation.width == 2 * WIDTH
        assert fit.adapted_iou > without.adapted_iou + 0.2
    with pytest.raises(ValueError, match="another model's"):
        adapt([*alone, *both], embed, WORDS)  # never features of two models together


def sofa_with_little_sky(seed: int) -> Example:
    features, _ = drawn_image(seed, PLACES | {"": PLACES["sofa"], "sky": PLACES["sofa"]})
    sky = np.zeros((80, 64), np.bool_)
    row = 16 * (seed % 3)
    sky[row : row + 16, 16:32] = True
    patches = features.patches.clone()
    patches[0, seed % 3, 1] = PLACES["sky"]
    if seed % 3:
        patches[1, seed % 3 - 1, 1] = PLACES["sky"]
    return Example.of(DenseFeatures(patches, SMALL), {"sky": sky, "sofa": ~sky}, KNOWN)


def test_a_small_label_does_not_wither() -> None:
    """It covers a twentieth, and its word finds nothing of it."""
    fit = adapt([sofa_with_little_sky(seed) for seed in range(8)], embed, WORDS)
    assert fit.text_ious["sky"] < 0.1
    assert fit.found["sky"] < 0.1 < fit.found["sofa"]
    assert fit.adapted_ious["sky"] > 0.3
    assert fit.adapted_ious["sofa"] >= fit.text_ious["sofa"] - 0.03


def test_predictions_that_were_accepted_change_nothing() -> None:
    assert learn([*EXAMPLES, *map(accepted, range(20, 28))]).digest == learn().digest
    fit = adapt([accepted(seed) for seed in range(8)], embed, WORDS)
    assert (fit.adaptation, fit.pictures) == (None, 0)


def test_a_week_in_which_all_is_accepted_changes_nothing() -> None:
    """What a version shows is no evidence for the version, however often nobody touched it."""
    first = learn()
    week = []
    for seed in range(20, 50):
        features, _ = drawn_image(seed)
        masks = shown_by(first, features)
        week.append(Example.of(features, masks, KNOWN, kept=masks))
    assert learn([*EXAMPLES, *week]).digest == first.digest


def test_what_stands_on_a_corrected_picture_is_held_in_place() -> None:
    """The words have the sky wrong: a version finds it, and it stands while others are drawn."""
    features, masks = drawn_image(0)
    known = {"sofa": masks["sofa"], "sky": masks["sky"]}
    example = Example.of(features, known, KNOWN, kept={"sky": masks["sky"]})
    targets = Targets.of([example], embed(WORDS.queries), WORDS)
    stands = targets.target[targets.kept]
    assert stands[:, WORDS_AT["sky"]].tolist() == [1] * len(stands)
    assert targets.text[targets.kept].argmax(axis=1).tolist() != [WORDS_AT["sky"]] * len(stands)
    assert not targets.drawn[targets.kept].any()
    assert targets.fit_weights[targets.kept] == pytest.approx(targets.weights[targets.kept])


def test_what_stands_judges_nothing() -> None:
    """A version would be praised for what it showed, and the words where they showed it."""
    features, masks = drawn_image(0)
    known = {"sofa": masks["sofa"], "sky": masks["sky"]}
    example = Example.of(features, known, KNOWN, kept={"sky": masks["sky"]})
    targets = Targets.of([example], embed(WORDS.queries), WORDS)
    assert targets.kept.any()
    assert not targets.truth[targets.kept].any()
    assert targets.truth[~targets.kept].sum() == pytest.approx(1 - masks["sky"].mean(), abs=0.02)


def test_a_label_that_stands_and_has_gone_says_nothing_of_the_others() -> None:
    features, masks = drawn_image(0)
    known = {"sofa": masks["sofa"], "old": masks["sky"]}
    example = Example.of(features, known, [*KNOWN, "old"], kept={"old": masks["sky"]})
    targets = Targets.of([example], embed(WORDS.queries), WORDS)
    there = {bytes(each) for each in targets.features}
    gone = {bytes(each) for each in example.features[example.kept >= 0]}
    assert gone
    assert not gone & there


def test_order_makes_no_difference_to_a_bit() -> None:
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [5, 6, 7, 4, 3, 2, 1, 0], [3, 0, 6, 1, 7, 4, 2, 5]):
        assert learn([EXAMPLES[index] for index in order]).digest == learn().digest


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_example_that_is_not_finite_is_left_out(value: float) -> None:
    features = EXAMPLES[0].features.copy()
    features[0, 0] = value
    assert learn([*EXAMPLES, replace(EXAMPLES[0], features=features)]).digest == learn().digest


def test_what_was_removed_is_no_target() -> None:
    """Where nobody drew, the words' answer is the target, but not a label that was taken away."""
    features, masks = drawn_image(0)
    gone = {"dog": np.ones((80, 64), np.bool_), "sofa": masks["sky"]}
    example = Example.of(features, {"sofa": masks["sofa"]}, KNOWN, removed=gone)
    targets = Targets.of([example], embed(WORDS.queries), WORDS)
    counted = targets.target[targets.weights > 0].sum(axis=1)
    assert counted == pytest.approx(np.ones(len(counted)), abs=1e-5)
    assert not targets.truth[:, WORDS_AT["dog"]].any()
    assert not targets.target[:, WORDS_AT["dog"]].any()
    bare = ~targets.drawn
    assert bare.any()
    assert (targets.target[bare, WORDS_AT["sofa"]] > 0).any()


def test_labels_without_corrections_keep_their_scores_bit_for_bit() -> None:
    learned = learn()
    assert learned.names == ("sky", "sofa")
    embeddings = embed(WORDS.queries)
    made, bias = learned.apply(embeddings, WORDS)
    dog = WORDS.queries.index("dog")
    assert torch.equal(made[dog], embeddings[dog])
    assert bias[dog] == 0
    sofa, couch = (made - embeddings)[:2]  # all queries get the label's term
    assert sofa.numpy() == pytest.approx(couch.numpy(), abs=1e-6)


def test_labels_that_are_left_as_the_words_have_them_get_no_term() -> None:
    fit = adapt(EXAMPLES, embed, WORDS, as_words=["sofa"])
    assert fit.adaptation is not None
    assert fit.adaptation.names == ("sky",)
    assert fit.refused == {"sofa": "It is left as the words have it."}


def test_renamed_and_new_labels_leave_what_the_others_learned() -> None:
    words = Vocabulary((Label("couch"), Label("sky"), Label("cat")), ("wall", "tin"))
    assert learn(words=words).names == ("sky",)


def test_labels_that_came_later_had_no_chance_on_older_pictures() -> None:
    """Even one whose word is just where the sky's features lie."""
    words = Vocabulary((*WORDS.labels, Label("blicket")), WORDS.contrast)
    targets = Targets.of(EXAMPLES, embed(words.queries), words)
    assert not targets.target[:, 3].any()
    assert (targets.text[:, 3] < -1000).all()


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_learned_where_nothing_can_be_held_out(count: int) -> None:
    fit = adapt(EXAMPLES[:count], embed, WORDS)
    assert (fit.adaptation, fit.pictures) == (None, count)
    assert set(fit.refused) == ({"sofa", "sky"} if count else set())
    assert HeldOutAdaptations.fit(EXAMPLES[:count], embed, KNOWN).others is None


def test_one_picture_is_one_however_many_annotators_it_had() -> None:
    several = [example_of(0, picture="p", annotator=f"{index}") for index in range(5)]
    assert adapt(several, embed, WORDS).adaptation is None
    once, twice = (
        [example_of(seed, f"{seed}", annotator) for seed in range(8) for annotator in names]
        for names in ("a", "ab")
    )
    assert learn(twice).pictures == 8
    assert learn(twice).directions == pytest.approx(learn(once).directions, rel=0.05, abs=0.01)


def test_what_does_not_pass_has_what_was_tried_and_why_it_was_not_used() -> None:
    """Half of the pictures have the two labels exchanged."""
    examples = EXAMPLES[:3]
    for seed in range(3, 6):
        features, masks = drawn_image(seed)
        masks = {"sofa": masks["sky"], "sky": masks["sofa"]}
        examples.append(Example.of(features, masks, KNOWN, f"{seed}"))
    fit = adapt(examples, embed, WORDS)
    assert fit.adaptation is None
    assert len(fit.held_out.by_picture) == 6
    assert fit.refused["sky"] == "On held-out pictures it may gain nothing."


def test_labels_that_show_on_one_picture_are_named_as_such() -> None:
    features, masks = drawn_image(50)
    other = Example.of(features, {"dog": masks["sky"], "sofa": masks["sofa"]}, KNOWN)
    fit = adapt([*EXAMPLES, other], embed, WORDS)
    expected = "Drawn on 1 picture, near-duplicates counted once; 2 are needed."
    assert fit.refused["dog"] == expected


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (-0.05, 0.01, True),
        (-0.02, 0.01, False),  # below the bound
        (-0.05, 0.04, False),  # perhaps it loses less
    ],
)
def test_a_label_loses_too_much(mean: float, spread: float, expected: bool) -> None:
    change = np.asarray(mean + spread * np.linspace(-1, 1, 201)[:, None], np.float64)
    change[0] = mean
    assert find_losing(change, 0.03).tolist() == [expected]


def test_nothing_passes_that_costs_a_label_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[float] = set()

    def sofa_loses(change: fitting.Float64Array, bound: float) -> npt.NDArray[np.bool_]:
        asked.add(bound)
        return np.arange(change.shape[1]) == WORDS_AT["sofa"]

    monkeypatch.setattr(fitting, "find_losing", sofa_loses)
    fit = adapt(EXAMPLES, embed, WORDS, label_loss=0.05)
    told = "On held-out pictures “sofa” may lose more than 5 points of IoU."
    assert (fit.adaptation, fit.refused) == (None, {"sofa": told, "sky": told})
    assert asked == {0.05}


def test_a_picture_is_scored_by_what_the_others_teach() -> None:
    """A picture whose labels are exchanged is still scored as the others have it."""
    features, masks = drawn_image(30)
    turned = Example.of(features, {"sofa": masks["sky"], "sky": masks["sofa"]}, KNOWN, "turned")
    held_out = HeldOutAdaptations.fit([*EXAMPLES, turned], embed, WORDS)
    own = held_out.of("turned")
    assert own is not None
    assert own is not held_out.others
    assert held_out.of("never seen") is held_out.others
    embeddings, bias = own.apply(embed(WORDS.queries), WORDS)
    label_map = Scores.of(features, embeddings, WORDS, bias).label_map()
    assert (label_map[masks["sky"]] == 1).mean() > 0.8


def test_adapted_ious_are_those_of_the_held_out_adaptations() -> None:
    fit = adapt(EXAMPLES, embed, WORDS)
    ordered = sorted(EXAMPLES, key=lambda each: (each.picture_key, each.digest))
    targets = Targets.of(ordered, embed(WORDS.queries), WORDS)
    logits = targets.text.copy()
    for key, image in targets.pictures.items():
        own, of_image = fit.held_out.by_picture[key], targets.image == image
        labels = [targets.names.index(name) for name in own.names]
        terms = targets.features[of_image] @ own.directions.T + own.offsets
        logits[np.ix_(of_image, labels)] += TEMPERATURE * terms
    ious = Judge(targets).ious(logits)[0]
    expected = {name: ious[targets.names.index(name)] for name in fit.adapted_ious}
    assert fit.adapted_ious == pytest.approx(expected, abs=0.005)
    assert set(fit.adapted_ious) == set(fit.text_ious) == set(fit.shown) == {"sofa", "sky"}
    assert fit.held_out.others is fit.adaptation


def regression() -> tuple[Targets, Regression]:
    targets = Targets.of(EXAMPLES, embed(WORDS.queries), WORDS)
    return targets, Regression(targets, np.array([0, 1]))


def test_the_mode_is_that_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The posterior written down again on terms of logits, with the prior of whitened features."""
    monkeypatch.setattr(fitting, "_STOP", {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-7})
    monkeypatch.setattr(fitting, "_CHUNK", 7)
    targets, made = regression()
    every = np.ones(len(targets.text), np.bool_)
    precisions = np.array([0.3, 3.0])
    weights = made.mode(every, precisions)

    x = torch.from_numpy(targets.features).double()
    centred = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    root = vectors / (values.clamp(min=0) + 3 * values.mean()).sqrt()
    root = root / ((centred @ root) ** 2).sum(dim=1).mean().sqrt()
    counts = torch.from_numpy(targets.fit_weights).double()
    directions = torch.zeros(2, WIDTH, dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    scale = torch.from_numpy(precisions)
    lbfgs = torch.optim.LBFGS([directions, offsets], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        lbfgs.zero_grad()
        logits = torch.from_numpy(targets.text).double().clone()
        logits[:, :2] += centred @ root @ directions.T + offsets
        value = -(counts[:, None] * torch.from_numpy(targets.target) * logits.log_softmax(1)).sum()
        value = value + (scale * ((directions**2).sum(dim=1) + offsets**2)).sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    lbfgs.step(closure)  # type: ignore[no-untyped-call]
    terms = (directions @ root.T).detach().numpy()
    adaptation = made.adaptation(weights, 8)
    order = [1, 0]  # sky, sofa
    assert 50 * adaptation.directions == pytest.approx(terms[order], abs=0.02)
    added = 50 * (targets.features @ adaptation.directions.T + adaptation.offsets)
    expected = targets.text.copy()
    expected[:, order] += added
    assert made.logits(weights, every) == pytest.approx(expected, abs=1e-3)


def test_features_are_never_all_in_more_than_16_bits() -> None:
    features = np.random.default_rng(0).normal(size=(12_000, 256)).astype(np.float16)
    targets = replace(regression()[0], features=features, words_width=200)
    tracemalloc.start()
    Regression(targets, np.array([0, 1]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * features.nbytes


def test_classes_weigh_by_their_area_and_words_as_far_as_they_may() -> None:
    targets = Targets.of([*map(sofa_with_little_sky, range(6))], embed(WORDS.queries), WORDS)
    sky, sofa = (
        targets.fit_weights[targets.drawn & (targets.target[:, label] > 0.5)].sum()
        for label in (1, 0)
    )
    area = [targets.weights[targets.target[:, label] > 0.5].sum() for label in (1, 0)]
    assert sky / sofa == pytest.approx((area[0] / area[1]) ** 0.5, rel=1e-3)
    assert sky + sofa == pytest.approx(targets.images, rel=1e-4)


def test_of_two_steps_that_gain_alike_the_shorter_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_PRECISIONS", (0.003,))

    def directions(*steps: float) -> npt.NDArray[np.float32]:
        monkeypatch.setattr(fitting, "_STEPS", steps)
        return learn().directions

    whole = directions(1.0)
    assert directions(0.98, 1.0) == pytest.approx(0.98 * whole, rel=5e-3)
    assert directions(0.001, 1.0) == pytest.approx(whole, rel=5e-3)


def test_priors_of_their_own_have_to_gain_a_tenth_more() -> None:
    targets, _ = regression()
    validation = fitting._CrossValidation(targets, Judge(targets), np.arange(2))
    one = validation.candidates[0]
    for more, is_enough in ((1.1, False), (1.12, True)):
        own = replace(one, precisions=np.array([0.3, 3.0]), gains=more * one.gains)
        assert (validation._rank(own) > validation._rank(one)) is is_enough


def test_a_fit_takes_one_thread_and_gives_the_others_back() -> None:
    def blas_threads() -> set[int]:
        pools = threadpool_info()
        return {p["num_threads"] for p in pools if p["internal_api"] == "openblas"}

    during: list[set[int]] = []

    def noting(prompts: Sequence[str]) -> torch.Tensor:
        during.append(blas_threads())
        return embed(prompts)

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        adapt(EXAMPLES[:2], noting, KNOWN)
        assert blas_threads() == before
    assert during[0] <= {1}


def test_methods_that_weigh_classes_refuse_it() -> None:
    segmenter = Segmenter.load("demo", "clipsurgery", device="cpu", precision="fp32")
    width = segmenter.embed(["sky"]).shape[1]
    learned = Adaptation(("sky",), np.zeros((1, width), np.float32), np.zeros(1, np.float32), 2)
    with pytest.raises(ValueError, match="cannot learn"):
        segmenter.segment(render_scene(1).image, ["sky", "sea"], adaptation=learned)


def test_no_iou_is_told_of_a_label_of_which_little_was_drawn() -> None:
    """The words would judge themselves there."""
    examples = []
    for number in range(6):
        features, masks = drawn_image(70 + number)
        sofa = masks["sofa"].copy()
        sofa[16:] = False
        examples.append(Example.of(features, masks | {"sofa": sofa}, KNOWN, f"{number}"))
    fit = adapt(examples, embed, WORDS)
    assert set(fit.shown) == {"sofa", "sky"}
    assert set(fit.text_ious) == set(fit.adapted_ious) == {"sky"}
    assert fit.found["sofa"] > 0.999, "of what was drawn the words find all"


def test_no_iou_is_told_of_a_label_that_was_drawn_on_two_pictures() -> None:
    """They may be right of it, and may be chance."""
    examples = []
    for number in range(6):
        features, masks = drawn_image(70 + number)
        some = masks if number < 2 else {"sky": masks["sky"]}
        examples.append(Example.of(features, some, KNOWN, f"{number}"))
    fit = adapt(examples, embed, WORDS)
    assert fit.shown == {"sofa": 2, "sky": 6}
    assert set(fit.text_ious) == set(fit.adapted_ious) == {"sky"}
