"""The parts of sentences that pages print, and figures as people read them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import groupby
from typing import Literal

from msgspec import Struct

from clearclip_core.quantities import grouped, inflected

#: Of what is said: good, to be waited for, bad, or of no importance.
Colour = Literal["good", "wait", "bad", "soft"]


class Part(Struct, frozen=True):
    """A piece of a sentence."""

    text: str
    url: str = ""  # where it leads; "" for nowhere
    tag: Literal["", "b", "code", "i"] = ""


class Pill(Struct, frozen=True):
    """One or two words beside a title."""

    text: str
    colour: Colour
    is_plain: bool = False  # whether it stands there as text, without a shape around it

    @property
    def style(self) -> str:
        """Its classes."""
        return self.colour if self.is_plain else f"pill {self.colour}"


#: A finished sentence, or several, in pieces.
Sentence = tuple[Part, ...]


def sentence(*parts: str | Part) -> Sentence:
    """Return a sentence of some pieces; empty ones are left out.

    >>> [each.text for each in sentence("See ", "", Part("why", "/why"), ".")]
    ['See ', 'why', '.']
    """
    pieces = (Part(each) if isinstance(each, str) else each for each in parts)
    return tuple(each for each in pieces if each.text)


def plain(pieces: Sentence) -> str:
    """Return a sentence without its links."""
    return "".join(each.text for each in pieces)


def duration(seconds: float | None) -> str:
    """Format a duration in seconds; a dash for None.

    >>> duration(0.04), duration(7.6), duration(100), duration(7300), duration(200000)
    ('40 ms', '8 s', '2 min', '2 h', '2 d')
    >>> duration(None)
    '–'
    """
    if seconds is None:
        return "–"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def ago(at: float) -> str:
    """Format how long ago a time was, in seconds since the epoch.

    >>> ago(time.time() + 5), ago(time.time() - 100)
    ('just now', '2 min ago')
    """
    age_s = time.time() - at
    return f"{duration(age_s)} ago" if age_s >= 1 else "just now"


def with_reasons(refused: Mapping[str, str]) -> list[str]:
    """Say what is refused, a line a reason.

    Args:
        refused: name -> why, as a sentence.

    >>> with_reasons({"sky": "It is left out.", "car": "It may lose.", "sea": "It is left out."})
    ['sky, sea: It is left out.', 'car: It may lose.']
    """
    by_reason = sorted(refused.items(), key=lambda each: each[1])
    return [
        f"{', '.join(name for name, _ in names)}: {reason}"
        for reason, names in groupby(by_reason, lambda each: each[1])
    ]


def count_with_noun(number: float, noun: str, plural: str = "") -> str:
    """Format a count with its noun, which is in the singular for one; else `plural`, or with an s.

    >>> count_with_noun(1, "task"), count_with_noun(2, "miss", "misses")
    ('1 task', '2 misses')
    """
    return f"{grouped(number)} {inflected(number, noun, plural)}"


def pace(rate: float) -> str:
    """Format how many a second are done.

    >>> pace(0.25), pace(31.7)
    ('0.2', '32')
    """
    return f"{rate:.1f}" if rate < 10 else grouped(rate)


def size(n_bytes: float) -> str:
    """Format a size in bytes.

    >>> size(0), size(3 << 20), size(80 << 30)
    ('0 MB', '3 MB', '80.0 GB')
    """
    if n_bytes >= 1 << 30:
        return f"{n_bytes / (1 << 30):.1f} GB"
    return f"{n_bytes / (1 << 20):.0f} MB"
