"""Describe what is built of a body of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

#: Most items of a list, those included that are counted only.
MAX_ITEMS: Final = 1_000_000


class Whole(Enum):
    """Say that a value is built with all that is in it, or not at all."""

    KEPT = 1
    SKIPPED = 2


@dataclass(frozen=True)
class Items:
    """The items of a list that are built, and what of each.

    Attributes:
        shape: what is built of an item.
        at_most: the number of items that are built; those that follow are counted.
        or_one: whether an item may also stand by itself, without a list.
    """

    shape: Shape
    at_most: int = MAX_ITEMS
    or_one: bool = False


#: What is built of a value: keys of an object, items of a list, or the whole. Where the value is of
#: another type it is built empty, so that its reader can name the type.
Shape = Mapping[str, "Shape"] | Items | Whole


@dataclass(frozen=True)
class Parsed:
    """What is built of a body, and the number of items that were only counted."""

    value: Any
    items_left_out: int


def select(value: Any, shape: Shape) -> Parsed:
    """Select what a shape asks for of a value that is parsed already."""
    if isinstance(shape, Whole) or not isinstance(value, list | dict):
        return Parsed(value, 0)
    if isinstance(value, list):
        if not isinstance(shape, Items):
            return Parsed([], 0)
        kept = [select(item, shape.shape) for item in value[: shape.at_most]]
        left_out = len(value) - len(kept) + sum(item.items_left_out for item in kept)
        return Parsed([item.value for item in kept], left_out)
    shape = shape_within(shape, is_list=False)
    keys = shape if isinstance(shape, Mapping) else {}
    parts = {key: select(value[key], keys[key]) for key in value if key in keys}
    left_out = sum(part.items_left_out for part in parts.values())
    return Parsed({key: part.value for key, part in parts.items()}, left_out)


def shape_at(shape: Shape, key: str) -> Shape:
    """Return the shape of the value of a key."""
    return shape.get(key, Whole.SKIPPED) if isinstance(shape, Mapping) else Whole.SKIPPED


def shape_within(shape: Shape, is_list: bool) -> Shape:
    """Return the shape of a container; that of an empty one where it is of another type."""
    if isinstance(shape, Items) and shape.or_one and not is_list:
        return shape.shape
    if isinstance(shape, Whole) or isinstance(shape, Items) == is_list:
        return shape
    return {}
