"""Spelled-out names of methods: the parts of a method as text, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clearclip_core.clip.position_embedding import RESIZES

_NUMBER = r"[0-9.]+(?:e[+-]?[0-9]+)?"
_SPELLED_OUT = re.compile(
    rf"(?P<attention>[a-z+]+)(?P<residual>-res)?(?P<ffn>-ffn)?(?:-a(?P<alpha>{_NUMBER}))?"
    r"(?:-b(?P<blocks>[0-9]+))?(?:-(?P<positions>size|bilinear))?(?P<remove_redundancy>-surgery)?"
    rf"(?:-k(?P<key_weight>{_NUMBER}))?(?:-affinity\.(?P<affinity>[a-z]+))?"
    r"(?:-repair\.(?P<repair>[a-z]+))?(?:-layers\.(?P<layers>[a-z]+))?"
    r"(?:-second\.(?P<second>[a-z+]+))?(?P<stitched>-stitched)?(?P<tapered>-tapered)?"
)

#: Part that is there or not -> its text.
_SWITCHES = {
    "residual": "res",
    "ffn": "ffn",
    "remove_redundancy": "surgery",
    "stitched": "stitched",
    "tapered": "tapered",
}
#: Part with a number -> the letter before it.
_NUMBERS = {"alpha": "a", "blocks": "b", "key_weight": "k"}
#: Parts whose names follow their own and a dot.
_NAMED = ("affinity", "repair", "layers", "second")
#: The parts behind the attention, in the order of a name.
_ORDER = (
    *("residual", "ffn", "alpha", "blocks", "positions", "remove_redundancy", "key_weight"),
    *(*_NAMED, "stitched", "tapered"),
)


def parse(name: str) -> dict[str, Any] | None:
    """Parse a spelled-out name; None where it is none.

    Returns:
        The parts that the name has, by the names of the attributes of `Method`; their values are
        unchecked.

    >>> parse("qq-res-a2")
    {'attention': 'qq', 'residual': True, 'alpha': 2.0}
    """
    match = _SPELLED_OUT.fullmatch(name)
    if match is None:
        return None
    parts: dict[str, Any] = {}
    for part, text in match.groupdict().items():
        if text is None:
            continue
        try:
            parts[part] = _value(part, text)
        except ValueError:  # such as 1.2.3
            return None
    return parts


def spell(parts: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Spell out a method: its attention, and the parts that differ from the defaults.

    Args:
        parts: the attributes of the method by name.
        defaults: their defaults.
    """
    written = [parts["attention"]]
    written += [_text(name, parts[name]) for name in _ORDER if parts[name] != defaults[name]]
    return "-".join(written)


def _value(part: str, text: str) -> Any:
    if part in _SWITCHES:
        return True
    if part == "blocks":
        return int(text)
    return float(text) if part in _NUMBERS else text


def _text(part: str, value: Any) -> str:
    if part in _SWITCHES:
        return _SWITCHES[part]
    if part in _NUMBERS:
        return f"{_NUMBERS[part]}{_shortest(value)}"
    if part == "positions":
        assert value in RESIZES
        return str(value)
    return f"{part}.{value}"


def _shortest(number: float) -> str:
    """Format a number with the fewest digits that read back as the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
