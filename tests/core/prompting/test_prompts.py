"""Masks from clicks and boxes, on pictures made by hand: two colours, two meanings."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    BoolMask,
    DenseFeatures,
    Point,
    PromptedMask,
    PromptPredictor,
    RGBArray,
    Scores,
    Vocabulary,
)
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.prompting.prompts import best_level
from clearclip_core.segmentation.windows import WindowPlan

GRASS, DOG, BOAT = range(3)
WORDS = Vocabulary.of(["grass", "dog", "boat"])
COLOURS = np.array([[60, 150, 70], [170, 110, 60]], np.uint8)


class Picture:
    """Something brown on green, and what a model that sees 16 px patches makes of it.

    The thing is (H, W) bool, `window_px` the side of the windows; the seed is of colour noise.
    """

    def __init__(self, thing: BoolMask, window_px: int = 64, seed: int = 0) -> None:
        self.thing = thing
        noise = np.random.default_rng(seed).integers(-6, 7, (*thing.shape, 3))
        self.image: RGBArray = (COLOURS[thing.astype(int)] + noise).clip(0, 255).astype(np.uint8)
        height, width = thing.shape
        scale = 128 / min(height, width)
        resized = int(height * scale + 0.5), int(width * scale + 0.5)
        plan = WindowPlan((height, width), resized, window_px, window_px // 2, (16, 16))
        small = Preprocessing((0, 0, 0), (1, 1, 1), 128).resize(
            np.repeat(thing[..., None] * np.uint8(255), 3, axis=2)
        )
        pixels = torch.from_numpy(small[..., 0]).float()[None] / 255
        shares = torch.stack([F.avg_pool2d(each, 16)[0] for each in plan.cut(pixels)])
        axes = torch.eye(3)
        patches = shares[..., None] * axes[DOG] + (1 - shares)[..., None] * axes[GRASS]
        self.features = DenseFeatures(F.normalize(patches, dim=-1), plan)
        self.scores = Scores.of(self.features, axes, WORDS)
        self.predictor = PromptPredictor(self.features, self.scores, self.image)

    def click(self, *points: Point, label: int = DOG) -> PromptedMask:
        return self.predictor.click(*points, label=WORDS.names[label])

    def box(self, *box_xyxy: float, label: int = DOG) -> PromptedMask:
        left, top, right, bottom = box_xyxy
        return self.predictor.box((left, top, right, bottom), WORDS.names[label])


def disc(size_hw: tuple[int, int], centre_xy: tuple[float, float], radius: float) -> BoolMask:
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.asarray(np.hypot(x - centre_xy[0], y - centre_xy[1]) < radius)


def iou(one: BoolMask, other: BoolMask) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def two_dogs() -> Picture:
    size = 160, 256
    return Picture(disc(size, (60, 80), 35) | disc(size, (190, 80), 35))


@pytest.mark.parametrize("size_hw", [(160, 256), (256, 160), (131, 377), (128, 128)])
def test_a_click_finds_the_thing_in_pictures_of_any_shape(size_hw: tuple[int, int]) -> None:
    centre = size_hw[1] * 0.4, size_hw[0] * 0.6
    picture = Picture(disc(size_hw, centre, 40))
    found = picture.click(Point(*centre))
    assert found.mask.shape == found.confidence.shape == size_hw
    assert found.mask.dtype == bool
    assert found.confidence.dtype == np.float16
    assert iou(found.mask, picture.thing) > 0.93


def test_without_a_label_what_is_clicked_or_boxed_counts(two_dogs: Picture) -> None:
    one = disc((160, 256), (60, 80), 35)
    assert iou(two_dogs.predictor.click((60, 80)).mask, one) > 0.9
    assert iou(two_dogs.predictor.box((15, 35, 105, 125)).mask, one) > 0.85


def test_a_click_takes_the_thing_clicked_and_not_its_like(two_dogs: Picture) -> None:
    mask = two_dogs.click(Point(60, 80)).mask
    assert iou(mask, disc((160, 256), (60, 80), 35)) > 0.93
    both = two_dogs.click(Point(60, 80), Point(190, 80)).mask
    assert iou(both, two_dogs.thing) > 0.93


def test_a_picture_larger_than_is_decided_on_gets_its_mask_in_its_own_size() -> None:
    thing = disc((1200, 1801), (1000, 500), 300)
    picture = Picture(thing)
    assert iou(picture.click(Point(1000, 500)).mask, thing) > 0.97
    assert iou(picture.box(690, 190, 1310, 810).mask, thing) > 0.97


@pytest.mark.parametrize(
    ("x", "y"), [(0, 0), (256, 160), (255.99, 0), (0.2, 159.9), (-30, 500), (128, 0)]
)
def test_clicks_beyond_the_border_count_at_it(two_dogs: Picture, x: float, y: float) -> None:
    mask = two_dogs.click(Point(x, y), label=GRASS).mask
    assert mask[min(max(int(y), 0), 159), min(max(int(x), 0), 255)]
    assert iou(mask, ~two_dogs.thing) > 0.9


def test_confidence_is_high_inside_and_low_outside(two_dogs: Picture) -> None:
    found = two_dogs.click(Point(60, 80))
    assert len(repr((two_dogs.predictor, found))) < 200  # not their numbers
    assert found.confidence[found.mask].mean() > 0.9
    assert found.confidence[~found.mask].mean() < 0.1


def test_the_mean_of_the_confidence_is_that_of_the_masks_pixels() -> None:
    mask, probability = np.zeros((5, 8), bool), np.random.default_rng(1).random((3, 4))
    mask[1:3, 2:5] = True
    whole = PromptedMask.of(mask, probability.astype(np.float32))
    part = replace(whole, part=(slice(1, 4), slice(1, 7)))
    for made in (whole, part):
        assert made.confidence.shape == mask.shape
        expected = made.confidence[mask].mean(dtype=np.float64)
        assert made.mean_confidence == pytest.approx(expected, abs=1e-3)  # half precision
    assert not part.confidence[0].any()
    assert replace(whole, mask=np.zeros_like(mask)).mean_confidence == 0


def test_the_mean_of_a_large_masks_confidence_is_taken_of_a_part_of_it() -> None:
    y, x = np.mgrid[:901, :1203]
    mask = np.hypot(y - 400, x - 700) < 380
    made = PromptedMask.of(mask, np.random.default_rng(2).random((40, 50)).astype(np.float32))
    expected = made.confidence[mask].mean(dtype=np.float64)
    assert made.mean_confidence == pytest.approx(expected, abs=1e-3)


def random_points(rng: np.random.Generator, count: int) -> list[Point]:
    """Anywhere, near borders and near each other too, the first one positive."""
    points = [Point(rng.uniform(-4, 260), rng.uniform(-4, 164), True)]
    while len(points) < count:
        last, far = points[-1], rng.choice([3.0, 30.0, 200.0])
        x, y = last.x_px + rng.normal(0, far), last.y_px + rng.normal(0, far)
        points.append(Point(x, y, bool(rng.random() < 0.5)))
    return points


def pixel(point: Point, height: int = 160, width: int = 256) -> tuple[int, int]:
    return (
        min(max(int(point.y_px // 1), 0), height - 1),
        min(max(int(point.x_px // 1), 0), width - 1),
    )


@pytest.mark.parametrize("seed", range(25))
def test_another_negative_point_never_adds_a_pixel(two_dogs: Picture, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = random_points(rng, int(rng.integers(1, 5)))
    before = two_dogs.click(*points).mask
    other = random_points(rng, 1)[0]
    after = two_dogs.click(*points, Point(other.x_px, other.y_px, False)).mask
    assert not (after & ~before).any()


def test_the_sizes_of_a_click_begin_with_the_likeliest(two_dogs: Picture) -> None:
    points = Point(60, 80), Point(190, 80), Point(100, 20, False)
    for clicks in (points[:1], points):
        sizes = two_dogs.predictor.click(*clicks, label="dog", several=True)
        assert 1 <= len(sizes) <= 3
        assert np.array_equal(sizes[0].mask, two_dogs.click(*clicks).mask)
        for point in clicks:
            assert all(each.mask[pixel(point)] == point.positive for each in sizes)


def test_the_sizes_of_a_click_reach_from_a_thing_to_what_is_around_it() -> None:
    """A dog's coat has a patch of another colour, which is clicked."""
    picture = Picture(disc((160, 256), (128, 80), 60))
    patch = disc((160, 256), (128, 80), 20)
    picture.image[patch] = (150, 120, 90)
    predictor = PromptPredictor(picture.features, picture.scores, picture.image)
    sizes = [each.mask for each in predictor.click((128, 80), label="dog", several=True)]
    assert max(iou(each, patch) for each in sizes) > 0.8
    assert max(iou(each, picture.thing) for each in sizes) > 0.9


