"""Divide a data set into training, validation and test parts that stay the same as it grows."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from operator import itemgetter
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.errors import DatasetError
from clearclip_core import RGBArray
from clearclip_core.quantities import quantity

Thumbnails = npt.NDArray[np.float16]  # (n, D) of unit length: their products are correlations

_NAMES: Final = ("train", "val", "test")

#: Pixels of a side of the thumbnails by which near-duplicates are found. On CamVid's 701 frames,
#: two of different films correlate by 0.92 at most; the same picture as a coarse JPEG, at half its
#: size, or cut by 2 % of each side by 0.97 at least.
_THUMBNAIL_PX: Final = 16
#: Correlation from which pictures of two parts are told as nearly the same: between these.
LIKENESS: Final = 0.95
#: Levels of 255 that a thumbnail varies by at least; a blank one is like no other.
_LEAST_CONTRAST: Final = 0.5
_BLOCK: Final = 1024  # pictures that are compared with all others at once
_DRAWN_BYTES: Final = 8
#: Pictures of a class by which parts may lack it more than others and count as alike.
_ALIKE: Final = 0.5
_FEW: Final = 64  # new groups that are exchanged between parts at the end
_GAIN: Final = 1e-9  # of the squared shares that an exchange has to bring
_FULL: Final = 0.005  # pictures that a full part may lack: half of the least share of one


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


@dataclass(frozen=True, slots=True)
class SplitKey:
    """What decides the part of a picture."""

    digest: str
    value: str = ""  # of the field that divides; empty: none does
    first: tuple[float, int] = (0.0, 0)  # when it was annotated first, and the id of its task
    part: str = ""  # where an earlier run has put it; empty: it is new
    classes: Collection[str] = ()


def group(
    keys: Sequence[SplitKey], thumbnails: Thumbnails | None, least_correlation: float
) -> npt.NDArray[np.intp]:
    """Number groups, also chains, of pictures that belong into one part: equal files, pictures of
    one value, and those whose `thumbnails` (n, D) have `least_correlation`."""
    files: dict[str, int] = {}
    values: dict[str, int] = {}
    pairs = [(files.setdefault(key.digest, i), i) for i, key in enumerate(keys)]
    pairs += [(values.setdefault(key.value, i), i) for i, key in enumerate(keys) if key.value]
    joined: list[npt.NDArray[np.intp]] = [np.array(pairs, np.intp).reshape(-1, 2).T]
    if thumbnails is not None:
        joined += _near_pairs(thumbnails, least_correlation)
    return _components(np.concatenate(joined, axis=1), len(keys))


def _near_pairs(thumbnails: Thumbnails, least_correlation: float) -> Iterator[npt.NDArray[np.intp]]:
    """Iterate over pairs (2, P) of near-duplicates, which join all that are near to each other."""
    n = len(thumbnails)
    for start in range(0, n, _BLOCK):
        block = thumbnails[start : start + _BLOCK].astype(np.float32)
        for other in range(start, n, _BLOCK):
            alike = block @ thumbnails[other : other + _BLOCK].astype(np.float32).T
            pairs = np.argwhere(alike >= least_correlation).T.astype(np.intp)
            pairs[1] += len(block)  # the pictures of both blocks are numbered in turn
            groups = _components(pairs, len(block) + alike.shape[1])
            numbers = np.r_[start : start + len(block), other : other + alike.shape[1]]
            _, oldest = np.unique(groups, return_index=True)
            leaders = numbers[oldest[groups]]
            yield np.stack([leaders, numbers])[:, leaders != numbers]


@dataclass(frozen=True, slots=True)
class Twin:
    """A picture that is nearly the same as one of a part before its own, by their indices."""

    index: int
    other: int
    correlation: float


def find_twins(names: Sequence[str], parts: Sequence[str], thumbnails: Thumbnails) -> list[Twin]:
    """Find the pictures that are nearly the same as one of a part before, by `LIKENESS`.

    Args:
        names: of the parts, in their order.
        parts: the part of each picture.
        thumbnails: (n, D) of the pictures.

    Returns:
        Each of them with the picture that is the most alike, the most alike first.
    """
    order = np.array([names.index(part) for part in parts], np.intp)
    twins: list[Twin] = []
    for part in range(1, len(names)):
        earlier = np.flatnonzero(order < part)
        own = np.flatnonzero(order == part)
        for start in range(0, len(own), _BLOCK):
            block = own[start : start + _BLOCK]
            others, correlations = _nearest(thumbnails, block, earlier)
            twins += [
                Twin(int(block[at]), int(others[at]), float(correlations[at]))
                for at in np.flatnonzero(correlations >= LIKENESS)
            ]
    return sorted(twins, key=lambda twin: -twin.correlation)


def _nearest(
    thumbnails: Thumbnails, block: npt.NDArray[np.intp], others: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the most alike of the `others` for each of a block (b,), and how alike they are."""
    own = thumbnails[block].astype(np.float32)
    nearest = np.zeros(len(block), np.intp)
    highest = np.full(len(block), -1, np.float32)
    for start in range(0, len(others), _BLOCK):
        some = others[start : start + _BLOCK]
        alike = own @ thumbnails[some].astype(np.float32).T
        best = alike.argmax(axis=1)
        values = alike.max(axis=1)
        is_better = values > highest
        nearest[is_better] = some[best[is_better]]
        highest[is_better] = values[is_better]
    return nearest, highest


