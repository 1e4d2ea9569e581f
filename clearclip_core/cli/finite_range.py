"""Ranges of the finite numbers that options of commands take."""

from __future__ import annotations

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A range of numbers without nan, which no comparison refuses, and without infinities.

    >>> FiniteRange(0).convert("2.5", None, None)
    2.5
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a number.

        Raises:
            click.BadParameter: no number, a number out of the range, or one that is not finite.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, but got {value!r}.", param, ctx)
        return number
