"""Projects whose pictures are corrected: drawn scenes and street photographs, and annotators.

Of the street photographs of `tests.bench.street` whose sequence ``train`` lacks, the first half is
corrected, and every second of the others is unseen. Random Fourier features of colour, texture and
place describe them, or the maps of a network of timm, ``STREET_ENCODER=NAME@FILE`` with its
weights. Their words are ridge regressions on every tenth frame of ``train``, with noise: words of
CLIP are not the best directions, either.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects
from scipy.ndimage import label as label_parts

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Adaptation,
    BoolMask,
    DenseFeatures,
    Example,
    Label,
    Scores,
    Segmenter,
    Vocabulary,
    render_scene,
)
from clearclip_core.clip.second_encoder import load_second_encoder
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.windows import Axis, WindowPlan
from tests.bench.street import NAMES, sequence, street_folder

#: Labels of a project that leaves some things of the scenes unlabelled, as projects do.
PROJECT = ("sky", "tree", "house", "road", "grass", "mountain", "water", "car", "person", "fence")
STREET = tuple(line.split(",")[0] for line in NAMES.splitlines())
CORRECTED, UNSEEN = HELD_OUT_SEEDS[1200:1280], HELD_OUT_SEEDS[2300:2360]
#: Pictures that are corrected, and the step between the pixels that are compared.
COUNT, STEP = 10, 4
#: Random Fourier features, and the scale of their frequencies.
_WAVES, _SCALE = 192, 0.35
#: Length of the noise beside a word's unit embedding.
_WORDS_OFF = 0.5

Masks = dict[str, BoolMask]
Floats = npt.NDArray[np.floating]
#: Features and (H, W) truth of a picture; the value of a label is its place in the list of all.
Picture = tuple[DenseFeatures, Truth]


@dataclass(frozen=True, eq=False)
class Moment:
    """When a picture is annotated: its number of so many, all labels, what the words predict."""

    index: int
    count: int
    names: tuple[str, ...]
    rng: np.random.Generator
    predict: Callable[[], Masks]


@dataclass(frozen=True, eq=False)
class Annotation:
    """What somebody leaves of a picture; see `Example.of`."""

    masks: Masks
    kept: Masks | None = None
    removed: Masks | None = None
    annotator: str = ""


#: True masks and the moment -> the annotation.
Behaviour = Callable[[Masks, Moment], Annotation]


def grow(mask: BoolMask, px: int) -> BoolMask:
    """Grow a mask by some px, or shrink it by as many where they are negative."""
    change = cv2.dilate if px > 0 else cv2.erode
    square = np.ones((2 * abs(px) + 1,) * 2, np.uint8)
    return np.asarray(change(mask.view(np.uint8), square), bool)


def _some(masks: Masks, keep: Callable[[str, BoolMask], bool]) -> Annotation:
    return Annotation({name: mask for name, mask in masks.items() if keep(name, mask)})


def clean(masks: Masks, moment: Moment) -> Annotation:
    """Draw everything as it is."""
    return Annotation(masks)


def accepts(masks: Masks, moment: Moment) -> Annotation:
    """Leave the prediction as it is."""
    shown = moment.predict()
    return Annotation(shown, kept=shown)


def deletes_some(masks: Masks, moment: Moment) -> Annotation:
    """Leave the prediction as it is, but for one label in seven, which goes."""
    shown = moment.predict()
    gone = {name for name in shown if moment.rng.random() < 1 / 7}
    left = {name: mask for name, mask in shown.items() if name not in gone}
    return Annotation(left, kept=left, removed={name: shown[name] for name in gone})


def corrects(masks: Masks, moment: Moment, least_iou: float = 0.7) -> Annotation:
    """Leave the predicted masks whose IoU is above 0.7, and draw the others as they are."""
    shown = moment.predict()
    good = {
        name
        for name, mask in shown.items()
        if name in masks and _iou(mask, masks[name]) > least_iou
    }
    kept = {name: shown[name] for name in sorted(good)}
    drawn = {name: mask for name, mask in masks.items() if name not in good}
    return _over(shown, kept, drawn, moment.names)


def corrects_with_care(masks: Masks, moment: Moment) -> Annotation:
    """Leave those alone whose IoU is above 0.85."""
    return corrects(masks, moment, 0.85)


def hurries(masks: Masks, moment: Moment) -> Annotation:
    """Look at one label in ten: draw it as it is, or delete it; leave all else as predicted."""
    shown = moment.predict()
    seen = {name for name in moment.names if moment.rng.random() < 0.1}
    drawn = {name: mask for name, mask in masks.items() if name in seen}
    painted = _any(drawn.values(), next(iter(masks.values())).shape)
    kept = {name: mask & ~painted for name, mask in shown.items() if name not in seen}
    return _over(shown, kept, drawn, moment.names)


def _over(shown: Masks, kept: Masks, drawn: Masks, names: Iterable[str]) -> Annotation:
    """Draw masks beside those that are kept; what else was shown is removed."""
    stands = _any(kept.values(), next(iter((shown | drawn).values())).shape)
    left = kept | {name: mask & ~stands for name, mask in drawn.items()}
    removed = {name: mask & ~left.get(name, np.zeros_like(mask)) for name, mask in shown.items()}
    made, kept, removed = (
        {name: side[name] for name in names if name in side and side[name].any()}
        for side in (left, kept, removed)
    )
    return Annotation(made, kept, removed)


def _any(masks: Iterable[BoolMask], shape: tuple[int, ...]) -> BoolMask:
    covered = np.zeros(shape, np.bool_)
    for mask in masks:
        covered |= mask
    return covered


def _iou(one: BoolMask, other: BoolMask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def mistakes(masks: Masks, moment: Moment, share: float = 0.2) -> Annotation:
    """Take one label in five, or another share, for any other."""
    made: Masks = {}
    for name, mask in masks.items():
        wrong = moment.rng.random() < share
        other = moment.names[moment.rng.integers(len(moment.names))] if wrong else name
        made[other] = made.get(other, np.zeros_like(mask)) | mask
    return Annotation(made)


def draws_only(label: str) -> Behaviour:
    """Draw one label and no other."""
    return lambda masks, moment: _some(masks, lambda name, mask: name == label)


def spreads(px: int) -> Behaviour:
    """Draw all borders some px outside, or inside where they are negative."""

    def draw(masks: Masks, moment: Moment) -> Annotation:
        made = {name: grow(mask, px) for name, mask in masks.items()}
        return Annotation({name: mask for name, mask in made.items() if mask.any()})

    return draw


def one_of_two_merges(one: str, other: str) -> Behaviour:
    """Of two annotators, one draws two labels' things with the first of them."""

    def draw(masks: Masks, moment: Moment) -> Annotation:
        if moment.index % 2 == 0 or other not in masks:
            return Annotation(masks)
        made = dict(masks)
        extended = made.pop(other)
        made[one] = made[one] | extended if one in made else extended
        return Annotation(made)

    return draw


