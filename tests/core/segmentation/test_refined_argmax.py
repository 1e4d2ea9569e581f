"""Refined label maps, by both ways of computing them, against every label refined everywhere.

Detail beside the filter: kept where scores are clear, left out where they are noise.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from clearclip_core import (
    BEST_TEMPLATES,
    SCENE_LABELS,
    Label,
    Scores,
    Segmentation,
    Segmenter,
    Vocabulary,
    render_scene,
)
from clearclip_core.segmentation import refined_argmax
from clearclip_core.segmentation.guided_filter import (
    GuidedFilter,
    Refinement,
    guided,
    kept_share,
    mean_colours,
)
from clearclip_core.segmentation.refined_argmax import (
    DeviceSegmentation,
    DeviceTiles,
    competing_probabilities,
    decide_refined,
    decide_refined_on_device,
    find_runs,
)
from clearclip_core.segmentation.windows import WindowPlan
from tests.core.segmentation.test_masks import segmentation_by_chance
from tests.core.segmentation.test_scores import WORDS
from tests.core.segmentation.test_windows import plan_of

#: Patches of 12 px, with these tiles of 3: they fit, and their centres are pixels.
FINE = Refinement(radius_patches=2, tiles_per_patch=4, epsilon=3e-4)
PLAN = plan_of((96, 144), (128, 192))
#: Where along the picture the eight queries are at home, in patches from the left.
HOME = torch.tensor([0.0, 1.6, 4.0, 6.0, 6.4, 10.0, 8.4, 3.0])

Decide = Callable[..., tuple[np.ndarray, np.ndarray]]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def on(device: str) -> Decide:
    """Return the torch path on a device, with what it returns brought back."""

    def decide(scores: Scores, *args: Any) -> tuple[np.ndarray, np.ndarray]:
        moved = replace(scores, cosines=scores.cosines.to(device))
        labels, confidence = decide_refined_on_device(moved, *args)
        return labels.cpu().numpy(), confidence.cpu().numpy()

    return decide


@pytest.fixture(
    params=[
        pytest.param(decide_refined, id="numpy"),
        pytest.param(on("cpu"), id="torch"),
        pytest.param(on("cuda"), id="cuda", marks=CUDA),
    ]
)
def decide(request: pytest.FixtureRequest) -> Decide:
    """Each way to compute a refined label map."""
    path: Decide = request.param
    return path


def scores_of(plan: WindowPlan = PLAN, words: Vocabulary = WORDS) -> Scores:
    """Cosines that fall with the distance from home, and rise and fall a little by chance."""
    generator = torch.Generator().manual_seed(1)
    windows = torch.arange(len(plan.columns.starts_px)) * 2
    along = (windows[:, None] + torch.arange(plan.columns.patches)).ravel()
    distance = (HOME[: len(words.queries), None, None] - along).abs()
    rows = len(plan.rows.starts_px) * plan.rows.patches
    chance = torch.randn(len(distance), rows, len(along), generator=generator)
    return Scores(0.01 * chance - 0.04 * distance, plan, words)


def picture(height: int = 96, width: int = 144) -> np.ndarray:
    """Blots of several patches under some noise: edges, and colours that vary everywhere."""
    generator = np.random.default_rng(4)
    blots = generator.integers(0, 240, (-(-height // 12), -(-width // 12), 3))
    image = blots.repeat(12, axis=0).repeat(12, axis=1)[:height, :width]
    return (image + generator.integers(0, 16, image.shape)).astype(np.uint8)


@cache
def everywhere() -> np.ndarray:
    """(labels + 1, H, W): refined probabilities, the contrast words' at the end."""
    scores = scores_of()
    guided_filter = GuidedFilter(picture(), scores.plan.patch_image_px, FINE)
    at = np.arange(33) * 3 - 0.5, np.arange(49) * 3 - 0.5
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    pairs = list(zip(axes, at, strict=True))
    corners = softmax_of(scores, *(axis.at(axis.positions(px)) for axis, px in pairs)) ** 0.5
    knots = softmax_of(scores, *(axis.at_knots(px) for axis, px in pairs)) ** 0.5
    tiles = np.mean([corners[:, y : 32 + y, x : 48 + x] for y in (0, 1) for x in (0, 1)], axis=0)
    smooth = explained(guided_filter, tiles)
    kept = float(kept_share(torch.tensor(noise_of(smooth, corners - smooth))))
    assert 0.02 < kept < 0.98  # both matter here: the rest is far above the tolerance
    refined = guided(picture(), tiles, scores.plan.patch_image_px, FINE)
    refined *= (1 + (1 - kept) * (lowered(corners, smooth) ** 0.75 - 1))[:, None, None]
    refined += kept * bilinear(bilinear(knots - smooth, at[0], 96, 1), at[1], 144, 2)
    return refined.clip(0, 1) ** 2