@pytest.fixture(scope="module")
def large() -> Picture:
    """A picture that is decided on at a smaller size."""
    return Picture(disc((1280, 2048), (480, 640), 280))


@pytest.mark.parametrize("seed", range(25))
def test_points_are_on_the_side_they_say(two_dogs: Picture, large: Picture, seed: int) -> None:
    points = random_points(np.random.default_rng(100 + seed), 6)
    for picture, times in ((two_dogs, 1), (large, 8))[: 2 if seed < 6 else 1]:
        clicks = [Point(times * p.x_px, times * p.y_px, p.positive) for p in points]
        clicks.append(Point(clicks[0].x_px + 1, clicks[0].y_px, not clicks[0].positive))
        mask = picture.click(*clicks).mask
        last = {pixel(each, 160 * times, 256 * times): each.positive for each in clicks}
        assert {at: bool(mask[at]) for at in last} == last


def test_a_negative_point_takes_away_what_is_around_it() -> None:
    thing = disc((160, 256), (60, 80), 35) | disc((160, 256), (128, 80), 35)  # they touch
    picture = Picture(thing)
    assert picture.click(Point(60, 80)).mask[80, 128]
    mask = picture.click(Point(60, 80), Point(128, 80, False)).mask
    assert not mask[60:100, 115:].any()
    assert iou(mask, disc((160, 256), (60, 80), 35)) > 0.8