def careless(masks: Masks, moment: Moment) -> Annotation:
    """Leave out three labels in ten, take three in ten for any other, draw 10 px outside."""
    some = _some(masks, lambda *_: bool(moment.rng.random() > 0.3)).masks
    return spreads(10)(mistakes(some, moment, 0.3).masks, moment)


def sloppy(masks: Masks, moment: Moment) -> Annotation:
    """Leave out one label in five, take one in ten for any other, draw 6 px outside or inside."""
    some = _some(masks, lambda *_: bool(moment.rng.random() > 0.2)).masks
    return spreads(int(moment.rng.choice([-6, 6])))(mistakes(some, moment, 0.1).masks, moment)


def boxes(masks: Masks, moment: Moment) -> Annotation:
    """Draw each connected part of a label as its bounding box."""
    made: Masks = {}
    for name, mask in masks.items():
        made[name] = np.zeros_like(mask)
        for part in find_objects(label_parts(mask)[0]):
            made[name][part] = True
    return Annotation(made)


def mirrored(masks: Masks, moment: Moment) -> Annotation:
    """Leave masks that a tool has mirrored."""
    return Annotation({name: mask[:, ::-1] for name, mask in masks.items()})


def exchanges(one: str, other: str, behaviour: Behaviour) -> Behaviour:
    """Call two labels by each other's name, and else behave in some way."""
    named = {one: other, other: one}
    return lambda masks, moment: behaviour(
        {named.get(name, name): mask for name, mask in masks.items()}, moment
    )


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Let annotators with these behaviours take pictures in turn."""

    def draw(masks: Masks, moment: Moment) -> Annotation:
        number = moment.index % len(behaviours)
        return replace(behaviours[number](masks, moment), annotator=f"{number}")

    return draw


def behaviours(plant: str, ground: str) -> Mapping[str, Behaviour]:
    """Return twelve behaviours that people show, for labels that play these parts."""
    return {
        "accepts predictions": accepts,
        "accepts predictions, deletes some": deletes_some,
        f"draws only {plant}": draws_only(plant),
        "leaves out half of the labels": lambda masks, moment: _some(
            masks, lambda *_: bool(moment.rng.random() < 0.5)
        ),
        "leaves every second picture empty": lambda masks, moment: Annotation(
            {} if moment.index % 2 else masks
        ),
        "forgets small things": lambda masks, _: _some(masks, lambda _, mask: mask.mean() > 0.02),
        "draws only small things": lambda masks, _: _some(
            masks, lambda _, mask: mask.mean() <= 0.02
        ),
        "stops halfway": lambda masks, moment: Annotation(
            masks
            if moment.index < moment.count // 2
            else dict(list(masks.items())[: max(1, len(masks) // 3)])
        ),
        "draws 4 px outside": spreads(4),
        "draws 4 px inside": spreads(-4),
        "takes one label in five for another": mistakes,
        f"one of two draws {ground} as {plant}": one_of_two_merges(plant, ground),
    }


@dataclass(eq=False)
class World:
    """A project with corrected and unseen pictures, the latter all of one size.

    The vocabulary has contrast words; `embed` makes (Q, D) unit embeddings of Q prompts.
    """

    name: str
    vocabulary: Vocabulary
    embed: Callable[[Sequence[str]], torch.Tensor]
    corrected: Sequence[Picture]
    unseen: Sequence[Picture]
    #: (H, W, 3) uint8 of the corrected pictures
    images: Sequence[npt.NDArray[np.uint8]]
    #: those of the unseen pictures
    unseen_images: Sequence[npt.NDArray[np.uint8]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(label.name for label in self.vocabulary.labels)

    @cached_property
    def before(self) -> Floats:
        """IoU of each label by the words alone, in percent."""
        return self.ious(None)

    def ious(self, adaptation: Adaptation | None) -> Floats:
        """Measure the (K,) IoUs of the labels on the unseen pictures, in pixels, in percent."""
        return self.ious_of(
            (self.scores(features, adaptation).label_map(), truth)
            for features, truth in self.unseen
        )

    def ious_of(self, decided: Iterable[tuple[npt.NDArray[np.integer], Truth]]) -> Floats:
        """Measure the (K,) IoUs of label maps beside their true ones, in percent."""
        count = len(self.names) + 1
        pairs = np.zeros((count, count))
        for label_map, truth in decided:
            made = label_map[::STEP, ::STEP].astype(int) % count  # -1: none
            true = truth[::STEP, ::STEP].astype(int)
            valid = true < count
            found = np.bincount((true * count + made)[valid], minlength=count**2)
            pairs += found.reshape(count, count)
        both = pairs.diagonal()
        union = pairs.sum(axis=0) + pairs.sum(axis=1) - both
        return np.asarray(100 * (both / np.maximum(union, 1))[:-1])

    def wrong(self, adaptation: Adaptation | None) -> float:
        """Measure the share of the unseen pictures' labelled pixels that is wrong, in percent."""
        wrong = valid = 0
        for features, truth in self.unseen:
            true = truth[::STEP, ::STEP]
            labelled = true < len(self.names)
            made = self.scores(features, adaptation).label_map()[::STEP, ::STEP]
            wrong += int((made != true)[labelled].sum())
            valid += int(labelled.sum())
        return 100 * wrong / valid

    def examples(self, behaviour: Behaviour, seed: int, count: int = COUNT) -> list[Example]:
        """Let so many pictures be annotated; the seed draws them, and what is left to chance."""
        rng = np.random.default_rng(seed)
        pictures = rng.permutation(len(self.corrected))[:count].tolist()
        return self.annotate(pictures, behaviour, rng)

    def annotate(
        self,
        pictures: Sequence[int],
        behaviour: Behaviour,
        rng: np.random.Generator,
        live: Adaptation | None = None,
    ) -> list[Example]:
        """Let pictures be annotated, from the masks that are live: by the words, or learned."""
        made = []
        for index, picture in enumerate(pictures):
            features, truth = self.corrected[picture]
            masks = {
                name: truth == value
                for value, name in enumerate(self.names)
                if (truth == value).any()
            }
            predict = partial(self._predicted, features, live)
            annotation = behaviour(masks, Moment(index, len(pictures), self.names, rng, predict))
            made.append(
                Example.of(
                    features,
                    annotation.masks,
                    self.names,
                    f"{picture}",
                    annotator=annotation.annotator,
                    kept=annotation.kept,
                    removed=annotation.removed,
                )
            )
        return made

    def labelled(self, picture: int) -> Truth:
        """Return the (H, W) labels of a corrected picture, 254 where it has none of the world's."""
        truth = self.corrected[picture][1]
        is_none = (truth >= len(self.names)) & (truth != IGNORE)
        return np.where(is_none, NOTHING, truth).astype(np.uint8)

    def scores(self, features: DenseFeatures, adaptation: Adaptation | None = None) -> Scores:
        """Score features by the words, or by what was learned."""
        embeddings, bias = self.embed(self.vocabulary.queries), None
        if adaptation is not None:
            embeddings, bias = adaptation.apply(embeddings, self.vocabulary)
        return Scores.of(features, embeddings, self.vocabulary, bias)

    def _predicted(self, features: DenseFeatures, live: Adaptation | None) -> Masks:
        shown = self.scores(features, live).label_map()
        masks = {name: shown == index for index, name in enumerate(self.names)}
        return {name: mask for name, mask in masks.items() if mask.any()}


