"""Agreement of several people on all labels of one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clearclip_core.agreement.label_agreement import LabelAgreement, compare_people
from clearclip_core.segmentation.masks import BoolMask


@dataclass(frozen=True, eq=False)
class ImageAgreement:
    """Agreement of several people on an image.

    Attributes:
        labels: name of a label -> agreement on it, also of those that nobody has painted.
        disputed: (H, W) bool, the pixels to which not all have given the same labels.
    """

    labels: Mapping[str, LabelAgreement]
    disputed: BoolMask = field(repr=False)

    @property
    def disputed_share(self) -> float:
        """Share of the pixels that are in dispute, 0 to 1."""
        return int(np.count_nonzero(self.disputed)) / self.disputed.size


def compare_image(
    people: Sequence[Mapping[str, BoolMask]], labels: Iterable[str], size_hw: tuple[int, int]
) -> ImageAgreement:
    """Compare what several people have painted on an image, one label at a time.

    Args:
        people: of each person, name of a label -> mask (H, W) bool; each mask is asked for once.
            Masks of an image may overlap.
        labels: names of all labels that they could paint.
        size_hw: height and width of the image in px.

    >>> sky = np.array([[True, True, False]])
    >>> made = compare_image([{"sky": sky}, {"sky": sky, "tree": ~sky}], ["sky", "tree"], (1, 3))
    >>> made.labels["sky"].pairs[0].iou, made.labels["tree"].pairs[0].iou, made.disputed.tolist()
    (1.0, 0.0, [[False, False, True]])
    """
    disputed = np.zeros(size_hw, np.bool_)
    found = {}
    for label in labels:
        masks = [own.get(label) for own in people]
        found[label] = compare_people(masks, disputed)
    return ImageAgreement(found, disputed)
