"""Krippendorff's alpha of binary values: agreement beyond what chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BinaryValues:
    """Values 0 and 1 that several people have given to units; sums are added with ``+``.

    1 - observed disagreement / disagreement that is expected by chance, for nominal data with any
    number of people a unit: Krippendorff, *Computing Krippendorff's Alpha-Reliability*, 2011,
    sections C and D. It is 1 for perfect agreement, and 0 where people agree as if by chance.

    Attributes:
        ones: number of values 1.
        values: number of all values.
        disagreement: over all units, the ordered pairs of different values in the unit divided by
            the number of the unit's people less one.

    >>> values = BinaryValues.of([4, 4, 2])  # two people: both 0 of 4 units, one 1 of 4, both of 2
    >>> round(values.alpha, 3)
    0.208
    """

    ones: int = 0
    values: int = 0
    disagreement: float = 0.0

    @classmethod
    def of(cls, counts: Sequence[int]) -> BinaryValues:
        """Sum up units to which equally many people have given a value, at least two.

        Args:
            counts: units to which none has given a 1, one person has, and so on up to all.
        """
        people = len(counts) - 1
        pairs = sum(2 * count * ones * (people - ones) for ones, count in enumerate(counts))
        return cls(
            sum(ones * count for ones, count in enumerate(counts)),
            people * sum(counts),
            pairs / (people - 1),
        )

    def __add__(self, other: BinaryValues) -> BinaryValues:
        """Add the values of other units."""
        return BinaryValues(
            self.ones + other.ones,
            self.values + other.values,
            self.disagreement + other.disagreement,
        )

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha; None where all values are equal, and chance says nothing."""
        expected = 2 * self.ones * (self.values - self.ones)
        return 1 - (self.values - 1) * self.disagreement / expected if expected else None
