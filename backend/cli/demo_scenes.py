"""Upload drawn scenes, and measure predictions against their ground truth."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image

from clearclip_core import SCENE_LABELS, render_scene


def scene_file(seed: int) -> tuple[str, bytes]:
    """Return the file name of a drawn scene, which contains the seed, and its PNG content."""
    content = io.BytesIO()
    Image.fromarray(render_scene(seed).image).save(content, "png")
    return f"scene-{seed}.png", content.getvalue()


def scene_seed(path: str) -> int:
    """Return the seed of a scene, from the address that Label Studio gave its picture.

    Raises:
        ValueError: the address is not that of a drawn scene.

    >>> scene_seed("/data/upload/1/0a1b2c3d-scene-10000003.png")
    10000003
    """
    found = re.search(r"scene-(\d+)\.png$", path)
    if not found:
        raise ValueError(f"Expected argument `path` to name a drawn scene, but got {path!r}.")
    return int(found[1])


def predicted_label_map(
    result: Sequence[Mapping[str, Any]], size_hw: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Return the label map of a stored prediction's brush regions.

    Args:
        result: the regions as Label Studio has them.
        size_hw: height and width of the picture in pixels.

    Returns:
        (H, W) int64: index into `SCENE_LABELS`, -1 for none.
    """
    label_map = np.full(size_hw, -1, dtype=np.int64)
    for region in result:
        mask = decode_rle(region["value"]["rle"]).reshape(*size_hw, 4)[..., 3] > 127
        label_map[mask] = SCENE_LABELS.index(region["value"]["brushlabels"][0])
    return label_map


def mean_iou(pairs: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]) -> float:
    """Return the dataset-level mIoU in [0, 1] of (predicted, true) label maps.

    Each map is (H, W), -1 for none.

    Intersections and unions are summed over all pictures, then averaged over the labels that
    occur.

    >>> mean_iou([(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 1]]))])  # 1/2 and 2/3
    0.5833333333333333
    """
    count = len(SCENE_LABELS)
    confusion = np.zeros((count + 1, count + 1), dtype=np.int64)  # true x predicted, last: none
    for predicted, true in pairs:
        np.add.at(confusion, (true.ravel(), predicted.ravel()), 1)
    hits = np.diag(confusion)[:count]
    unions = confusion.sum(axis=0)[:count] + confusion.sum(axis=1)[:count] - hits
    return float((hits[unions > 0] / unions[unions > 0]).mean())
