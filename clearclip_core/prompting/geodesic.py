"""Geodesic distances over an image: how far a pixel is from a prompt, across edges."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.guided_filter import Refinement, guided
from clearclip_core.segmentation.masks import BoolMask
from clearclip_core.segmentation.scores import Scores

FloatMap = npt.NDArray[np.float32]


Pixel = tuple[int, int]  # row, column


#: Cells of the grid: as fine as a quarter of a patch where the short side has 28 patches.
_CELLS = 16_000


#: Pixels at which a mask is decided; that of a larger picture is enlarged.
_FINE_PX = 1_000_000


#: What a step costs beside the difference of colours: itself, and so much for a change from one
#: certain meaning to another (Hellinger distance of the probabilities, times the root of 2).
STEP = 0.5


_MEANING = 30.0


#: Log-odds that are sharpened along edges: more would be as sure, and overshoot more.
_SURE = 2.0


_EDGES = Refinement(radius_patches=1.0, epsilon=3e-4)


#: Probabilities below this are as good as none.
_LEAST = 1e-4


#: SciPy holds the interpreter while it walks: several at once are no faster, and starve the others.
_ONE_WALK = threading.Lock()


@dataclass(frozen=True, eq=False)
class GeodesicGrid:
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
    def of(
        cls, features: DenseFeatures, scores: Scores, label: int, image: RGBArray
    ) -> GeodesicGrid:
        _check(features, scores, label, image)
        plan = scores.plan
        fine = _shrink(image, _FINE_PX)
        cells = _shrink(fine, _CELLS)
        down, along = (
            axis.upsampling.at((np.arange(n) + 0.5) * len(axis.upsampling.resized) / n - 0.5)
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

    def cells(self, pixels: Sequence[Pixel]) -> BoolMask:
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

    def fine_pixels(self, pixels: Sequence[Pixel]) -> list[Pixel]:
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
        cost = np.maximum(steps - np.median(steps), 0) + STEP
        return coo_array((cost, (start, stop)), shape=(index.size, index.size)).tocsr()

    def distance(self, seeds: BoolMask) -> FloatMap:
        """(h, w): length of the shortest walk from any of the seeds."""
        graph, starts = self._graph, np.flatnonzero(seeds)
        with _ONE_WALK:
            walked = dijkstra(graph, directed=False, indices=starts, min_only=True)
        return np.asarray(walked, np.float32).reshape(self.size_hw)

    def likeness(self, pixel: Pixel) -> FloatMap:
        """(h, w): logarithm of how probably a cell means what is meant at a pixel.

        The square of Bhattacharyya's coefficient: where a word is certain at the pixel, that is
        the word's probability.
        """
        here = self.profile[_scaled(pixel, self.image_hw, self.size_hw)]
        return np.asarray(np.log((self.profile @ here) ** 2 + _LEAST))

    def cosines(self, pixel: Pixel) -> FloatMap:
        """(h, w): of the cells' features with the one at a pixel, both without the mean."""
        y, x = _scaled(pixel, self.image_hw, self.size_hw)
        down, along = self.lines
        here = np.einsum("h,hwd,w->d", down[y], self.patches, along[x], optimize=True)
        here /= max(float(np.linalg.norm(here)), _LEAST)
        return np.asarray(down @ (self.patches @ here) @ along.T)

    def sharpen(self, evidence: FloatMap) -> FloatMap:
        """(K, h, w) -> (K, h', w') at the size of `fine`, along its edges."""
        return guided(self.fine, np.clip(evidence, -_SURE, _SURE), self.patch_px, _EDGES)

    def stamp(self, fine: BoolMask, pixels: Sequence[Pixel], value: bool) -> None:
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


def _scaled(pixel: Pixel, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Pixel:
    """Row and column of a pixel's centre in the same picture of another size."""
    y, x = (
        (2 * at + 1) * new // (2 * old) for at, old, new in zip(pixel, old_hw, new_hw, strict=True)
    )
    return y, x


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
