"""Types of option values, and errors as sentences: what commands need before torch is imported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click


class FiniteRange(click.FloatRange):
    """A range of numbers without nan, which no comparison refuses, and without infinities.

    >>> FiniteRange(0).convert("2.5", None, None)
    2.5
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, but got {value!r}.", param, ctx)
        return number


#: Name of a label, empty for all labels; and its threshold in [0, 1].
ThresholdOption = tuple[str, float]


def parse_threshold(text: str) -> ThresholdOption:
    """Parse an option; what stands after its last ``=`` is the number.

    >>> parse_threshold("0.3"), parse_threshold("e = mc2=0.5")
    (('', 0.3), ('e = mc2', 0.5))
    """
    label, _, number = text.rpartition("=")
    return label.strip(), FiniteRange(0, 1).convert(number, None, None)


#: The option of a command, which gets a tuple of `ThresholdOption`.
threshold_option: Final = click.option(
    "--threshold",
    multiple=True,
    metavar="[LABEL=]P",
    callback=lambda _context, _option, texts: tuple(map(parse_threshold, texts)),
    help="Pixels of your pictures less likely than this get no label: 0.3 for all labels, car=0.5 "
    "for one; may be repeated.",
)


def thresholds_by_label(
    given: Iterable[ThresholdOption], labels: Sequence[str], start: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return the threshold of each label; one that names a label wins over one for all.

    Args:
        start: thresholds where nothing is given; 0 by default.

    Raises:
        ValueError: an option names no label.

    >>> thresholds_by_label([("car", 0.5), ("", 0.2)], ["sky", "car"])
    (0.2, 0.5)
    """
    chosen = dict(given)
    unknown = [name for name in chosen if name and name not in labels]
    if unknown:
        raise ValueError(
            f"Expected --threshold to name a label ({', '.join(labels)}), but got {unknown[0]!r}."
        )
    before = [0.0] * len(labels) if start is None else start
    pairs = zip(labels, before, strict=True)
    return tuple(chosen.get(label, chosen.get("", value)) for label, value in pairs)


@contextmanager
def click_errors(
    kinds: tuple[type[Exception], ...] = (OSError, ValueError),
) -> Iterator[None]:
    """Turn errors of files and values into errors that click prints as one line.

    Raises:
        click.ClickException: one of `kinds` was raised inside; the message stays.
    """
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from error