def softmax_of(scores: Scores, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(labels + 1, m, n): probabilities of the best query, the contrast words' at the end."""
    logits = 50 * np.einsum("yi,qij,xj->qyx", rows, scores.cosines.numpy().astype(float), columns)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=0)
    owners = np.array(scores.vocabulary.query_labels)
    labels = [*range(len(scores.vocabulary.labels)), -1]
    return np.array([softmax[owners == label].max(axis=0) for label in labels])


def explained(guided_filter: GuidedFilter, tiles: np.ndarray) -> np.ndarray:
    """(labels + 1, 33, 49): functions of the colours at corners, at those of 6 px around."""
    made = np.empty((len(tiles), 33, 49))
    functions = guided_filter.colour_fit.fit(torch.from_numpy(tiles)).numpy()
    for y, x in product(range(33), range(49)):
        around = picture()[max(3 * y - 3, 0) : 3 * y + 3, max(3 * x - 3, 0) : 3 * x + 3]
        colours = np.append(around.reshape(-1, 3).mean(axis=0), 1)
        made[:, y, x] = [function[:, y, x] @ colours for function in functions]
    return made


def noise_of(smooth: np.ndarray, rest: np.ndarray) -> float:
    """The noise of logits by the derivative of the softmax's root, place by place."""
    ratios = []
    for root, r in zip(smooth.reshape(4, -1).T, rest.reshape(4, -1).T, strict=True):
        p = root.clip(1e-3**0.5, 1) ** 2
        p /= p.sum()
        derivative = (np.diag(p) - np.outer(p, p)) / (2 * np.sqrt(p)[:, None])
        ratios.append((r**2).sum() / (derivative**2).sum())
    return float(np.quantile(ratios, 0.7))


