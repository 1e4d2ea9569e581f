"""One mask from a prompt: clicks or a box, and the label that the annotator means.

A prompt overrules what the whole picture's label map says: the annotator has pointed. What is left
to find is how far the thing reaches. It reaches as far as one can walk from a click without
crossing an edge, in colour or in meaning: the geodesic distance of Bai and Sapiro, "A Geodesic
Framework for Fast Interactive Image and Video Segmentation and Matting" (ICCV 2007). The label's
own probability says how far a walk may be; nearer to a negative click than to a positive one is
outside. In a box, what is far from the box's surroundings stands out (Wei et al., "Geodesic
Saliency Using Background Priors", ECCV 2012).

All of this happens on a grid of cells, about as many for every picture; pixels are looked at once,
at the end, where a cell's neighbours disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from clearclip_core.masks import BoolMask, drop_islands, fill_holes
from clearclip_core.pictures import RGBArray
from clearclip_core.scores import DenseFeatures, Scores

FloatMap = npt.NDArray[np.float32]


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

    Every positive point is inside, every negative one outside; of two on one pixel the last
    counts. A negative point never adds a pixel. Without a positive point the mask is empty.

    Args:
        features: of the picture.
        scores: of the project's labels on it.
        label: index in ``scores.vocabulary.labels`` of the label that is meant.
        points: one or more; those outside the picture count at its nearest pixel.
        image: (H, W, 3) uint8, the picture itself.

    Raises:
        ValueError: no points, an unknown label, or a picture that the features do not belong to.
    """
    if not points:
        raise ValueError("Expected argument `points` to hold one or more, but got none.")
    ground = _Ground.of(features, scores, label, image)
    pixels = {_pixel(point, image): point.positive for point in points}
    positive = [pixel for pixel, inside in pixels.items() if inside]
    negative = [pixel for pixel, inside in pixels.items() if not inside]
    if not positive:
        return _nothing(image)
    near = ground.distance(ground.cells(positive))
    evidence = _REACH - _DISTANCE * np.log1p(near) + _TEXT * ground.text
    if negative:
        far = ground.distance(ground.cells(negative))
        evidence = np.minimum(evidence, _RIVALRY * np.log((far + 0.1) / (near + 0.1)))
    mask = ground.sharpen(evidence)
    for y, x in positive:
        mask[y, x] = True
    for y, x in negative:
        mask[y, x] = False
    mask = fill_holes(_touching(mask, positive), ground.cell_px)
    for y, x in negative:
        mask[y, x] = False
    return PromptedMask(mask, ground.confidence(evidence))


