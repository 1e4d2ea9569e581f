"""Thresholds of a command line: one for all labels, or one for a label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import click

from clearclip_core.cli.finite_range import FiniteRange

#: Name of a label, empty for all labels; and its threshold in [0, 1].
ThresholdOption = tuple[str, float]


def parse_threshold(text: str) -> ThresholdOption:
    """Parse an option; what stands after its last ``=`` is the number.

    Raises:
        click.BadParameter: no number from 0 to 1.

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
        given: the options.
        labels: names of the labels.
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
