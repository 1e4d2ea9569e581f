"""An image made ready for prompts: grid of cells, distances, similarities and the fine image."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import GuidedFilter, Refinement, guided
from clearclip_core.segmentation.masks import bounding_box
from clearclip_core.segmentation.runs import BoolMask, PixelBox
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures

FloatMap = npt.NDArray[np.float32]

STEP = 0.5  # cost of a step between two cells without an edge, in units of CIELAB

#: Factor on the Euclidean distance of two cells' root probabilities, in units of CIELAB. From one
#: certain class to another that distance is √2 (√2 times the Hellinger distance).
_SEMANTIC_WEIGHT = 30.0

#: SciPy's Dijkstra holds the GIL: several at once are no faster and block all other threads.
_DIJKSTRA_LOCK = threading.Lock()

_MOST_KEPT = 16  # distances of a picture's clicks that are kept: 64 kB each
_KEEPING_LOCK = threading.Lock()

Pixel = tuple[int, int]  # row, column


@dataclass(frozen=True, eq=False)
class GeodesicGrid:
    """A grid of cells with costs between neighbours: differences in colour and in class."""

    colours: FloatMap  # (h, w, 3) float32 CIELAB of the cells
    root_probabilities: FloatMap  # (h, w, Q) float32, square roots of the queries' probabilities
    _kept: dict[Pixel, FloatMap] = field(default_factory=dict, init=False)

    def distance_from(self, cell: Pixel) -> FloatMap:
        """Compute (h, w) float32 lengths of the shortest paths from a cell, which is a click's.

        The last ones are kept: a click comes again with each further one.
        """
        kept = self._kept.get(cell)
        if kept is None:
            seed = np.zeros(self.colours.shape[:2], bool)
            seed[cell] = True
            kept = self.distance(seed)
            with _KEEPING_LOCK:
                self._kept[cell] = kept
                while len(self._kept) > _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
        return kept

    def distance(self, seeds: BoolMask) -> FloatMap:
        """Compute (h, w) float32 lengths of the shortest paths from cells to any of the seeds.

        These are (h, w) bool, at least one, and their lengths are 0.

        >>> flat = GeodesicGrid(np.zeros((1, 3, 3)), np.ones((1, 3, 1)))
        >>> flat.distance(np.array([[True, False, False]])).tolist()
        [[0.0, 0.5, 1.0]]
        """
        graph, starts = self._graph, np.flatnonzero(seeds)
        with _DIJKSTRA_LOCK:
            lengths = dijkstra(graph, indices=starts, min_only=True)
        return np.asarray(lengths, np.float32).reshape(seeds.shape)

    @cached_property
    def _graph(self) -> coo_array:
        size_hw = self.colours.shape[:2]
        space = np.concatenate([self.colours, _SEMANTIC_WEIGHT * self.root_probabilities], axis=2)
        index = np.arange(size_hw[0] * size_hw[1]).reshape(size_hw)
        right = np.linalg.norm(np.diff(space, axis=1), axis=2)
        down = np.linalg.norm(np.diff(space, axis=0), axis=2)
        start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
        stop = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
        steps = np.concatenate([right.ravel(), down.ravel()])
        # Noise and texture are everywhere: a difference that half of all steps have is no edge.
        cost = np.maximum(steps - np.median(steps), 0) + STEP
        # Both ways: SciPy would add those back to each call's own copy.
        ways = np.concatenate([start, stop]), np.concatenate([stop, start])
        return coo_array((np.tile(cost, 2), ways), shape=(index.size, index.size)).tocsr()


@dataclass(frozen=True)
class GridGeometry:
    """Sizes of one image as it is, at the size where masks are decided, and as a grid of cells."""

    image_hw: tuple[int, int]  # size of the image in px
    fine_hw: tuple[int, int]  # size in px at which masks are decided
    cells_hw: tuple[int, int]
    patch_px: float  # side of a patch in px of the fine size

    @property
    def cell_area_px(self) -> int:
        """Area of a cell in px of the fine size, rounded down."""
        return self.fine_hw[0] * self.fine_hw[1] // (self.cells_hw[0] * self.cells_hw[1])

    def cell(self, pixel: Pixel) -> Pixel:
        """Return row and column of the cell that holds a pixel of the image."""
        return _scaled(pixel, self.image_hw, self.cells_hw)

    def cells(self, pixels: Sequence[Pixel]) -> BoolMask:
        """Return (h, w) bool: the cells that hold these pixels of the image."""
        mask = np.zeros(self.cells_hw, bool)
        for pixel in pixels:
            mask[self.cell(pixel)] = True
        return mask

    def box_cells(self, box: PixelBox) -> BoolMask:
        """Return (h, w) bool: the cells in a box of pixels of the image, at least one."""
        rows, columns = box
        top, left = self.cell((rows.start, columns.start))
        bottom, right = self.cell((rows.stop - 1, columns.stop - 1))
        mask = np.zeros(self.cells_hw, bool)
        mask[top : bottom + 1, left : right + 1] = True
        return mask

    def fine_box(self, box: PixelBox) -> PixelBox:
        """Return a box of pixels of the image at the fine size, a pixel at least."""
        return _covering(box, self.image_hw, self.fine_hw)

    def fine_pixels(self, pixels: Sequence[Pixel]) -> list[Pixel]:
        """Return the positions of pixels of the image at the fine size."""
        return [_scaled(pixel, self.image_hw, self.fine_hw) for pixel in pixels]


def _scaled(pixel: Pixel, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Pixel:
    """Return row and column of a pixel's centre in the image resized to another size."""
    y, x = (
        (2 * at + 1) * new // (2 * old) for at, old, new in zip(pixel, old_hw, new_hw, strict=True)
    )
    return y, x