def segment_box(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    box_xyxy: tuple[float, float, float, float],
    image: RGBArray,
) -> PromptedMask:
    """A label inside a box; where it is nowhere likely, what stands out against the surroundings.

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
    rows, columns = _box_slices(box_xyxy, image)
    ground = _Ground.of(features, scores, label, image)
    inside = np.zeros(image.shape[:2], np.uint8)
    inside[rows, columns] = 1
    cells = cv2.resize(inside, ground.size_hw[::-1], interpolation=cv2.INTER_NEAREST) > 0
    around = ~cells
    out = ground.distance(around) if around.any() else np.ones(ground.size_hw, np.float32)
    evidence = -1.5 + np.log1p(out) + _TEXT * ground.text
    if not (evidence[cells] > 0).any():
        evidence = out - np.mean(out[cells]) if cells.any() else out + 1
    mask = ground.sharpen(evidence) & (inside > 0)
    mask = fill_holes(drop_islands(mask, ground.cell_px), ground.cell_px)
    return PromptedMask(mask, ground.confidence(evidence))


#: Cells of the grid: as fine as a quarter of a patch where the short side has 28 patches.
_CELLS = 16_000
#: Pixels at which a mask is decided; larger pictures get it enlarged.
_FINE_PX = 1_000_000

_REACH = 16.0
_DISTANCE = 3.4
_TEXT = 0.5
_RIVALRY = 2.0
_MEANING = 30.0
_STEP = 0.5


@dataclass(frozen=True, eq=False)
class _Ground:
    """A picture as a grid of cells to walk on.

    Attributes:
        fine: (h', w', 3) float32 Lab, the picture at the size at which masks are decided.
        colours: (h, w, 3) float32 Lab of the cells, texture smoothed away.
        profile: (h, w, Q) float32, square roots of the queries' probabilities.
        text: (h, w) float32, logarithm of the label's probability.
        image_hw: the picture's size in px.
    """

    fine: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float32]
    profile: npt.NDArray[np.float32]
    text: FloatMap
    image_hw: tuple[int, int]

    @classmethod
    def of(cls, features: DenseFeatures, scores: Scores, label: int, image: RGBArray) -> _Ground:
        plan = scores.plan
        if image.shape[:2] != plan.image_hw or features.plan != plan:
            raise ValueError(
                f"Expected argument `image` to be of the features' and scores' size "
                f"{plan.image_hw}, but got {image.shape[:2]}."
            )
        count = len(scores.vocabulary.labels)
        if not 0 <= label < count:
            raise ValueError(f"Expected argument `label` to be in 0..{count - 1}, but got {label}.")
        fine = _shrink(image, _FINE_PX)
        cells = _shrink(fine, _CELLS)
        size = cells.shape[:2]
        lines = [
            torch.from_numpy(
                axis.course.at((np.arange(n) + 0.5) * len(axis.course.resized) / n - 0.5)
            ).float()
            for axis, n in zip((plan.rows, plan.columns), size, strict=True)
        ]
        cosines = lines[0] @ scores.cosines.cpu().float() @ lines[1].T  # (Q, h, w)
        softmax = (cosines * scores.temperature).softmax(dim=0)
        owners = torch.tensor(scores.vocabulary.query_labels)
        text = softmax[owners == label].amax(dim=0)
        return cls(
            _lab(fine),
            cv2.bilateralFilter(_lab(cells), 5, 12, 3),
            softmax.sqrt().permute(1, 2, 0).contiguous().numpy(),
            (text + 1e-4).log().numpy(),
            plan.image_hw,
        )

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.text.shape[0], self.text.shape[1]

    @property
    def cell_px(self) -> int:
        """Pixels of the picture in one cell."""
        return self.image_hw[0] * self.image_hw[1] // self.text.size

    def cells(self, pixels: Sequence[tuple[int, int]]) -> BoolMask:
        """(h, w): the cells that hold these pixels."""
        found = np.zeros(self.size_hw, bool)
        for y, x in pixels:
            at = y * self.size_hw[0] // self.image_hw[0], x * self.size_hw[1] // self.image_hw[1]
            found[at] = True
        return found

    @cached_property
    def _graph(self) -> coo_array:
        space = np.concatenate([self.colours, _MEANING * self.profile], axis=2)
        index = np.arange(self.text.size).reshape(self.size_hw)
        right = np.linalg.norm(np.diff(space, axis=1), axis=2)
        down = np.linalg.norm(np.diff(space, axis=0), axis=2)
        start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
        stop = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
        cost = np.concatenate([right.ravel(), down.ravel()]) + _STEP
        return coo_array((cost, (start, stop)), shape=(index.size, index.size)).tocsr()

    def distance(self, seeds: BoolMask) -> FloatMap:
        """(h, w): length of the shortest walk from any of the seeds."""
        walked = dijkstra(self._graph, directed=False, indices=np.flatnonzero(seeds), min_only=True)
        return np.asarray(walked, np.float32).reshape(self.size_hw)

    def sharpen(self, evidence: FloatMap) -> BoolMask:
        """(H, W): where evidence is above 0, along the picture's edges."""
        height, width = self.image_hw
        return np.asarray(cv2.resize(evidence, (width, height)) > 0)

    def confidence(self, evidence: FloatMap) -> npt.NDArray[np.float16]:
        probability = 1 / (1 + np.exp(-evidence))
        height, width = self.image_hw
        return np.asarray(cv2.resize(probability, (width, height)), np.float16)


def _pixel(point: Point, image: RGBArray) -> tuple[int, int]:
    height, width = image.shape[:2]
    x, y = int(np.floor(point.x_px)), int(np.floor(point.y_px))
    return min(max(y, 0), height - 1), min(max(x, 0), width - 1)


def _box_slices(
    box_xyxy: tuple[float, float, float, float], image: RGBArray
) -> tuple[slice, slice]:
    height, width = image.shape[:2]
    left, top, right, bottom = box_xyxy
    x0, x1 = max(round(left), 0), min(round(right), width)
    y0, y1 = max(round(top), 0), min(round(bottom), height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(
            f"Expected argument `box_xyxy` to cover pixels of a picture of {width} x {height}, "
            f"but got {box_xyxy}."
        )
    return slice(y0, y1), slice(x0, x1)


def _touching(mask: BoolMask, pixels: Sequence[tuple[int, int]]) -> BoolMask:
    """The connected parts of a mask that hold any of these pixels."""
    count, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[[parts[pixel] for pixel in pixels]] = True
    keep[0] = False
    return np.asarray(keep[parts])


def _nothing(image: RGBArray) -> PromptedMask:
    return PromptedMask(np.zeros(image.shape[:2], bool), np.zeros(image.shape[:2], np.float16))


def _shrink(image: RGBArray, most_px: int) -> RGBArray:
    """The picture at `most_px` pixels at most, aspect kept."""
    height, width = image.shape[:2]
    scale = min(1.0, (most_px / (height * width)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _lab(image: RGBArray) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