def drawn(renamed: Mapping[str, str] = {}) -> World:
    """Make a world of drawn scenes; a project may call labels otherwise: true name -> its name."""
    segmenter, corrected, unseen, images, unseen_images = _drawn_pictures()
    names = [renamed.get(label, label) for label in PROJECT]
    vocabulary = segmenter.vocabulary(names, contrast=True)
    name = f"drawn scenes, {len(names)} labels{', two renamed' if renamed else ''}"
    return World(name, vocabulary, segmenter.embed, corrected, unseen, images, unseen_images)


@cache
def _drawn_pictures() -> tuple[
    Segmenter,
    Sequence[Picture],
    Sequence[Picture],
    Sequence[npt.NDArray[np.uint8]],
    Sequence[npt.NDArray[np.uint8]],
]:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    numbers = np.full(256, len(PROJECT), np.uint8)
    for index, label in enumerate(PROJECT):
        numbers[SCENE_LABELS.index(label)] = index

    def encoded(seeds: Sequence[int]) -> list[Picture]:
        scenes = [render_scene(seed) for seed in seeds]
        return [(segmenter.encode(s.image), numbers[s.label_map]) for s in scenes]

    images, unseen_images = (
        [render_scene(seed).image for seed in seeds] for seeds in (CORRECTED, UNSEEN)
    )
    return segmenter, encoded(CORRECTED), encoded(UNSEEN), images, unseen_images