def test_of_two_points_on_one_pixel_the_last_counts(two_dogs: Picture) -> None:
    on, off = Point(60.2, 80.1), Point(60.9, 80.7, False)
    assert not two_dogs.click(on, off).mask.any()
    assert (two_dogs.click(off, on).mask == two_dogs.click(on).mask).all()
    moved = two_dogs.click(Point(190, 80), on, off).mask
    assert not (moved & ~two_dogs.click(Point(190, 80), on).mask).any()
    assert not moved[80, 60]
    assert moved[80, 190]


def test_negative_points_alone_ask_for_nothing(two_dogs: Picture) -> None:
    found = two_dogs.click(Point(60, 80, False))
    assert not found.mask.any()
    assert not found.confidence.any()


def test_a_box_finds_the_label_and_nothing_outside(two_dogs: Picture) -> None:
    mask = two_dogs.box(15, 40, 110, 120).mask
    assert iou(mask, disc((160, 256), (60, 80), 35)) > 0.93
    half = two_dogs.box(60, 0, 256, 160).mask
    assert not half[:, :60].any()
    assert iou(half[:, 60:], two_dogs.thing[:, 60:]) > 0.9


def test_nothing_is_ever_outside_a_box(two_dogs: Picture) -> None:
    rng = np.random.default_rng(5)
    for label in (GRASS, DOG, BOAT) * 5:
        x, y = np.sort(rng.uniform(-9, 265, 2)), np.sort(rng.uniform(-9, 169, 2))
        box = x[0], y[0], x[1] + 1, y[1] + 1
        inside = np.zeros((160, 256), bool)
        inside[max(round(box[1]), 0) : round(box[3]), max(round(box[0]), 0) : round(box[2])] = True
        assert not (two_dogs.box(*box, label=label).mask & ~inside).any()


def test_a_label_that_the_picture_does_not_show_gets_what_is_asked_about(two_dogs: Picture) -> None:
    dog = disc((160, 256), (60, 80), 35)
    assert iou(two_dogs.click(Point(60, 80), label=BOAT).mask, dog) > 0.9
    assert iou(two_dogs.box(15, 35, 105, 125, label=BOAT).mask, dog) > 0.85


def test_a_label_a_little_likely_beside_the_thing_does_not_hide_it(two_dogs: Picture) -> None:
    cosines = two_dogs.scores.cosines.clone()
    cosines[BOAT] = cosines[GRASS] - 0.03  # on the grass a probability of 0.18
    scores = replace(two_dogs.scores, cosines=cosines)
    box = (15, 35, 105, 125)
    mask = replace(two_dogs.predictor, scores=scores).box(box, "boat").mask
    assert iou(mask, disc((160, 256), (60, 80), 35)) > 0.85


