"""A drawn scene with its truth, and the words that name what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clearclip_core.clip.contrast_words import DEMO_WORDS

#: Seeds that no training ever sees.
HELD_OUT_SEEDS: Final = range(10_000_000, 20_000_000)


#: The words of the scenes, and with them what the values of a label map mean.
SCENE_LABELS: Final[tuple[str, ...]] = DEMO_WORDS


#: Other words for each label, which the demo model learns too.
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
    """A picture and what it shows.

    Args:
        image: (H, W, 3) uint8, RGB.
        label_map: (H, W) int64, index into `SCENE_LABELS` at each pixel; there is no "nothing".

    Raises:
        ValueError: if the two do not fit together.
    """

    image: NDArray[np.uint8]
    label_map: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                "Expected argument `image` to be (H, W, 3) uint8, "
                f"but got {self.image.shape} {self.image.dtype}."
            )
        if self.label_map.shape != self.image.shape[:2]:
            raise ValueError(
                f"Expected argument `label_map` to have shape {self.image.shape[:2]}, "
                f"but got {self.label_map.shape}."
            )