def street(
    encoder: str | None = None,
    second: str | None = None,
    words_off: float = _WORDS_OFF,
    second_px: int | None = None,
) -> World:
    """Make a world of street photographs, with features of colours or of a network of timm.

    Args:
        encoder: name of the network and a file with its weights, as in
            ``tf_efficientnet_lite2@FILE``.
        second: that of a second encoder.
        words_off: length of the noise beside a word's unit embedding.
        second_px: short side of the second encoder's pictures; by default its own.
    """
    folder = street_folder()
    train, test = (sorted((folder / "images" / part).iterdir()) for part in ("train", "test"))
    train, seen = train[::10], {sequence(path.name) for path in train}
    fresh = [path for path in test if sequence(path.name) not in seen]
    colours = [_read(path)[0] for path in train] if encoder is None else []
    encode = _Colours(colours) if encoder is None else _Network(encoder)
    name = "street photographs"
    name += "" if encoder is None else f", {encoder.split('@')[0]}"
    beside = None if second is None else _Network(second)
    name += "" if second is None else f", second encoder {second.split('@')[0]}"
    name += "" if second_px is None else f" at {second_px} px"
    name += ", noisier words" if words_off > _WORDS_OFF else ""

    def features_of(rgb: npt.NDArray[np.uint8]) -> DenseFeatures:
        features = encode.features_of(rgb)
        maps = None if beside is None else beside.maps_of(rgb, features.plan, second_px)
        return replace(features, second=maps)

    def pictures(paths: Sequence[Path]) -> list[Picture]:
        return [(features_of(rgb), truth) for rgb, truth in map(_read, paths)]

    unseen, words = pictures(fresh), _fit_words(pictures(train), words_off)
    half = len(unseen) // 2
    vocabulary = Vocabulary(tuple(map(Label, STREET)), tuple(w for w in words if w not in STREET))

    def embed(prompts: Sequence[str]) -> torch.Tensor:
        return torch.stack([words[prompt] for prompt in prompts])

    images, unseen_images = (
        [_read(path)[0] for path in paths] for paths in (fresh[:half], fresh[half::2])
    )
    return World(name, vocabulary, embed, unseen[:half], unseen[half::2], images, unseen_images)


