"""One mask from a prompt: clicks or a box, and the label that the annotator means.

A prompt overrules what the whole picture's label map says: the annotator has pointed. What is left
to find is how far the thing reaches. It reaches as far as one can walk from a click without
crossing an edge, in colour or in meaning: the geodesic distance of Bai and Sapiro, "A Geodesic
Framework for Fast Interactive Image and Video Segmentation and Matting" (ICCV 2007). The label's
own probability says how far a walk may be; where the label's text says nothing at the click, it is
the likeness to the click, in meaning and in features. Nearer to a negative click than to a positive
one is outside. In a box, what is far from the box's surroundings stands out (Wei et al., "Geodesic
Saliency Using Background Priors", ECCV 2012).

All of this happens on a grid of cells, about as many for every picture; pixels are looked at once,
at the end, where a cell's neighbours disagree.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import Refinement, guided
from clearclip_core.segmentation.masks import BoolMask, drop_islands, fill_holes
from clearclip_core.segmentation.scores import DenseFeatures, Scores

FloatMap = npt.NDArray[np.float32]
_Pixel = tuple[int, int]  # row, column


@dataclass(frozen=True)
class Point:
    """A click.

    Attributes:
        x_px: from the left edge of the picture, EXIF orientation applied; the first pixel's
            centre is at 0.5.
        y_px: from the top edge.
        positive: whether it is on the thing or beside it.
    """

    x_px: float
    y_px: float
    positive: bool = True


@dataclass(frozen=True, eq=False)
class PromptedMask:
    """What a prompt asked for.

    Attributes:
        mask: (H, W) bool, at the picture's size.
        confidence: (H, W) float16 in [0, 1], how surely a pixel belongs to it.
    """

    mask: BoolMask
    confidence: npt.NDArray[np.float16]


def segment_points(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    points: Sequence[Point],
    image: RGBArray,
) -> PromptedMask:
    """The region that clicks point at.

    Every positive point is inside, every negative one outside; of several on one pixel the last
    counts. A negative point only ever takes away. Where no positive point stands, the mask is
    empty.

    Args:
        features: of the picture.
        scores: of the project's labels on it.
        label: index in ``scores.vocabulary.labels`` of the label that is meant.
        points: one or more; those outside the picture count at its nearest pixel.
        image: (H, W, 3) uint8, the picture itself.

    Raises:
        ValueError: no points, an unknown label, or values that are not of one picture.
    """
    if not points:
        raise ValueError("Expected argument `points` to hold one or more, but got none.")
    ground = _Ground.of(features, scores, label, image)
    clicks = [(_pixel(point, ground.image_hw), point.positive) for point in points]
    last = dict(clicks)
    inside, outside = ([at for at in last if last[at] is each] for each in (True, False))
    if not inside:
        nothing = np.zeros(ground.image_hw)
        return PromptedMask(nothing.astype(bool), nothing.astype(np.float16))
    # One that a later negative point lies on still says what was meant: taking it away could add.
    positive = list(dict.fromkeys(at for at, kept in clicks if kept))
    evidence = _click_evidence(ground, positive, outside)
    fine = np.ones(ground.fine.shape[:2], bool)
    for start in range(0, len(evidence), _MAPS_AT_ONCE):
        fine &= (ground.sharpen(evidence[start : start + _MAPS_AT_ONCE]) > 0).all(axis=0)
    ground.stamp(fine, inside, True)
    ground.stamp(fine, outside, False)
    fine = fill_holes(_touching(fine, ground.fine_pixels(inside)), ground.speck_px)
    ground.stamp(fine, outside, False)
    mask = ground.enlarge(fine)
    for at, kept in last.items():
        mask[at] = kept
    return PromptedMask(mask, ground.confidence(evidence.min(axis=0)))


def segment_box(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    box_xyxy: tuple[float, float, float, float],
    image: RGBArray,
) -> PromptedMask:
    """A label inside a box; where none is found, what stands out against the surroundings.

    Where nothing does, a box smaller than a patch is the thing itself, and the mask of a larger
    one is empty.

    Args:
        features: of the picture.
        scores: of the project's labels on it.
        label: index in ``scores.vocabulary.labels`` of the label that is meant.
        box_xyxy: left, top, right, bottom in px of the picture; what reaches beyond it is cut off.
        image: (H, W, 3) uint8, the picture itself.

    Raises:
        ValueError: a box that covers no pixel of the picture, an unknown label, or a picture that
            the features do not belong to.
    """
    box = _box_slices(box_xyxy, (image.shape[0], image.shape[1]))
    ground = _Ground.of(features, scores, label, image)
    mask = np.zeros(ground.image_hw, bool)
    for evidence in _box_evidence(ground, box):
        fine = ground.sharpen(evidence[None])[0] > 0
        fine = fill_holes(drop_islands(fine, ground.speck_px), ground.speck_px)
        mask[box] = ground.enlarge(fine)[box]
        if mask.any():
            break
    else:
        mask[box] = ground.within_patch(box)
    return PromptedMask(mask, ground.confidence(evidence))


# Chosen on drawn scenes, where a logistic regression of what belongs to the clicked thing on these
# terms gave about these weights. Colours are compared in CIELAB, whose unit is one of the eye, and
# models by their probabilities: what is particular to drawings is how flat their colours are.

#: Cells of the grid: as fine as a quarter of a patch where the short side has 28 patches.
_CELLS = 16_000
#: Pixels at which a mask is decided; that of a larger picture is enlarged.
_FINE_PX = 1_000_000
#: So many maps are sharpened at once: 4 MB each.
_MAPS_AT_ONCE = 8

#: What a step costs beside the difference of colours: itself, and so much for a change from one
#: certain meaning to another (Hellinger distance of the probabilities, times the root of 2).
_STEP = 0.5
_MEANING = 30.0

#: Log-odds that a cell belongs to the thing: at the click, less for the logarithm of the distance,
#: less for the logarithm of the label's probability, less for each unit of cosine to the click's
#: feature, and that with a text that says nothing.
_REACH = 16.0
_DISTANCE = 3.4
_TEXT = 0.6
_VISUAL = 0.5
_VISUAL_ALONE = 2.0
#: Further clicks correct: they reach less far.
_CORRECTION = 1.0
#: Log-odds for each logarithm of how many times a negative point is farther than a positive one.
_RIVALRY = 2.0

#: In a box: log-odds next to what is around it; they grow with the logarithm of the distance.
_SURROUNDINGS = -1.5
#: A label whose probability is below this everywhere in a box is not there.
_LIKELY = 0.1
#: Then the logarithm of the distance decides by itself, from this share of the largest on.
_SALIENT = 0.6

#: Log-odds that are sharpened along edges: more would be as sure, and overshoot more.
_SURE = 2.0
_EDGES = Refinement(radius_patches=1.0, epsilon=3e-4)

#: Probabilities below this are as good as none.
_LEAST = 1e-4
_HALF = float(np.log(0.5))

#: SciPy holds the interpreter while it walks: several at once are no faster, and starve the others.
_ONE_WALK = threading.Lock()


def _click_evidence(
    ground: _Ground, positive: Sequence[_Pixel], negative: Sequence[_Pixel]
) -> FloatMap:
    """(1 + negatives, h, w) log-odds: the thing is where all are above 0.

    Each negative point has a map of its own, so that another one can only take away.
    """
    walks = np.stack([ground.distance(ground.cells([pixel])) for pixel in positive])
    reach = np.full(len(positive), _REACH - _CORRECTION)
    reach[0] = _REACH
    said = float(ground.text[ground.cells(positive)].max())
    trust = min(float(np.exp(said - _HALF)), 1.0)  # in the text
    by_text = np.minimum(ground.text - min(said, _HALF), -_HALF)
    by_click = np.stack([ground.likeness(pixel) for pixel in positive]) - _HALF
    visual = trust * _VISUAL + (1 - trust) * _VISUAL_ALONE
    each = reach[:, None, None] - _DISTANCE * np.log1p(walks)
    each += _TEXT * (trust * by_text + (1 - trust) * by_click)
    each += visual * (np.stack([ground.cosines(pixel) for pixel in positive]) - 1)
    evidence = each.max(axis=0)
    near = walks.min(axis=0)
    maps = [evidence]
    for pixel in negative:
        far = ground.distance(ground.cells([pixel]))
        maps.append(np.minimum(evidence, _RIVALRY * np.log((far + _STEP) / (near + _STEP))))
    return np.stack(maps)


def _box_evidence(ground: _Ground, box: tuple[slice, slice]) -> Iterator[FloatMap]:
    """(h, w) log-odds that a cell belongs to the thing in a box; the next for want of a mask."""
    cells = ground.box_cells(box)
    likely = ground.text[cells].max() >= np.log(_LIKELY)
    # What is cut off by the box and of its label is not its surroundings.
    around = ~cells & (ground.text < _HALF)
    if likely and around.any():
        apart = np.log1p(ground.distance(around))
        yield np.asarray(_SURROUNDINGS + apart + _TEXT * ground.text)
    elif likely or cells.all():
        yield np.asarray(_TEXT * (ground.text - _HALF))
    if not cells.all():
        apart = np.log1p(ground.distance(~cells))
        yield np.asarray(apart - _SALIENT * apart[cells].max())


@dataclass(frozen=True, eq=False)
class _Ground:
    """A picture as a grid of cells to walk on.

    Attributes:
        fine: (h', w', 3) uint8, the picture at the size at which masks are decided.
        colours: (h, w, 3) float32 Lab of the cells, texture smoothed away.
        profile: (h, w, Q) float32, square roots of the queries' probabilities.
        text: (h, w) float32, logarithm of the label's probability.
        patches: (I*h_p, J*w_p, D) float32, the windows' features side by side, the picture's mean
            taken away (what all patches of CLIP have in common says nothing), of length 1.
        lines: (h, I*h_p) and (w, J*w_p), cells from the windows' patches.
        image_hw: the picture's size in px.
        patch_px: a patch's side in px of `fine`.
    """

    fine: RGBArray
    colours: FloatMap
    profile: FloatMap
    text: FloatMap
    patches: FloatMap
    lines: tuple[FloatMap, FloatMap]
    image_hw: tuple[int, int]
    patch_px: float

    @classmethod
    def of(cls, features: DenseFeatures, scores: Scores, label: int, image: RGBArray) -> _Ground:
        _check(features, scores, label, image)
        plan = scores.plan
        fine = _shrink(image, _FINE_PX)
        cells = _shrink(fine, _CELLS)
        down, along = (
            axis.course.at((np.arange(n) + 0.5) * len(axis.course.resized) / n - 0.5)
            for axis, n in zip((plan.rows, plan.columns), cells.shape, strict=False)
        )
        lines = down.astype(np.float32), along.astype(np.float32)
        cosines = scores.cosines.cpu().float().numpy()
        logits = scores.temperature * (lines[0] @ cosines @ lines[1].T)  # (Q, h, w)
        softmax = np.exp(logits - logits.max(axis=0))
        softmax /= softmax.sum(axis=0)
        own = softmax[np.equal(scores.vocabulary.query_labels, label)].max(axis=0)
        return cls(
            fine=fine,
            colours=_smooth_lab(cells),
            profile=np.sqrt(softmax).transpose(1, 2, 0),
            text=np.log(own + _LEAST),
            patches=_centred(features),
            lines=lines,
            image_hw=plan.image_hw,
            patch_px=plan.patch_hw[0] * len(fine) / plan.resized_hw[0],
        )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Cells (h, w)."""
        return self.text.shape[0], self.text.shape[1]

    @property
    def speck_px(self) -> int:
        """Pixels of `fine` below which an island or a hole is none: those of a cell."""
        return int(self.fine.shape[0] * self.fine.shape[1] // self.text.size)

    def cells(self, pixels: Sequence[_Pixel]) -> BoolMask:
        """(h, w): the cells that hold these pixels."""
        found = np.zeros(self.size_hw, bool)
        for pixel in pixels:
            found[_scaled(pixel, self.image_hw, self.size_hw)] = True
        return found

    def box_cells(self, box: tuple[slice, slice]) -> BoolMask:
        """(h, w): the cells in a box of pixels, at least one."""
        rows, columns = box
        top, left = _scaled((rows.start, columns.start), self.image_hw, self.size_hw)
        bottom, right = _scaled((rows.stop - 1, columns.stop - 1), self.image_hw, self.size_hw)
        found = np.zeros(self.size_hw, bool)
        found[top : bottom + 1, left : right + 1] = True
        return found

    def within_patch(self, box: tuple[slice, slice]) -> bool:
        """Whether a box of pixels is smaller than a patch, in both directions."""
        side = max(each.stop - each.start for each in box)
        return bool(side * len(self.fine) < self.patch_px * self.image_hw[0])

    def fine_pixels(self, pixels: Sequence[_Pixel]) -> list[_Pixel]:
        """The same places in `fine`."""
        size = self.fine.shape[0], self.fine.shape[1]
        return [_scaled(pixel, self.image_hw, size) for pixel in pixels]

    @cached_property
    def _graph(self) -> coo_array:
        space = np.concatenate([self.colours, _MEANING * self.profile], axis=2)
        index = np.arange(self.text.size).reshape(self.size_hw)
        right = np.linalg.norm(np.diff(space, axis=1), axis=2)
        down = np.linalg.norm(np.diff(space, axis=0), axis=2)
        start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
        stop = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
        steps = np.concatenate([right.ravel(), down.ravel()])
        # Noise and texture are everywhere: what half of all steps cost is no edge.
        cost = np.maximum(steps - np.median(steps), 0) + _STEP
        return coo_array((cost, (start, stop)), shape=(index.size, index.size)).tocsr()

    def distance(self, seeds: BoolMask) -> FloatMap:
        """(h, w): length of the shortest walk from any of the seeds."""
        graph, starts = self._graph, np.flatnonzero(seeds)
        with _ONE_WALK:
            walked = dijkstra(graph, directed=False, indices=starts, min_only=True)
        return np.asarray(walked, np.float32).reshape(self.size_hw)

    def likeness(self, pixel: _Pixel) -> FloatMap:
        """(h, w): logarithm of how probably a cell means what is meant at a pixel.

        The square of Bhattacharyya's coefficient: where a word is certain at the pixel, that is
        the word's probability.
        """
        here = self.profile[_scaled(pixel, self.image_hw, self.size_hw)]
        return np.asarray(np.log((self.profile @ here) ** 2 + _LEAST))

    def cosines(self, pixel: _Pixel) -> FloatMap:
        """(h, w): of the cells' features with the one at a pixel, both without the mean."""
        y, x = _scaled(pixel, self.image_hw, self.size_hw)
        down, along = self.lines
        here = np.einsum("h,hwd,w->d", down[y], self.patches, along[x], optimize=True)
        here /= max(float(np.linalg.norm(here)), _LEAST)
        return np.asarray(down @ (self.patches @ here) @ along.T)

    def sharpen(self, evidence: FloatMap) -> FloatMap:
        """(K, h, w) -> (K, h', w') at the size of `fine`, along its edges."""
        return guided(self.fine, np.clip(evidence, -_SURE, _SURE), self.patch_px, _EDGES)

    def stamp(self, fine: BoolMask, pixels: Sequence[_Pixel], value: bool) -> None:
        """Write a value around pixels, as far as a cell reaches."""
        radius = int(self.speck_px**0.5 / 2)
        for y, x in self.fine_pixels(pixels):
            around = (
                slice(max(y - radius, 0), y + radius + 1),
                slice(max(x - radius, 0), x + radius + 1),
            )
            fine[around] = value

    def enlarge(self, fine: BoolMask) -> BoolMask:
        """(h', w') -> (H, W)."""
        if fine.shape == self.image_hw:
            return fine
        grey = cv2.resize(fine.astype(np.uint8) * 255, self.image_hw[::-1])
        return np.asarray(grey > 127)

    def confidence(self, evidence: FloatMap) -> npt.NDArray[np.float16]:
        """(h, w) log-odds -> (H, W) probabilities, in steps of 1/255."""
        probability = 1 / (1 + np.exp(-evidence))
        steps = cv2.resize(np.round(probability * 255).astype(np.uint8), self.image_hw[::-1])
        return np.asarray((np.arange(256) / 255).astype(np.float16)[steps])


def _check(features: DenseFeatures, scores: Scores, label: int, image: RGBArray) -> None:
    plan, count = scores.plan, len(scores.vocabulary.labels)
    if features.plan != plan:
        raise ValueError(
            "Expected arguments `features` and `scores` to be of one picture, but their windows "
            "differ."
        )
    if image.shape != (*plan.image_hw, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"Expected argument `image` to be {(*plan.image_hw, 3)} uint8, but got {image.shape} "
            f"{image.dtype}."
        )
    if not 0 <= label < count:
        raise ValueError(f"Expected argument `label` to be in 0..{count - 1}, but got {label}.")


def _centred(features: DenseFeatures) -> FloatMap:
    """(I*h_p, J*w_p, D): features side by side, without their mean, of length 1."""
    patches = features.patches.detach().cpu().float()
    centred = F.normalize(patches - patches.mean(dim=(0, 1, 2)), dim=-1)
    mosaic = features.plan.mosaic(centred.permute(0, 3, 1, 2))
    return np.asarray(mosaic.permute(1, 2, 0).contiguous().numpy())


def _pixel(point: Point, image_hw: tuple[int, int]) -> _Pixel:
    """Row and column of the pixel of the picture that is nearest to a point."""
    y, x = (
        min(max(int(np.floor(px)), 0), side - 1)
        for px, side in zip((point.y_px, point.x_px), image_hw, strict=True)
    )
    return y, x


def _scaled(pixel: _Pixel, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> _Pixel:
    """Row and column of a pixel's centre in the same picture of another size."""
    y, x = (
        (2 * at + 1) * new // (2 * old) for at, old, new in zip(pixel, old_hw, new_hw, strict=True)
    )
    return y, x


def _box_slices(
    box_xyxy: tuple[float, float, float, float], image_hw: tuple[int, int]
) -> tuple[slice, slice]:
    """Rows and columns of the whole pixels in a box, as far as it is in the picture."""
    height, width = image_hw
    left, top, right, bottom = box_xyxy
    rows = slice(max(round(top), 0), min(round(bottom), height))
    columns = slice(max(round(left), 0), min(round(right), width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(
            f"Expected argument `box_xyxy` to cover pixels of a picture of {width} x {height} px, "
            f"but got {box_xyxy}."
        )
    return rows, columns


def _touching(mask: BoolMask, pixels: Sequence[_Pixel]) -> BoolMask:
    """The connected parts of a mask that hold any of these pixels."""
    count, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[[parts[pixel] for pixel in pixels]] = True
    keep[0] = False
    return np.asarray(keep[parts])


def _shrink(image: RGBArray, most_px: int) -> RGBArray:
    """The picture at about `most_px` pixels at most, aspect kept."""
    height, width = image.shape[:2]
    scale = (most_px / (height * width)) ** 0.5
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image if scale >= 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _smooth_lab(image: RGBArray) -> FloatMap:
    """(h, w, 3) float32 Lab; texture smoothed away, edges kept."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(cv2.bilateralFilter(lab, 5, 12, 3))