def _components(pairs: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.intp]:
    """Number the groups of n things that pairs (2, P) join: (n,) ints from 0.

    Each thing takes the least number among those that it is joined with, and then that one's, until
    nothing changes. SciPy has it as well, for 140 MB.
    """
    lowest = np.arange(n)
    one, other = pairs
    while True:
        before = lowest.copy()
        least = np.minimum(lowest[one], lowest[other])
        for each in (lowest[one], lowest[other]):
            np.minimum.at(lowest, each, least)
        lowest = lowest[lowest]
        if np.array_equal(lowest, before):
            return np.asarray(np.unique(lowest, return_inverse=True)[1], np.intp)


@dataclass(frozen=True)
class Division:
    """The part of each picture, and the groups that are kept together."""

    parts: Sequence[str]
    groups: Sequence[int]  # number of pictures of each group
    divided: int = 0  # groups that are in several parts, as earlier runs have put them

    def describe_groups(self) -> str:
        """Return a sentence on how many pictures are kept together with others.

        >>> Division(["train"] * 4, [1, 3]).describe_groups()
        '3 of 4 pictures belong together with others, in 1 group, the largest of 3.'
        """
        sizes = [size for size in self.groups if size > 1]
        largest = f", the largest of {max(sizes)}" if sizes else ""
        pictures = quantity(len(self.parts), "picture")
        return (
            f"{sum(sizes)} of {pictures} belong together with others, in "
            f"{quantity(len(sizes), 'group')}{largest}."
        )


def assign(
    split: Split,
    keys: Sequence[SplitKey],
    thumbnails: Thumbnails | None = None,
    least_correlation: float = 1.0,
) -> Division:
    """Return the name of the part of each picture, and how the pictures are grouped.

    A picture stays where an earlier run has put it, and a new one joins the part of its group's
    picture that was annotated first, so that groups which it joins may be in several parts. New
    groups are divided so that the shares are met. See `group` and `_divide`.
    """
    groups = group(keys, thumbnails, least_correlation).tolist()
    leaders: dict[int, SplitKey] = {}
    for number, key in zip(groups, keys, strict=True):
        leader = leaders.setdefault(number, key)
        if (not key.part, key.first) < (not leader.part, leader.first):
            leaders[number] = key
    counts = _count_classes(groups, keys)
    fixed = {n: split.names.index(leader.part) for n, leader in leaders.items() if leader.part}
    drawn = {n: _drawn(each.value or each.digest) for n, each in leaders.items() if n not in fixed}
    new = sorted(drawn, key=lambda n: (-counts[n, 0], drawn[n]))
    of_group = _divide(np.array(split.shares), counts, fixed, new)
    parts = [key.part or split.names[of_group[n]] for n, key in zip(groups, keys, strict=True)]
    found = set(zip(groups, parts, strict=True))
    return Division(parts, list(Counter(groups).values()), len(found) - len(leaders))


def _count_classes(groups: Sequence[int], keys: Sequence[SplitKey]) -> npt.NDArray[np.int64]:
    """Count pictures by group: all, those without a class, those of each class: (groups, 2 + C)."""
    names = sorted(frozenset[str]().union(*(key.classes for key in keys)))
    columns = {name: column for column, name in enumerate(names, 2)}
    counts = np.zeros((max(groups, default=-1) + 1, 2 + len(names)), np.int64)
    for number, key in zip(groups, keys, strict=True):
        counts[number, [0, *(columns[name] for name in key.classes)]] += 1
        counts[number, 1] += not key.classes
    return counts


def _drawn(text: str) -> bytes:
    """Return bytes that put groups into an order that says nothing of them."""
    return hashlib.blake2b(text.encode(), digest_size=_DRAWN_BYTES).digest()