def _covering(box: PixelBox, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> PixelBox:
    """Return the rows and columns that cover a box in the image resized to another size."""
    rows, columns = (
        slice(side.start * new // old, -(-side.stop * new // old))
        for side, old, new in zip(box, old_hw, new_hw, strict=True)
    )
    return rows, columns


#: Log-odds are clipped to this before they are sharpened: larger ones overshoot more at edges.
_MAX_LOG_ODDS = 2.0

_REFINEMENT = Refinement(radius_patches=1.0, epsilon=3e-4)


@dataclass(frozen=True, eq=False)
class FineImage:
    """The image at the fine size, at which masks are decided pixel by pixel."""

    rgb: RGBArray  # (h', w', 3) uint8
    geometry: GridGeometry

    def decide(self, log_odds: FloatMap) -> BoolMask:
        """Decide (h', w') where all of (K, h, w) log-odds, along the image's edges, are above 0."""
        clipped = np.clip(log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
        return self._filter.all_above_zero(clipped)

    @cached_property
    def _filter(self) -> GuidedFilter:
        return GuidedFilter(self.rgb, self.geometry.patch_px, _REFINEMENT)

    def sharpen_in(self, box: PixelBox, log_odds: FloatMap) -> FloatMap:
        """Upsample (h, w) log-odds along the edges of the image, in a box alone.

        What is outside of the box has no influence: things in boxes may be smaller than a patch.

        Args:
            box: rows and columns at the fine size.
            log_odds: (h, w) float32 of the whole image; cells in the box count.

        Returns:
            (box height, box width) float32.
        """
        rows, columns = _covering(box, self.geometry.fine_hw, self.geometry.cells_hw)
        cut = np.ascontiguousarray(self.rgb[box])
        own = log_odds[None, rows, columns]
        sharp: FloatMap = guided(cut, own, self.geometry.patch_px, _REFINEMENT)[0]
        return sharp

    def fill_around(self, fine: BoolMask, pixels: Sequence[Pixel], value: bool) -> None:
        """Set a mask (h', w') in place, in a square of about a cell around pixels of the image."""
        radius = int(self.geometry.cell_area_px**0.5 / 2)
        for y, x in self.geometry.fine_pixels(pixels):
            around = (
                slice(max(y - radius, 0), y + radius + 1),
                slice(max(x - radius, 0), x + radius + 1),
            )
            fine[around] = value

    def parts_at(self, fine: BoolMask, pixels: Sequence[Pixel]) -> BoolMask:
        """Keep the connected parts (8-connectivity) of a mask (h', w') that hold these pixels."""
        kept, box = np.zeros_like(fine), bounding_box(fine)
        inside = np.ascontiguousarray(fine[box])
        count, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
        keep = np.zeros(count, bool)
        for y, x in self.geometry.fine_pixels(pixels):
            if fine[y, x]:
                keep[parts[y - box[0].start, x - box[1].start]] = True
        kept[box] = keep[parts]
        return kept

    def enlarge(self, fine: BoolMask) -> BoolMask:
        """Enlarge a mask (h', w') to the size of the image, (H, W)."""
        if fine.shape == self.geometry.image_hw:
            return fine
        grey = cv2.resize(fine.astype(np.uint8) * 255, self.geometry.image_hw[::-1])
        mask: BoolMask = grey.view(np.bool_)  # in place: fresh memory costs as much as comparing
        np.greater(grey, 127, out=mask)
        return mask


#: Lower limit of probabilities and lengths, so that logarithms and quotients stay finite.
_MIN = 1e-4


@dataclass(frozen=True, eq=False)
class CellSimilarity:
    """Class probabilities and features of the cells of one image."""

    geometry: GridGeometry
    root_probabilities: FloatMap  # (h, w, Q) float32, square roots of the queries' probabilities
    query_labels: npt.NDArray[np.intp]  # (Q,) the label of each query, -1 for the contrast words
    #: (I*h_p, J*w_p, D) float32, the windows' features side by side, less the image's mean (all
    #: patches of CLIP share a component that tells nothing), of length 1.
    patches: FloatMap
    matrices: tuple[FloatMap, FloatMap]  # (h, I*h_p), (w, J*w_p) weights of patches in cells

    @classmethod
    def of(
        cls, features: DenseFeatures, scores: Scores, geometry: GridGeometry
    ) -> "CellSimilarity":
        """Compute the probabilities of the cells and center the features."""
        matrices = _matrices(scores, geometry)
        return cls(
            geometry,
            root_probabilities=np.sqrt(_softmax(scores, matrices)).transpose(1, 2, 0),
            query_labels=np.asarray(scores.vocabulary.query_labels),
            patches=_centered(features),
            matrices=matrices,
        )

    def log_probability(self, label: int | None) -> FloatMap:
        """Compute (h, w) logarithms of a label's probability, that of its best query.

        Args:
            label: its index; None for none of the labels, whose probability is 0.
        """
        if label is None:
            return np.full(self.geometry.cells_hw, np.log(_MIN), np.float32)
        own = self.root_probabilities[..., self.query_labels == label].max(axis=2)
        return np.asarray(np.log(own**2 + _MIN))

    def classes(self, pixel: Pixel) -> FloatMap:
        """Compute (h, w) logarithms of how similar the cells' classes are to those at a pixel.

        The similarity is the square of the Bhattacharyya coefficient. Where one query is certain
        at the pixel, it is that query's probability.
        """
        here = self.root_probabilities[self.geometry.cell(pixel)]
        return np.asarray(np.log((self.root_probabilities @ here) ** 2 + _MIN))

    def cosines(self, pixel: Pixel) -> FloatMap:
        """Compute (h, w) cosines of the cells' centered features with those at a pixel."""
        y, x = self.geometry.cell(pixel)
        down, along = self.matrices
        here = np.einsum("h,hwd,w->d", down[y], self.patches, along[x], optimize=True)
        here /= max(float(np.linalg.norm(here)), _MIN)
        return np.asarray(down @ (self.patches @ here) @ along.T)


def _matrices(scores: Scores, geometry: GridGeometry) -> tuple[FloatMap, FloatMap]:
    """Return (h, I*h_p) and (w, J*w_p): weights of the patches at the cells' centres."""
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    down, along = (
        axis.at((np.arange(count) + 0.5) * len(axis.resized) / count - 0.5)
        for axis, count in zip(axes, geometry.cells_hw, strict=True)
    )
    return down.astype(np.float32), along.astype(np.float32)


def _softmax(scores: Scores, matrices: tuple[FloatMap, FloatMap]) -> FloatMap:
    """Return (Q, h, w) probabilities of all queries in the cells."""
    cosines = scores.cosines.cpu().float().numpy()
    logits = scores.temperature * (matrices[0] @ cosines @ matrices[1].T)
    softmax = np.exp(logits - logits.max(axis=0))
    softmax /= softmax.sum(axis=0)
    return np.asarray(softmax)


def _centered(features: DenseFeatures) -> FloatMap:
    """Return (I*h_p, J*w_p, D): features side by side, less their mean, of length 1."""
    patches = features.patches.detach().cpu().float()
    centered = F.normalize(patches - patches.mean(dim=(0, 1, 2)), dim=-1)
    mosaic = features.plan.mosaic(centered.permute(0, 3, 1, 2))
    return np.asarray(mosaic.permute(1, 2, 0).contiguous().numpy())


#: Cells of the grid: with 28 patches along the short side, a cell is a quarter of a patch wide.
_CELLS = 16_000

#: Pixels of the fine image, at which a mask is decided; the mask of a larger image is enlarged.
_FINE_PX = 1_000_000


@dataclass(frozen=True, eq=False)
class PromptedImage:
    """An image, its features and its scores, made ready for prompts."""

    geometry: GridGeometry
    geodesic: GeodesicGrid
    similarity: CellSimilarity
    fine: FineImage  # the image at the size at which masks are decided

    @classmethod
    def of(cls, features: DenseFeatures, scores: Scores, image: RGBArray) -> "PromptedImage":
        """Make an image (H, W, 3) uint8 ready for prompts."""
        plan = scores.plan
        fine = _shrink(image, _FINE_PX)
        cells = _shrink(fine, _CELLS)
        geometry = GridGeometry(
            image_hw=plan.image_hw,
            fine_hw=(fine.shape[0], fine.shape[1]),
            cells_hw=(cells.shape[0], cells.shape[1]),
            patch_px=plan.patch_hw[0] * len(fine) / plan.resized_hw[0],
        )
        similarity = CellSimilarity.of(features, scores, geometry)
        geodesic = GeodesicGrid(_smooth_lab(cells), similarity.root_probabilities)
        return cls(geometry, geodesic, similarity, FineImage(fine, geometry))


def _shrink(image: RGBArray, most_px: int) -> RGBArray:
    """Shrink an image to about `most_px` pixels at most, aspect kept."""
    height, width = image.shape[:2]
    scale = (most_px / (height * width)) ** 0.5
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image if scale >= 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _smooth_lab(image: RGBArray) -> FloatMap:
    """Return (h, w, 3) float32 CIELAB with texture smoothed and edges kept."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(cv2.bilateralFilter(lab, 5, 12, 3))
