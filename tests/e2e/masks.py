"""Write and read masks with Label Studio's own converter, and compare masks by IoU."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from label_studio_sdk.converter.brush import decode_rle, mask2rle

from clearclip_core import SCENE_LABELS

Mask = npt.NDArray[np.bool_]


def scene_seed(path: str) -> int:
    return int(path.rpartition("scene-")[2].removesuffix(".png"))


def brush_region(
    mask: npt.NDArray[Any],
    label: str,
    control: str = "label",
    image: str = "image",
    kind: str = "labels",
) -> dict[str, Any]:
    """Write a (H, W) mask as a region of a brush, without the entry of a brush beside labels."""
    rle = mask2rle(mask.astype(np.uint8) * 255)
    return {
        "type": kind,
        "from_name": control,
        "to_name": image,
        "original_height": mask.shape[0],
        "original_width": mask.shape[1],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": rle, kind: [label]},
    }


def scene_regions(
    label_map: npt.NDArray[Any], labels: Iterable[str], names: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Paint labels of a scene, each as the one that `names` says; "" leaves it out."""
    named = {label: (names or {}).get(label, label) for label in labels}
    masks = {label: label_map == SCENE_LABELS.index(label) for label in named}
    return [brush_region(masks[k], name) for k, name in named.items() if name and masks[k].any()]


def masks_of(result: Iterable[dict[str, Any]]) -> dict[str, Mask]:
    """Return label -> union of the masks of its brush regions."""
    masks: dict[str, Mask] = {}
    for label, region in labelled(result):
        if "rle" in region["value"]:
            masks[label] = decode(region) | masks.get(label, False)
    return masks


def labelled(result: Iterable[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return the entries that have a label, with it: of ``<Labels>`` one of a region's two."""
    named = ((each["value"].get(each["type"], ()), each) for each in result)
    return [(labels[0], each) for labels, each in named if labels]


def decode(region: dict[str, Any]) -> Mask:
    height, width = region["original_height"], region["original_width"]
    return np.asarray(decode_rle(region["value"]["rle"]).reshape(height, width, 4)[..., 3] > 127)


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())
