"""Choose where a refined label map is computed: on a CUDA device by torch, elsewhere by NumPy.

On a CPU only the maps that can win are computed at a pixel, which takes a quarter of the time of
all. A GPU computes all maps at all pixels, and keeps what it made, see `DeviceSegmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import REFINEMENT, Refinement
from clearclip_core.segmentation.on_device.refined_argmax import decide_refined_on_device
from clearclip_core.segmentation.on_device.segmentation import DeviceSegmentation
from clearclip_core.segmentation.refined_argmax import decide_refined
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.segmentation import Segmentation


def decide_refined_where_scored(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
    patch_px: float | None = None,
) -> Segmentation:
    """Compute refined labels and probabilities where the scores lie, see `decide_refined`."""
    names = scores.vocabulary.names
    if not scores.is_on_device:
        made = decide_refined(scores, image, threshold, refinement, patch_px)
        return Segmentation(*made, names)
    there = decide_refined_on_device(scores, image, threshold, refinement, patch_px)
    return DeviceSegmentation(*there, names)
