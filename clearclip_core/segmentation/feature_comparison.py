"""Compare the features of one image that two precisions of a model have computed."""

from __future__ import annotations

from clearclip_core.segmentation.windows import DenseFeatures


def compare_features(features: DenseFeatures, reference: DenseFeatures) -> float:
    """Return the mean cosine of an image's features to those of a reference.

    It is the mean over the patches of all windows. Where both have CLS features, it is the lesser
    of that and of the mean over the windows' CLS features. It is computed in float64.

    Args:
        features: patches (windows, h, w, D) of any floating dtype, of length 1.
        reference: the same shapes, of any floating dtype.

    Returns:
        -1 to 1; 1 where both are equal, up to rounding. NaN where any number is not finite.

    Raises:
        ValueError: they differ in shape.

    >>> from clearclip_core import Segmenter, render_scene
    >>> segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    >>> image = render_scene(seed=1, size_hw=(448, 448)).image
    >>> compare_features(segmenter.to_int8().encode(image), segmenter.encode(image)) > 0.99
    True
    """
    if features.patches.shape != reference.patches.shape:
        raise ValueError(
            "Expected argument `features` to have patches of shape "
            f"{tuple(reference.patches.shape)}, but got {tuple(features.patches.shape)}."
        )
    pairs = [(features.patches, reference.patches)]
    if features.cls is not None and reference.cls is not None:
        pairs.append((features.cls, reference.cls))
    means = [(one.double() * other.double()).sum(dim=-1).mean().item() for one, other in pairs]
    return next((mean for mean in means if mean != mean), min(means))
