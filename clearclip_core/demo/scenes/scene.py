"""A drawn scene with its label map, and the names of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearclip_core.vocabulary import DEMO_WORDS

#: Seeds of scenes that are not used for training.
HELD_OUT_SEEDS: Final = range(10_000_000, 20_000_000)

#: Names of the labels, in the order of the values of a label map.
SCENE_LABELS: Final[tuple[str, ...]] = DEMO_WORDS

#: Other words for each label, which the demo model is trained on.
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "sky": ("heaven", "blue sky", "air"),
    "cloud": ("clouds", "cumulus", "white cloud"),
    "sun": ("sunshine", "setting sun", "rising sun"),
    "mountain": ("mountains", "hill", "peak", "summit"),
    "grass": ("lawn", "meadow", "field", "pasture"),
    "tree": ("trees", "pine", "oak", "fir", "forest"),
    "house": ("houses", "building", "home", "cottage", "hut"),
    "road": ("street", "path", "highway", "asphalt"),
    "car": ("cars", "automobile", "vehicle", "van"),
    "water": ("sea", "lake", "river", "ocean"),
    "boat": ("boats", "ship", "sailboat", "yacht"),
    "person": ("people", "human", "man", "woman", "child", "pedestrian"),
    "dog": ("dogs", "puppy", "hound"),
    "flower": ("flowers", "blossom", "tulip", "daisy"),
    "fence": ("fences", "picket fence", "palisade"),
    "rock": ("rocks", "stone", "boulder", "cliff"),
    "sand": ("beach", "desert", "dune"),
    "snow": ("ice", "snowfield", "frost"),
}


@dataclass(frozen=True)
class Scene:
    """A drawn image with its ground truth.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        label_map: (H, W) int64, index into `SCENE_LABELS`; every pixel has a label.
    """

    image: NDArray[np.uint8]
    label_map: NDArray[np.int64]