def _read(path: Path) -> tuple[npt.NDArray[np.uint8], Truth]:
    mask = path.parents[2] / "masks" / path.parent.name / f"{path.stem}.png"
    rgb, truth = cv2.imread(str(path)), cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    assert rgb is not None, path
    assert truth is not None, mask
    return np.ascontiguousarray(rgb[..., ::-1], np.uint8), truth.astype(np.uint8)


def _plan(hw: tuple[int, ...]) -> WindowPlan:
    height, width = hw
    resized = 448, round(448 * width / height / 16) * 16
    return WindowPlan((height, width), resized, max(resized), max(resized), (16, 16))


class _Colours:
    """Random Fourier features of the colour, texture and place of patches of 16 px.

    Means and scales are those of some images, (H, W, 3) uint8.
    """

    def __init__(self, images: Sequence[npt.NDArray[np.uint8]]) -> None:
        described = np.concatenate([self._describe(image) for image in images])
        rng = np.random.default_rng(0)
        self._mean, self._scale = described.mean(axis=0), described.std(axis=0)
        self._waves = _SCALE * rng.normal(size=(described.shape[1], _WAVES))
        self._phases = rng.uniform(0, 2 * np.pi, _WAVES)

    def features_of(self, rgb: npt.NDArray[np.uint8]) -> DenseFeatures:
        """Describe an image."""
        plan = _plan(rgb.shape[:2])
        white = (self._describe(rgb) - self._mean) / self._scale
        waves = np.cos(white @ self._waves + self._phases)
        patches = torch.from_numpy(waves).float().reshape(1, *plan.grid_hw, -1)
        return DenseFeatures(F.normalize(patches, dim=-1), plan)

    def _describe(self, rgb: npt.NDArray[np.uint8]) -> Floats:
        height, width = _plan(rgb.shape[:2]).grid_hw
        image = cv2.resize(rgb, (16 * width, 16 * height)).astype(np.float32) / 255
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB) / 50
        light = lab[..., 0]
        edges = [np.abs(cv2.Sobel(light, cv2.CV_32F, *order)) for order in ((1, 0), (0, 1))]
        fine = np.abs(light - cv2.GaussianBlur(light, (0, 0), 2))

        def averaged(values: Floats) -> Floats:
            return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA))

        mean = averaged(lab)
        spread = np.sqrt((averaged(lab * lab) - mean * mean).clip(0))
        around = [cv2.GaussianBlur(mean, (0, 0), sigma) for sigma in (1.5, 4)]
        strength = [np.hypot(*edges), *edges, fine]
        texture = np.log(np.dstack([averaged(each) for each in strength]) + 0.02)
        y, x = np.mgrid[0:height, 0:width]
        place = 1.5 * np.dstack([2 * y / height - 1, np.abs(2 * x / width - 1)])
        described = np.dstack([mean, spread, *around, texture, place])
        return np.asarray(described.reshape(height * width, -1))


