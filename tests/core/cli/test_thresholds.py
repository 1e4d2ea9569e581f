"""Thresholds of a command line."""

from __future__ import annotations

import click
import pytest

from clearclip_core.cli.parameters import parse_threshold, thresholds_by_label


def test_one_for_a_label_wins_over_one_for_all() -> None:
    given = [parse_threshold(text) for text in ("car=0.5", "0.2", "red car = 0.7")]
    assert thresholds_by_label(given, ["sky", "car", "red car"]) == (0.2, 0.5, 0.7)
    assert thresholds_by_label(given[:1], ["sky", "car"], [0.3, 0.4]) == (0.3, 0.5)


@pytest.mark.parametrize("text", ["car=", "car=2", "nan", "much", "car=0.5=high"])
def test_what_is_no_probability_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_threshold(text)


def test_a_label_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"to name a label \(sky, car\), but got 'bus'"):
        thresholds_by_label([("bus", 0.5)], ["sky", "car"])