@pytest.mark.parametrize("label", [GRASS, DOG, BOAT])
@pytest.mark.parametrize("at_xy", [(120, 10), (124.4, 78.2), (58, 80), (0, 0), (250, 154)])
def test_a_box_smaller_than_a_patch_is_never_empty(
    two_dogs: Picture, at_xy: tuple[float, float], label: int
) -> None:
    """A patch is 20 px wide here."""
    x, y = at_xy
    assert two_dogs.box(x, y, x + 5, y + 6, label=label).mask.any()
    assert two_dogs.box(x, y, x + 1, y + 1, label=label).mask.any()


def test_a_box_in_which_nothing_stands_out_is_taken_for_the_most_part(two_dogs: Picture) -> None:
    mask = two_dogs.box(100, 10, 150, 50, label=BOAT).mask
    assert mask[10:50, 100:150].mean() > 0.4


@pytest.mark.parametrize("levels", [(0.9, 0.8, 0.3), (0.4, 0.4, 0.1), (0.9, 0.2, 0.2), (0.01,)])
def test_the_level_has_the_largest_expected_iou(levels: tuple[float, ...]) -> None:
    """Against all subsets of independent pixels, and all truths with their probabilities."""
    count, chance = len(levels), np.array(levels)
    subsets = [np.array(bits, bool) for bits in product((False, True), repeat=count)]

    def expected(taken: BoolMask) -> float:
        """Return the quotient of the expected intersection and the expected union."""
        weights = [float(np.where(truth, chance, 1 - chance).prod()) for truth in subsets]
        both, either = (
            sum(w * op(taken, truth).sum() for w, truth in zip(weights, subsets, strict=True))
            for op in (np.logical_and, np.logical_or)
        )
        return float(both / either)

    log_odds = np.log(chance / (1 - chance))[None]
    taken = log_odds[0] > best_level(log_odds)
    assert expected(taken) == pytest.approx(max(map(expected, subsets[1:])))


def test_a_box_around_the_whole_picture_finds_all_of_the_label(two_dogs: Picture) -> None:
    assert iou(two_dogs.box(0, 0, 256, 160).mask, two_dogs.thing) > 0.9
    assert iou(two_dogs.box(-50, -50, 900, 900).mask, two_dogs.thing) > 0.9


@pytest.mark.parametrize(
    "box_xyxy", [(20, 20, 90, 20), (1, 2, 3), (90, 20, 20, 90), (300, 0, 400, 90), (-9, -9, -2, 50)]
)
def test_a_box_without_a_pixel_is_refused(
    two_dogs: Picture, box_xyxy: tuple[float, float, float, float]
) -> None:
    with pytest.raises(ValueError, match=r"left, top, right, bottom .* image of 256 x 160 px, but"):
        two_dogs.predictor.box(box_xyxy)


def test_what_does_not_fit_is_refused(two_dogs: Picture) -> None:
    with pytest.raises(ValueError, match="`points` to hold one or more"):
        two_dogs.click()
    for points in ((60, 40), ([(60, 40), (1, 2)],)):
        with pytest.raises(TypeError, match=r"`points` to hold \(x, y\) .* but got .*60, 40\)"):
            two_dogs.predictor.click(*points)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`points` to hold numbers"):
        two_dogs.predictor.click((60, float("nan")))
    with pytest.raises(ValueError, match=r"`label` to be in .*'boat'\), but got 'cat'"):
        two_dogs.predictor.click(Point(1, 1), label="cat")
    other = Picture(disc((100, 100), (50, 50), 20))
    with pytest.raises(ValueError, match="`image` to be"):
        replace(two_dogs.predictor, image=other.image)
    with pytest.raises(ValueError, match="`features` and `scores` to be of one image"):
        replace(two_dogs.predictor, scores=other.scores, image=other.image)


@pytest.mark.parametrize("size_hw", [(16, 16), (1, 40), (17, 400)])
def test_the_smallest_pictures_have_masks_too(size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 90, np.uint8)
    plan = WindowPlan(size_hw, (16, 48), 64, 32, (16, 16))
    features = DenseFeatures(torch.ones(1, 1, 3, 1), plan)
    scores = Scores.of(features, torch.ones(3, 1), WORDS)
    predictor = PromptPredictor(features, scores, image)
    assert predictor.click((0, 0), label="dog").mask[0, 0]
    assert predictor.box((0, 0, 3, 1), "dog").mask.shape == size_hw
