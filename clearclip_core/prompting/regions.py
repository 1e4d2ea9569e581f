"""Regions that a click model proposes: each votes for one label.

A promptable model is asked at a grid of points what lies there, and its masks are filtered as in
Kirillov et al., "Segment Anything" (ICCV 2023), Sec. 5 and Appendix B: those that the model itself
expects to be right, that stay as they are where the threshold moves, and that repeat no other. Each
region then takes the label that most of its pixels have (Zhang et al., "CorrCLIP: Reconstructing
Patch Correlations in CLIP for Open-Vocabulary Semantic Segmentation", ICCV 2025).

transformers' own pipeline for this places its grid as if pictures were padded to a square, and
enlarges 192 masks at once to the picture's size: 9 GB on 12 megapixels. So masks are filtered as
small as the model makes them, and those that are left are enlarged one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import masks_to_boxes, nms

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.click_model import ClickFeatures, ClickModel
from clearclip_core.prompting.prompts import Point
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.segmentation import Segmentation


@dataclass(frozen=True)
class RegionFilter:
    """Which regions are proposed; the defaults are those of Segment Anything."""

    points_per_side: int = 32  #: of the grid: each point is asked about
    points_per_batch: int = 64  #: that the model answers at once
    least_iou: float = 0.88  #: that the model expects of a mask
    least_stability: float = 0.95  #: IoU of a mask's cuts at log-odds of 1 and of -1
    largest_box_iou: float = 0.7  #: of two regions' boxes; of more alike ones the likeliest stays


REGION_FILTER = RegionFilter()


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of an image; each pixel has one at most."""

    #: (H, W) int16, number of the region of each pixel, -1 for none. Of several regions there it is
    #: the smallest: a wheel lies on its car.
    numbers: npt.NDArray[np.int16]
    count: int  #: of regions; one that others cover has no pixel

    def vote(self, segmentation: Segmentation) -> Segmentation:
        """Give all pixels of each region the label that most of them have, or none.

        Args:
            segmentation: of the same image.

        Returns:
            The voted labels. The probability of a changed pixel is the mean of those that won.

        Raises:
            ValueError: a segmentation of another size.

        >>> numbers = np.array([[0, 0, 0, -1]], np.int16)
        >>> label_map, half = np.array([[1, 1, 0, 0]], np.int16), np.full((1, 4), 0.5, np.float16)
        >>> made = Segmentation(label_map, half, ("sky", "sea"))
        >>> Regions(numbers, 1).vote(made).label_map.tolist()
        [[1, 1, 1, 0]]
        """
        if segmentation.size_hw != self.numbers.shape:
            raise ValueError(
                f"Expected argument `segmentation` to be {self.numbers.shape} px, but got "
                f"{segmentation.size_hw}."
            )
        inside = self.numbers >= 0
        numbers, none = self.numbers[inside], len(segmentation.labels)
        labels = segmentation.label_map[inside]
        labels[labels < 0] = none
        confidence = segmentation.confidence[inside]

        pairs = numbers.astype(np.int64) * (none + 1) + labels
        shape = self.count, none + 1
        votes = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
        sums = np.bincount(pairs, confidence, minlength=shape[0] * shape[1]).reshape(shape)
        winners = votes.argmax(axis=1)
        every = np.arange(self.count)
        means = sums[every, winners] / votes[every, winners].clip(1)

        changed = labels != winners[numbers]
        confidence[changed] = means[numbers[changed]]
        voted = winners[numbers].astype(np.int16)
        voted[voted == none] = -1
        label_map, probability = segmentation.label_map.copy(), segmentation.confidence.copy()
        label_map[inside], probability[inside] = voted, confidence
        return Segmentation(label_map, probability, segmentation.labels)

    def parts(self, mask: BoolMask, min_px: int = 1) -> list[BoolMask]:
        """Split a mask of a label into its things: the regions in it, and what is left.

        Args:
            mask: (H, W) bool.
            min_px: smaller parts belong to what is left.

        Returns:
            Disjoint masks (H, W) bool, the largest first, what is left as the last.
        """
        sizes = np.bincount(self.numbers[mask & (self.numbers >= 0)], minlength=self.count)
        large = [number for number in np.argsort(-sizes, kind="stable") if sizes[number] >= min_px]
        made = [np.asarray(mask & (self.numbers == number)) for number in large if sizes[number]]
        left = mask & ~np.isin(self.numbers, large)
        return [*made, np.asarray(left)] if left.any() else made


def propose_regions(
    model: ClickModel,
    features: ClickFeatures,
    size_hw: tuple[int, int],
    wanted: RegionFilter = REGION_FILTER,
) -> Regions:
    """Propose regions of an image.

    Args:
        model: the click model.
        features: of the image, by the model.
        size_hw: size of the image in px.
        wanted: which regions.
    """
    found = [_filtered(*answers, wanted) for answers in _answers(model, features, size_hw, wanted)]
    log_odds, expected_iou = (torch.cat(each) for each in zip(*found, strict=True))
    numbers = np.full(size_hw, -1, np.int16)
    if not len(log_odds):
        return Regions(numbers, 0)

    boxes = masks_to_boxes(log_odds > 0)
    log_odds = log_odds[nms(boxes, expected_iou, wanted.largest_box_iou)]
    areas = (log_odds > 0).sum(dim=(1, 2))
    for number, place in enumerate(areas.argsort(descending=True, stable=True).tolist()):
        numbers[(model.enlarge(log_odds[place], size_hw) > 0).numpy()] = number
    return Regions(numbers, len(log_odds))


def regions_of(model: ClickModel, rgb: RGBArray, wanted: RegionFilter = REGION_FILTER) -> Regions:
    """Encode an image and propose its regions.

    Args:
        model: the click model.
        rgb: (H, W, 3) uint8.
        wanted: which regions.
    """
    features = model.encode([model.prepare(rgb)])[0]
    return propose_regions(model, features, (rgb.shape[0], rgb.shape[1]), wanted)


def _answers(
    model: ClickModel, features: ClickFeatures, size_hw: tuple[int, int], wanted: RegionFilter
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the answers at batches of the grid's points, see `ClickModel.masks_at`."""
    height, width = size_hw
    steps = (np.arange(wanted.points_per_side) + 0.5) / wanted.points_per_side
    grid = [Point(float(x) * width, float(y) * height) for y in steps for x in steps]
    for start in range(0, len(grid), wanted.points_per_batch):
        yield model.masks_at(features, size_hw, grid[start : start + wanted.points_per_batch])


def _filtered(
    log_odds: torch.Tensor, expected_iou: torch.Tensor, wanted: RegionFilter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the masks (n, h, w) that are likely and stable, and their expected IoU (n,)."""
    log_odds, expected_iou = log_odds.flatten(0, 1), expected_iou.flatten()
    smaller, larger = ((log_odds > level).sum(dim=(1, 2)) for level in (1.0, -1.0))
    is_stable = smaller / larger.clamp(min=1) > wanted.least_stability
    kept = is_stable & (expected_iou > wanted.least_iou)
    return log_odds[kept], expected_iou[kept]
