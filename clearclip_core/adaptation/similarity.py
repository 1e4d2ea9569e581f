"""Near-duplicates among images, such as frames of one video.

Training examples are compared by them, and so are images that nobody has corrected yet: of these,
`DistinctImages` chooses some that are no near-duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from clearclip_core.adaptation.example import Example, Float32Array, mean_cells
from clearclip_core.segmentation.windows import DenseFeatures

#: Mean cosine of the cells of two layouts from which on their images count as one, at least and at
#: most. In between it depends on how alike the images of the project are: see `_threshold`.
_ALIKE = 0.98
_EQUAL = 0.999

#: The clusters are computed again after this share of more images, where fewer are missing: each
#: computation compares all pairs.
_GROWTH = 1 / 64


@dataclass(frozen=True, eq=False)
class ImageLayout:
    """An image as near-duplicates are found by.

    Attributes:
        picture: id of the image, such as `Example.picture_key`.
        cells: (16, D) float16, see `Example.layout`.
    """

    picture: str
    cells: npt.NDArray[np.float16] = field(repr=False)

    @classmethod
    def of(cls, features: DenseFeatures, picture: str) -> ImageLayout:
        """Return the layout of an encoded image, with an id such as ``PreparedImage.digest``."""
        return cls(picture, mean_cells(features))

    @classmethod
    def of_example(cls, example: Example) -> ImageLayout:
        """Return the layout of a training example's image."""
        return cls(example.picture_key, example.layout)

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite; other images cannot be compared."""
        return bool(np.isfinite(self.cells).all())


@dataclass(eq=False)
class DistinctImages:
    """Images of which those are chosen that are no near-duplicates of each other or of known ones.

    The rule is that of `cluster`, over all images together: the known ones and all that were added.
    So its threshold follows the images that were added, and a choice can change with them: ask for
    it after the last one. Of each cluster without a known image, the one that was added first is
    chosen.

    Args:
        known: layouts of images that are not to be chosen, nor their near-duplicates.
        wanted: number of images that are to be chosen.

    >>> shades = [np.full((16, 2), (1, shade), np.float16) for shade in (0.0, 1.0, 1.001)]
    >>> images = DistinctImages([ImageLayout("a", shades[0])], wanted=1)
    >>> images.add(ImageLayout("a", shades[0])), images.add(ImageLayout("b", shades[1]))
    (False, True)
    >>> images.add(ImageLayout("c", shades[2])), images.distinct()
    (True, [1])
    """

    known: Iterable[ImageLayout]
    wanted: int
    _all: list[ImageLayout] = field(init=False, repr=False)
    _known: int = field(init=False, repr=False)
    _due: int = field(init=False, repr=False)
    _found: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._all = list(self.known)
        self._known = len(self._all)
        self._due = self._known + self.wanted

    def add(self, image: ImageLayout) -> bool:
        """Add an image; return whether enough images are known to be distinct.

        That is found out from time to time: where there are many images, some more are added.
        """
        self._all.append(image)
        if len(self._all) >= self._due:
            self._found = len(self.distinct())
            missing = max(1, self.wanted - self._found)
            self._due = len(self._all) + max(missing, int(len(self._all) * _GROWTH))
        return self._found >= self.wanted

    def distinct(self) -> list[int]:
        """Return the images that are distinct: their numbers in the order of adding, from 0.

        There may be more than are wanted.
        """
        clusters = _cluster(self._all).tolist()
        seen = set(clusters[: self._known])
        chosen = []
        for number, its in enumerate(clusters[self._known :]):
            if its not in seen:
                chosen.append(number)
            seen.add(its)
        return chosen


def cluster(examples: Sequence[Example]) -> npt.NDArray[np.intp]:
    """Number the images of examples, near-duplicates alike.

    Examples of one image are in one cluster, and so are images whose coarse layouts of features
    are nearly equal, also through a chain of such images.

    Args:
        examples: n training examples of one model.

    Returns:
        (n,) ints from 0, one number for each cluster.
    """
    return _cluster([ImageLayout.of_example(example) for example in examples])


def _cluster(images: Sequence[ImageLayout]) -> npt.NDArray[np.intp]:
    """Number n images, near-duplicates alike: see `cluster`."""
    image = np.unique([each.picture for each in images], return_inverse=True)[1]
    if len(images) < 2:
        return np.asarray(image, np.intp)
    cosines = _cosines([each.cells for each in images])
    alike = (image[:, None] == image[None]) | (cosines > _threshold(cosines))
    _, clusters = connected_components(csr_array(alike), directed=False)
    return np.asarray(clusters, np.intp)


def _cosines(cells: Sequence[npt.NDArray[np.float16]]) -> Float32Array:
    """Return the (n, n) mean cosines of the cells of n layouts."""
    layouts = np.stack([each.astype(np.float32) for each in cells])
    lengths = np.linalg.norm(layouts, axis=2, keepdims=True)
    unit = (layouts / np.maximum(lengths, 1e-9)).reshape(len(layouts), -1)
    cosines: Float32Array = unit @ unit.T / layouts.shape[1]
    return cosines


def _threshold(cosines: Float32Array) -> float:
    """Choose from which cosine on images count as one.

    Features of one model share a direction, so the cosines of images that have nothing in common
    differ from model to model. Near-duplicates stand out from the less alike pairs of a project.
    """
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    unlike = float(np.percentile(pairs, 10))
    return float(np.clip(1 - 0.2 * (1 - unlike), _ALIKE, _EQUAL))
