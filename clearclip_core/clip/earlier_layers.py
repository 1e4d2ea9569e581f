"""Parts of a method that look at earlier blocks: affinity, repair, and layers that are added up.

Their numbers are those of the authors' released settings for 12 blocks, whose outputs are F_1 to
F_12. `scaled_layer` finds the layers of models of another depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Blocks of the models that the layers are given for.
_PUBLISHED_DEPTH = 12

#: Ways to find outlier tokens: by the local density of the last block's input (SC-CLIP), by the
#: attention of its CLS token (SFP), or by sink channels of the weights in every block (RF-CLIP).
REPAIRS = ("density", "attention", "sinks")


@dataclass(frozen=True)
class Affinity:
    """Which patches belong together, by cosines of an earlier layer's features.

    Cosines below 0.4 become 0 where they average features.

    Attributes:
        layer: the layer; None for the mean of all layers.
        smoothing: the layer whose cosines smooth the result; None for no smoothing.
        normalized: divide the rows of both matrices by their sums.
        sparse: attend by cosines of which those below 0.4 are 0 already.
        cls_key: the CLS token is a key of the attention, but its value is not taken. Without it
            the attention is among patches alone, and 0.3 of the CLS token is added to its output.
    """

    layer: int | None
    smoothing: int | None
    normalized: bool
    sparse: bool
    cls_key: bool


@dataclass(frozen=True)
class Layers:
    """Layers whose outputs are attended to in a second pass.

    Attributes:
        layers: the layers; None for all.
        mean: their mean is taken, and that of both passes. Otherwise they are added up.
        affine: the second pass begins with the affinity as the first one does.
    """

    layers: tuple[int, ...] | None
    mean: bool
    affine: bool


#: Name -> affinity: of SC-CLIP, of SFP and of RF-CLIP.
AFFINITIES: Mapping[str, Affinity] = MappingProxyType(
    {
        "middle": Affinity(9, 4, normalized=True, sparse=False, cls_key=False),
        "sparse": Affinity(9, 4, normalized=True, sparse=True, cls_key=False),
        "mean": Affinity(None, None, normalized=False, sparse=False, cls_key=True),
    }
)

#: Name -> layers: of SC-CLIP and SFP, and of RF-CLIP.
LAYERS: Mapping[str, Layers] = MappingProxyType(
    {
        "middle": Layers((4, 5, 6, 7, 8, 9, 10), mean=False, affine=False),
        "mean": Layers(None, mean=True, affine=True),
    }
)


def scaled_layer(layer: int, depth: int) -> int:
    """Return the layer at the same share of a model's depth: ``layer · depth / 12``, rounded.

    The authors published layers of 12 blocks only. To scale them is this project's proposal; it
    was not measured with trained weights of 24 blocks.

    Args:
        layer: a layer of 12.
        depth: blocks of the model.

    Returns:
        At least 1 and at most ``depth - 1``, the input of the last block.

    >>> [scaled_layer(layer, 24) for layer in (4, 9, 10)]
    [8, 18, 20]
    """
    return min(max(int(layer * depth / _PUBLISHED_DEPTH + 0.5), 1), depth - 1)