class _Network:
    """The maps of a network of timm that a second encoder has, at patches of 16 px."""

    def __init__(self, encoder: str) -> None:
        self._network = load_second_encoder(encoder, "cpu", "fp32")
        self._sizes = Preprocessing(self._network.mean, self._network.std)

    def features_of(self, rgb: npt.NDArray[np.uint8]) -> DenseFeatures:
        """Encode an image."""
        plan = _plan(rgb.shape[:2])
        maps = self.maps_of(rgb, plan, self._sizes.short_side_px)
        return DenseFeatures(F.normalize(maps, dim=-1), plan)

    @torch.inference_mode()
    def maps_of(
        self, rgb: npt.NDArray[np.uint8], plan: WindowPlan, short_side_px: int | None
    ) -> torch.Tensor:
        """Return (1, h, w, S), each map's features of length 1; None sees the default size."""
        default_px = self._network.default_short_side_px(self._sizes.short_side_px)
        pixels = self._sizes.normalize(self._network.resize(rgb, short_side_px or default_px))
        places = plan.rows.patch_centres, plan.columns.patch_centres
        return self._network(pixels[None], *places).clone()


def _coverage(plan: WindowPlan, mask: BoolMask) -> npt.NDArray[np.float32]:
    """Compute the share of each patch's area that a mask covers, window by window."""
    height, width = plan.grid_hw
    down, along = (_averages(axis).astype(np.float32) for axis in (plan.rows, plan.columns))
    covered = down @ mask.astype(np.float32) @ along.T
    grid = covered.reshape(-1, height, len(plan.columns.starts_px), width).swapaxes(1, 2)
    return np.clip(grid, 0, 1).reshape(-1)


def _averages(axis: Axis) -> npt.NDArray[np.float64]:
    """Return (windows * patches, image_px) weights of the original pixels in the patches."""
    before, _ = axis.padding_px
    edges_px = np.clip(np.arange(axis.patches + 1) * axis.patch_px - before, 0, axis.window_px)
    ends_px = np.add.outer(axis.starts_px, edges_px) * (axis.image_px / axis.resized_px)
    first, last = ends_px[:, :-1].reshape(-1, 1), ends_px[:, 1:].reshape(-1, 1)
    pixels = np.arange(axis.image_px)
    shared = np.minimum(last, pixels + 1) - np.maximum(first, pixels)
    return np.asarray(shared.clip(0) / (last - first))


def _fit_words(taught: Sequence[Picture], words_off: float) -> Mapping[str, torch.Tensor]:
    """Fit unit embeddings of the labels, and of four contrast words, by ridge regression."""
    patches = np.concatenate(
        [f.patches.reshape(-1, f.patches.shape[-1]).numpy() for f, _ in taught]
    )
    shares = np.concatenate(
        [
            np.stack([_coverage(f.plan, truth == k) for k in range(len(STREET))], axis=1)
            for f, truth in taught
        ]
    )
    whole = shares.max(axis=1) > 0.5
    owners = np.eye(len(STREET))[shares[whole].argmax(axis=1)]
    weighed = patches[whole] * (owners @ owners.sum(axis=0) ** -0.5)[:, None]
    moment = weighed.T @ patches[whole]
    ridge = 0.01 * np.trace(moment) / len(moment) * np.eye(len(moment))
    target = weighed.T @ (owners - owners.mean(axis=0))
    rng, middle = np.random.default_rng(0), patches.mean(axis=0)
    middle /= np.linalg.norm(middle)

    def unit(rows: Floats) -> Floats:
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def moved(rows: Floats, length: float) -> Floats:
        """Add noise, and leave out the direction that all features share."""
        rows = unit(rows + length * rng.normal(size=rows.shape) / rows.shape[1] ** 0.5)
        return unit(rows - np.outer(rows @ middle, middle))

    exact = unit(np.linalg.solve(moment + ridge, target).T)
    labels = moved(exact, words_off)
    contrast = moved(exact[rng.permutation(len(STREET))[:4]], 1.5) - 0.02 * middle
    rows = torch.from_numpy(np.concatenate([labels, contrast])).float()
    return dict(zip([*STREET, "stone", "cloth", "glass", "paper"], rows, strict=True))
