"""Near-duplicates among training examples, such as frames of one video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from clearclip_core.adaptation.examples import Example, Float32Array

#: Mean cosine of the cells of two layouts from which on their images count as one, at least and at
#: most. In between it depends on how alike the images of the project are: see `_threshold`.
_ALIKE = 0.98
_EQUAL = 0.999


def cluster(examples: Sequence[Example]) -> npt.NDArray[np.intp]:
    """Number the images of examples, near-duplicates alike.

    Examples of one image are in one cluster, and so are images whose coarse layouts of features
    are nearly equal, also through a chain of such images. Examples without a layout, of version
    0.1, are compared by the id of their image only.

    Args:
        examples: n training examples of one model.

    Returns:
        (n,) ints from 0, one number for each cluster.
    """
    n = len(examples)
    keys = {key: index for index, key in enumerate(dict.fromkeys(e.picture_key for e in examples))}
    image = np.array([keys[example.picture_key] for example in examples], np.intp)
    alike = image[:, None] == image[None]
    drawn = np.flatnonzero([example.layout is not None for example in examples])
    if len(drawn) > 1:
        cosines = _cosines([examples[index] for index in drawn])
        alike[np.ix_(drawn, drawn)] |= cosines > _threshold(cosines)
    _, clusters = connected_components(csr_array(alike), directed=False) if n else (0, image)
    return np.asarray(clusters, np.intp)


def _cosines(examples: Sequence[Example]) -> Float32Array:
    """Return the (n, n) mean cosines of the cells of the examples' layouts."""
    layouts = np.stack([np.asarray(example.layout, np.float32) for example in examples])
    lengths = np.linalg.norm(layouts, axis=2, keepdims=True)
    unit = (layouts / np.maximum(lengths, 1e-9)).reshape(len(examples), -1)
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