def lowered(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(labels + 1,): how far each peak, which 1 of the 1617 places exceeds, was lowered."""
    tops = [np.sort(maps.reshape(4, -1), axis=1)[:, -2] for maps in (before, after)]
    quotients = tops[0] / np.maximum(tops[1], 0.05)
    assert quotients.max() > 1.05  # it matters here
    return np.asarray(quotients.clip(1, 4))


def bilinear(values: np.ndarray, at: np.ndarray, pixels: int, axis: int) -> np.ndarray:
    return np.apply_along_axis(lambda line: np.interp(np.arange(pixels), at, line), axis, values)


def test_what_competes_has_its_probabilities_at_the_places_asked_for() -> None:
    scores = scores_of()
    at = np.arange(1.0, 96, 3), np.arange(1.0, 144, 3)
    (found, knots), competing = competing_probabilities(scores, at, 1 << 12)
    assert competing.tolist() == [0, 1, 2, -1]
    rows, columns = scores.plan.rows.matrix[1::3], scores.plan.columns.matrix[1::3]
    best = softmax_of(scores, rows, columns)
    assert found.numpy() == pytest.approx(best, abs=1e-5)
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    between = [axis.at_knots(px) for axis, px in zip(axes, at, strict=True)]
    assert knots.numpy() == pytest.approx(softmax_of(scores, *between), abs=1e-5)
    hopeless = replace(scores, cosines=scores.cosines.clone())
    hopeless.cosines[2] = -1  # the sky comes near nowhere
    assert competing_probabilities(hopeless, at, 1 << 12)[1].tolist() == [0, 2, -1]


@pytest.mark.parametrize("threshold", [0.0, 0.4, (0.5, 0.0, 0.3)])
def test_the_largest_probability_wins(decide: Decide, threshold: float | tuple[float, ...]) -> None:
    refined = everywhere()
    labels, confidence = decide(scores_of(), picture(), threshold, FINE)
    ordered = np.sort(refined, axis=0)
    limits = np.append(np.broadcast_to(threshold, 3), 0)
    winner = refined.argmax(axis=0)
    best = ordered[-1].clip(0, 1)
    expected = np.where((winner == 3) | (best < limits[winner]), -1, winner)
    # Peaks are told apart to 1e-3 here: `explained` averages colours in float64.
    sure = (ordered[-1] - ordered[-2] > 1e-3) & (abs(best - limits[winner]) > 1e-3)
    assert sure.mean() > 0.99
    assert labels.dtype == np.int16
    assert np.array_equal(labels[sure], expected[sure])
    assert {-1, 0, 1, 2} == set(np.unique(labels).tolist())  # all of it happens here
    assert confidence.dtype == np.float16
    assert confidence == pytest.approx(best, abs=1e-3)


def test_where_the_background_label_stands_changes_nothing(decide: Decide) -> None:
    """It takes over the contrast words, which are queries of its own like its prompts."""
    labels = Label("other", background=True), Label("sofa", ("sofa", "couch")), Label("dog")
    first, last = (Vocabulary(each, WORDS.contrast) for each in (labels, (*labels[1:], labels[0])))
    scores = scores_of(words=first)
    rows = [first.queries.index(query) for query in last.queries]
    moved = Scores(scores.cosines[rows], scores.plan, last)
    found, confidence = decide(scores, picture())
    again, confidence_again = decide(moved, picture())
    assert {0, 1, 2} == set(np.unique(found).tolist())
    assert np.array_equal(again, (found - 1) % 3)
    assert np.array_equal(confidence_again, confidence)


@pytest.mark.parametrize("elements", [1, 1 << 12])
def test_batches_agree(monkeypatch: pytest.MonkeyPatch, decide: Decide, elements: int) -> None:
    labels, confidence = decide(scores_of(), picture(), 0.4)
    for name in ("tiles.BATCH_ELEMENTS", "refined_argmax._VALUES", "refined_argmax._CPU_VALUES"):
        monkeypatch.setattr(f"clearclip_core.segmentation.{name}", elements)
    again = decide(scores_of(), picture(), 0.4)
    assert (again[0] == labels).mean() > 0.999
    assert again[1] == pytest.approx(confidence, abs=1e-3)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (50, 1), (16, 16), (61, 85), (16, 12000)])
def test_pictures_of_any_size(decide: Decide, size_hw: tuple[int, int]) -> None:
    plan = plan_of(size_hw, (64, 64 if size_hw[1] < 100 else 256))
    labels, confidence = decide(scores_of(plan), picture(*size_hw), 0.3)
    assert labels.shape == confidence.shape == size_hw
    assert set(np.unique(labels).tolist()) <= {-1, 0, 1, 2}
    assert np.isfinite(confidence).all()


def test_a_picture_of_another_size_is_refused(decide: Decide) -> None:
    with pytest.raises(ValueError, match=r"`image` to be of size \(96, 144\)"):
        decide(scores_of(), picture(144, 96))
    with pytest.raises(ValueError, match="`threshold`"):
        decide(scores_of(), picture(), (0.1, 0.2))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("size_hw", [(96, 144), (61, 85), (30, 17)])
@pytest.mark.parametrize("cut_from_px", [2, 1000])
def test_both_ways_give_the_same(
    monkeypatch: pytest.MonkeyPatch, device: str, size_hw: tuple[int, int], cut_from_px: int
) -> None:
    monkeypatch.setattr("clearclip_core.segmentation.guided_filter._CUT_FROM_PX", cut_from_px)
    scores = scores_of(plan_of(size_hw, (128, 192)))
    for threshold in (0.0, (0.5, 0.0, 0.3)):
        labels, confidence = decide_refined(scores, picture(*size_hw), threshold)
        again, confidence_again = on(device)(scores, picture(*size_hw), threshold)
        assert (again != labels).mean() < 1e-4  # ties, and probabilities at a threshold
        # Neighbouring numbers of float16 have neighbouring bits.
        steps = confidence.view(np.int16) - confidence_again.view(np.int16).astype(int)
        assert abs(steps).max() <= 1


def test_a_segmenter_refines_only_where_asked_for() -> None:
    segmenter = Segmenter.load("demo", precision="fp32", device="cpu")
    image = render_scene(seed=10_000_001, size_hw=(224, 300)).image
    scores = segmenter.score(segmenter.encode(image), SCENE_LABELS, contrast=True)
    plain = scores.decide(0.3)
    for result in (segmenter.decide(scores, 0.3), segmenter.decide(scores, 0.3, image=image)):
        assert np.array_equal(result.label_map, plain[0])
        assert np.array_equal(result.confidence, plain[1])
    refined = decide_refined(scores, image, 0.3)
    for result in (
        segmenter.decide(scores, 0.3, image, refine=True),
        segmenter.segment(image, SCENE_LABELS, contrast=True, threshold=0.3, refine=True),
    ):
        assert np.array_equal(result.label_map, refined[0])
        assert np.array_equal(result.confidence, refined[1])
    with pytest.raises(ValueError, match="`image`"):
        segmenter.decide(scores, refine=True)


REFINEMENT = Refinement(radius_patches=2, tiles_per_patch=2, epsilon=1e-4)


@pytest.mark.parametrize(
    ("size_hw", "patch_px"), [((40, 61), 8), ((33, 20), 4.3), ((7, 50), 2), ((20, 9), 30)]
)
def test_mean_colours_are_those_of_a_cpu(size_hw: tuple[int, int], patch_px: float) -> None:
    image = picture(*size_hw)
    grid = REFINEMENT.grid(size_hw, patch_px)
    expected = mean_colours(image, grid).transpose(2, 0, 1) / 255
    made = DeviceTiles(torch.from_numpy(image), grid).mean_colours()
    assert made.numpy() == pytest.approx(expected, abs=1e-12)


DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def both(seed: int, device: str) -> tuple[Segmentation, DeviceSegmentation]:
    here = segmentation_by_chance(seed)
    there = (torch.from_numpy(array).to(device) for array in (here.label_map, here.confidence))
    return here, DeviceSegmentation(*there, here.labels)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("band_px", [1 << 24, 50])
def test_runs_are_of_the_pixels(monkeypatch: pytest.MonkeyPatch, device: str, band_px: int) -> None:
    monkeypatch.setattr(refined_argmax, "_RUNS_BAND_PX", band_px)
    label_map = np.array([[0, 0, 2], [2, 2, -1], [-1, 1, 1]], np.int16)
    confidence = np.arange(9, dtype=np.float16).reshape(3, 3) / 8
    runs, sums = find_runs(*(torch.from_numpy(one).to(device) for one in (label_map, confidence)))
    assert runs.starts.tolist() == [0, 2, 3, 5, 6, 7]
    assert runs.starts.dtype == np.int32
    assert runs.labels.tolist() == [0, 2, 2, -1, -1, 1]
    assert runs.size_hw == (3, 3)
    assert (8 * sums).tolist() == [1, 2, 7, 5, 6, 15]


@pytest.mark.parametrize("device", DEVICES)
def test_masks_and_their_confidence_are_those_of_numpy(device: str) -> None:
    for seed in range(30):
        here, there = both(seed, device)
        for thresholds in ({}, {"b": 0.5, "c": 0.25}):
            ours, theirs = (each.above(thresholds).label_masks(3, 5) for each in (here, there))
            assert theirs.labels == ours.labels
            for label in ours.labels:
                assert np.array_equal(theirs.mask(label), ours.mask(label))
                mean = pytest.approx(ours.mean_confidence(label), rel=1e-12)
                assert theirs.mean_confidence(label) == mean
        numbers = np.zeros(len(here.labels) + 1, int)  # one mask of all
        ours, theirs = (each.label_masks(0, 0, numbers) for each in (here, there))
        assert ours.mask(0).all()
        assert theirs.mask(0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_leave_the_device_on_demand(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    here, there = both(1, device)
    copied: list[Any] = []
    copy = torch.Tensor.cpu

    def spy(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tuple(tensor.shape))
        return copy(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", spy)
    assert there.above({"a": 0.0}) is there
    masks = there.above({"a": 0.3}).label_masks(3, 3)
    assert masks.mean_confidence(0) > 0
    assert there.size_hw == here.size_hw
    assert there.size_hw not in copied
    assert np.array_equal(there.label_map, here.label_map)
    assert np.array_equal(there.confidence, here.confidence)
    assert copied[-2:] == [here.size_hw] * 2


#: A street of 12 x 16 patches of 16 px.
STREET = WindowPlan((192, 256), (192, 256), 256, 256, (16, 16))
THINGS = Vocabulary.of(["sky", "road", "pole"])


def street_scores(labels: np.ndarray, noise: float = 0.0, seed: int = 0) -> Scores:
    """Logits of 4 for the label of each patch (12, 16), and 0 for the others, with noise."""
    logits = 4.0 * (labels == np.arange(3)[:, None, None])
    logits += noise * np.random.default_rng(seed).standard_normal(logits.shape)
    return Scores(torch.from_numpy(logits).float(), STREET, THINGS, temperature=1.0)


def street() -> tuple[np.ndarray, np.ndarray]:
    """Labels of patches: sky above road; and the picture of them, in two slightly noisy greys."""
    labels = np.repeat(np.arange(12) >= 6, 16).reshape(12, 16).astype(int)
    grey = np.kron(np.where(labels, 90, 180), np.ones((16, 16)))[..., None]
    noise = np.random.default_rng(1).normal(0, 4, (192, 256, 3))
    return labels, (grey + noise).clip(0, 255).astype(np.uint8)


def test_a_thin_object_of_clear_scores_stays_though_no_colour_shows_it() -> None:
    labels, image = street()
    labels[:, 5] = 2
    scores = street_scores(labels)
    plain = scores.decide()[0] == 2
    refined = decide_refined(scores, image)[0] == 2
    assert plain.sum() == pytest.approx(192 * 16, rel=0.1)
    assert (plain & refined).sum() > 0.8 * (plain | refined).sum()


def test_single_patches_of_noisy_scores_go() -> None:
    labels, image = street()
    truth = np.kron(labels, np.ones((16, 16), int))
    wrong = np.zeros(2)
    for seed in range(3):
        scores = street_scores(labels, noise=2.0, seed=seed)
        maps = scores.decide()[0], decide_refined(scores, image)[0]
        wrong += [(one != truth).mean() for one in maps]
    assert wrong[0] > 0.1
    assert wrong[1] < 0.2 * wrong[0]


#: Operators whose result the host must know before it goes on.
WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}
WAITS |= {"aten::equal"}


class Counting(TorchDispatchMode):
    """Counts operators, and those for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.name().split(".")[0]
        self.operators[name] += 1
        masks = args[1] if name in ("aten::index", "aten::index_put_") else ()
        if name in WAITS or any(mask is not None and mask.dtype is torch.bool for mask in masks):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def of_a_picture() -> tuple[Scores, np.ndarray]:
    """What the demo model sees: few labels compete."""
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", templates=BEST_TEMPLATES[:1])
    image = render_scene(5, size_hw=(1224, 1632)).image
    return segmenter.score(segmenter.encode(image), SCENE_LABELS, contrast=True), image


def of_a_large_picture_on_which_all_labels_compete() -> tuple[Scores, np.ndarray]:
    """150 labels of two words, whose cosines vary over a picture as a trained model's do."""
    things = [Label(f"thing {n}", (f"thing {n}", f"a {n}")) for n in range(150)]
    plan = WindowPlan((3000, 4000), (448, 597), 448, 224, (16, 16))
    cosines = torch.randn(300, 30, 58, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(cosines, 3, stride=1)  # an object covers some patches
    scores = Scores(0.2 + 0.03 * smooth / smooth.std(), plan, Vocabulary.of(things))
    return scores, render_scene(5, size_hw=(3000, 4000)).image


@pytest.mark.parametrize(
    ("world", "most_operators"),
    [(of_a_picture, 600), (of_a_large_picture_on_which_all_labels_compete, 1500)],
)
def test_few_operators_and_waits_after_the_encoder(
    world: Callable[[], tuple[Scores, np.ndarray]], most_operators: int
) -> None:
    """With the copies of what can win and of the runs there are two waits more."""
    scores, image = world()
    wanted, _ = decide_refined(scores, image, 0.1)
    with Counting() as counted:
        label_map, confidence = decide_refined_on_device(scores, image, 0.1)
        find_runs(label_map, confidence)
    assert np.mean(label_map.numpy() == wanted) > 0.9999
    assert counted.waits.total() <= 2, counted.waits
    assert counted.operators.total() <= most_operators, counted.operators.most_common(12)


def test_a_picture_that_cannot_be_written_is_taken_without_a_warning() -> None:
    """Pictures that Pillow reads are such; torch warns where it would share their memory."""
    scores, image = of_a_picture()
    wanted, _ = decide_refined_on_device(scores, image.copy())
    image.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            label_map, _ = decide_refined_on_device(scores, image)
    finally:
        torch.set_warn_always(False)
    assert (label_map == wanted).all()
