"""How frequent labels may be beyond the corrected images.

The offset of a label follows its frequency (prevalence) in the images that were corrected. Of a
label that few of them show, that says little: elsewhere it may be more frequent, and what was
learned would give its places to others. Held-out images cannot tell, for they are as the others.
So the observations of each label are weighed as if it were as frequent as the corrected images
allow at most: by the upper bound of its frequency, of images that are drawn with replacement. The
bound of a label that all images show alike is hardly above its mean, and that of a rare one is far
above it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearclip_core.adaptation.bootstrap import BEYOND, draw_images
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.sufficient_statistics import Float64Array


def weigh_labels(evidence: Sequence[Evidence]) -> Float64Array:
    """Return (G,) float64 factors of the groups' observations.

    The observations of paint sum to what they summed to without the factors.

    Args:
        evidence: the corrected images, at least one; near-duplicates count as one.
    """
    _, clusters = np.unique([each.cluster for each in evidence], return_inverse=True)
    areas = np.zeros((int(clusters.max()) + 1, evidence[0].target.shape[1]))
    for cluster, each in zip(clusters, evidence, strict=True):
        areas[cluster] += each.observations[each.known].sum(axis=0)
    means = areas.mean(axis=0)
    drawn = draw_images(len(areas)) @ areas / len(areas)
    upper = np.quantile(drawn, 1 - BEYOND, axis=0)
    factors = np.where(means > 0, upper / np.maximum(means, 1e-12), 1)
    scale = means.sum() / max(float(factors @ means), 1e-12)
    weights: Float64Array = factors * (scale if means.any() else 1)
    return weights
