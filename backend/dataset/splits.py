"""Divide a data set into training, validation and test parts that stay the same as it grows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from backend.errors import DatasetError
from clearclip_core import RGBArray

if TYPE_CHECKING:
    from backend.inference.engine import Engine

Features = npt.NDArray[np.float16]

_NAMES: Final = ("train", "val", "test")

#: Cells of a side of a picture: where in it something is tells much alike ones apart.
_CELLS: Final = 2
#: Pictures that are compared with all others at once.
_BLOCK: Final = 1024
_WEIGHT_BITS: Final = 64


@dataclass(frozen=True)
class Split:
    """Shares of the parts of a data set in percent; one part is all of it."""

    shares: tuple[int, ...] = (100,)

    @classmethod
    def parse(cls, text: str) -> Split:
        """Read shares such as 80/10/10; raise a `DatasetError` where they do not make 100."""
        if re.fullmatch(r"\d{1,3}(/\d{1,3}){1,2}", text, re.ASCII):
            shares = tuple(map(int, text.split("/")))
            if sum(shares) == 100:
                return cls(shares)
        raise DatasetError(
            "Expected a split of two or three whole percentages that make 100, such as 80/10/10, "
            f'but got "{text[:50]}".'
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return _NAMES[: len(self.shares)]

    def __str__(self) -> str:
        return "" if len(self.shares) == 1 else "/".join(map(str, self.shares))

    def part_of(self, digest: str) -> str:
        """Return the name of the part of a picture, by the digest of its file or a value."""
        drawn = hashlib.blake2b(digest.encode(), digest_size=_WEIGHT_BITS // 8).digest()
        at = int.from_bytes(drawn, "big") * 100 >> _WEIGHT_BITS  # 0 to 99
        bounds = accumulate(self.shares)
        return next(name for name, end in zip(self.names, bounds, strict=True) if at < end)


@dataclass(frozen=True, slots=True)
class SplitKey:
    """What decides the part of a picture.

    Attributes:
        value: of the field that divides; empty: none does.
        first: when it was annotated first, in seconds since the epoch, and the id of its task.
        part: where an earlier run has put it; empty: it is new.
    """

    digest: str
    value: str = ""
    first: tuple[float, int] = (0.0, 0)
    part: str = ""


def group(
    keys: Sequence[SplitKey], features: Features | None, least_cosine: float
) -> npt.NDArray[np.intp]:
    """Number groups of pictures that belong into one part.

    These are equal files, pictures of one value, and near-duplicates, also through a chain of them:
    those with `least_cosine` of their features (n, D) of unit length.
    """
    files: dict[str, int] = {}
    values: dict[str, int] = {}
    pairs = [(files.setdefault(key.digest, i), i) for i, key in enumerate(keys)]
    pairs += [(values.setdefault(key.value, i), i) for i, key in enumerate(keys) if key.value]
    joined: list[npt.NDArray[np.intp]] = [np.array(pairs, np.intp).reshape(-1, 2).T]
    if features is not None:
        joined += _near_pairs(features, least_cosine)
    return _components(np.concatenate(joined, axis=1), len(keys))


def _near_pairs(features: Features, least_cosine: float) -> Iterator[npt.NDArray[np.intp]]:
    """Iterate over pairs (2, P) of near-duplicates, which join all that are near to each other."""
    n = len(features)
    for start in range(0, n, _BLOCK):
        block = features[start : start + _BLOCK].astype(np.float32)
        for other in range(start, n, _BLOCK):
            cosines = block @ features[other : other + _BLOCK].astype(np.float32).T
            pairs = np.argwhere(cosines >= least_cosine).T.astype(np.intp)
            pairs[1] += len(block)  # the pictures of both blocks are numbered in turn
            groups = _components(pairs, len(block) + cosines.shape[1])
            numbers = np.r_[start : start + len(block), other : other + cosines.shape[1]]
            _, oldest = np.unique(groups, return_index=True)
            leaders = numbers[oldest[groups]]
            yield np.stack([leaders, numbers])[:, leaders != numbers]


def _components(pairs: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.intp]:
    """Number the groups of n things that pairs (2, P) join, from 0: (n,) ints."""
    if not n:
        return np.zeros(0, np.intp)
    from scipy.sparse import coo_array  # 20 MB, for near-duplicates alone
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def assign(
    split: Split, keys: Sequence[SplitKey], features: Features | None, least_cosine: float
) -> tuple[list[str], int]:
    """Return the name of the part of each picture, and how many groups are in several parts.

    A group is in the part of its picture that was annotated first. A picture stays where an earlier
    run has put it: groups that a new picture joins may be in several parts. See `group`.
    """
    groups = group(keys, features, least_cosine).tolist()
    leaders: dict[int, SplitKey] = {}
    for number, key in zip(groups, keys, strict=True):
        leader = leaders.setdefault(number, key)
        if (not key.part, key.first) < (not leader.part, leader.first):
            leaders[number] = key
    of_group = {
        number: leader.part or split.part_of(leader.value or leader.digest)
        for number, leader in leaders.items()
    }
    parts = [key.part or of_group[number] for number, key in zip(groups, keys, strict=True)]
    found = set(zip(groups, parts, strict=True))
    return parts, len(found) - len(of_group)


def describe_picture(engine: Engine, rgb: RGBArray) -> bytes:
    """Return features (4 D,) float16 of unit length of a picture (H, W, 3) uint8, as bytes.

    The cosine of two is the mean of that of their quarters.

    Raises:
        ModelUnavailable: loading has failed, or the engine has stopped.
    """
    import torch  # heavy, for near-duplicates alone

    from backend.inference.queue import Priority
    from clearclip_core import Label

    image = engine.segmenter().prepare(rgb)
    labels = (Label("picture"),)  # one label costs least
    features = engine.encode(image, labels, Priority.BATCH).features
    patches = features.plan.mosaic(features.patches.permute(0, 3, 1, 2)).float()
    cells = torch.nn.functional.adaptive_avg_pool2d(patches[None], _CELLS)[0].flatten(1)
    unit = torch.nn.functional.normalize(cells, dim=0) / _CELLS
    return unit.T.contiguous().cpu().numpy().astype(np.float16).tobytes()