def _neediest(
    lack: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.float64],
    parts: Sequence[int],
    rarest: int,
) -> int:
    """Return which of some parts takes the next group of the rarest class, see `_divide`.

    Args:
        lack: (parts, 2 + C) pictures that each part lacks: of all, and of each class.
        wanted: (parts,) pictures that each should have.
        parts: those that may take it.
        rarest: column of the class.
    """
    most = max(lack[part, rarest] for part in parts)
    alike = [part for part in parts if lack[part, rarest] >= most - _ALIKE]
    return max(alike, key=lambda each: (lack[each, 0] / wanted[each], -each))


def _divide(
    shares: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    fixed: Mapping[int, int],
    new: Sequence[int],
) -> dict[int, int]:
    """Return the part of each group: iterative stratification (Sechidis et al., 2011, Alg. 1).

    The class that the fewest new pictures have is divided first, its largest groups first: of the
    parts that are not full, the one that lacks the most pictures of the class takes a group. Of
    those that lack alike, within `_ALIKE` pictures, the one that has the smallest share of what it
    should have in all takes it. No part stays empty where there are as many new groups.

    `fixed` groups stay in their part; the `new` ones are divided in their order.
    """
    lack = np.outer(shares / 100, counts.sum(axis=0))  # (parts, 2 + C) pictures
    wanted = lack[:, 0].copy()
    parts = dict(fixed)

    for number, part in fixed.items():
        lack[part] -= counts[number]
    shared = np.flatnonzero(shares).tolist()
    empty = set(shared) - set(fixed.values())
    left = np.array(new, np.intp)

    while left.size:
        rest = counts[left, 1:].sum(axis=0)
        rarest = 1 + int(np.where(rest > 0, rest, np.iinfo(np.int64).max).argmin())
        of_class = counts[left, rarest] > 0

        for at, number in enumerate(left[of_class].tolist()):
            can = [part for part in shared if lack[part, 0] > _FULL] or shared
            if left.size - at <= len(empty):
                can = sorted(empty)
            part = _neediest(lack, wanted, can, rarest)
            parts[number] = part
            lack[part] -= counts[number]
            empty.discard(part)
        left = left[~of_class]

    if len(new) <= _FEW:
        _exchange(lack, counts, parts, new, shared)
    return parts


def _exchange(
    lack: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    parts: dict[int, int],
    new: Sequence[int],
    shared: Sequence[int],
) -> None:
    """Move new groups to other parts, and exchange two, as long as the shares are met better.

    `lack` (parts, 2 + C) pictures and `parts`, the part of each group, are changed. A large group
    that comes early leaves few groups to make good for it: dividing alone is off by up to 12 points
    of a share with seven groups, where 5 are possible.
    """
    scale = np.maximum(1, counts.sum(axis=0))
    weights = np.full(len(scale), 0.1 / max(1, len(scale) - 1))  # the classes, all together
    weights[0] = 1.0

    def cost(lack: npt.NDArray[np.float64]) -> float:
        return float((((lack / scale) ** 2) @ weights).sum())

    def with_step(step: Mapping[int, int]) -> npt.NDArray[np.float64]:
        after = lack.copy()
        for number, part in step.items():
            after[parts[number]] += counts[number]
            after[part] -= counts[number]
        return after

    def steps() -> Iterator[dict[int, int]]:
        used = Counter(parts.values())
        for number, part in product(new, shared):
            if part != parts[number] and used[parts[number]] > 1:
                yield {number: part}
        for one, other in combinations(new, 2):
            if parts[one] != parts[other]:
                yield {one: parts[other], other: parts[one]}

    while True:
        costs = [(cost(with_step(step)), step) for step in steps()]
        least, step = min(costs, key=itemgetter(0), default=(np.inf, {}))
        if least >= cost(lack) - _GAIN:
            return
        lack[:] = with_step(step)
        parts.update(step)


def describe_image(rgb: RGBArray) -> bytes:
    """Return a thumbnail of a picture, (D,) float16 of unit length, as bytes.

    The mean of each channel is taken off, so that the product of two thumbnails is their
    correlation: brighter, smaller and coarser copies stay alike, and noise is like nothing.
    """
    side_px = _THUMBNAIL_PX
    small = cv2.resize(rgb, (side_px, side_px), interpolation=cv2.INTER_AREA)
    levels = small.astype(np.float64)
    levels -= levels.mean(axis=(0, 1))
    if levels.std() < _LEAST_CONTRAST:
        return bytes(2 * levels.size)
    unit = np.asarray(levels / np.linalg.norm(levels), np.float16)
    return unit.tobytes()
