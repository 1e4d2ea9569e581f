"""Parse JSON as it is read, and build of it only what is asked for.

Label Studio sends a task with all its old annotations and predictions: hundreds of megabytes of
masks in a large Retrieve. `json.loads` builds all of it, holds the interpreter meanwhile, and takes
up to forty times the memory of a hostile body. Here the values that nobody asks for are skipped
unread, other threads run in between, and the limits hold while the body is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, BinaryIO, Final

import ijson
from ijson.common import ObjectBuilder

from backend.errors import BadRequest, PayloadTooLarge

#: Most levels of objects and lists in one another.
_MAX_DEPTH: Final = 100

#: Most items of a list, those included that are counted only.
_MAX_ITEMS: Final = 1_000_000

#: Memory for what is built, in bytes: a part for each body, and a part for each byte of it.
_FREE_BYTES: Final = 16 << 20
_BYTES_PER_BYTE: Final = 3

#: Bytes of memory that a value takes: an estimate of CPython's own, entries of containers included.
_MAP_BYTES, _ARRAY_BYTES, _KEY_BYTES, _TEXT_BYTES, _NUMBER_BYTES = 240, 90, 110, 60, 40
_SMALL_NUMBER_BYTES: Final = 9  # CPython has each whole number up to 256 once
_EVENT_BYTES: Final = {"start_map": _MAP_BYTES, "start_array": _ARRAY_BYTES}

#: Most values of a body, built or not: so many for each body, and one for so many bytes of it.
_FREE_EVENTS: Final = 1_000_000
_BYTES_PER_EVENT: Final = 4

#: Bytes that are parsed at a time. Within a long text they are more, up to the second number, as
#: ijson reads the text from its beginning with each chunk.
_CHUNK: Final = 1 << 16
_LARGEST_CHUNK: Final = 1 << 24
#: Largest body that `json` may parse, in bytes.
_SMALL: Final = 1 << 18

#: The first numbers of a long list, and those that follow.
_NUMBERS: Final = re.compile(rb"\[[-+.0-9eE,\s]{64,}")
_MORE_NUMBERS: Final = re.compile(rb"[-+.0-9eE,\s]*")

_OPENING: Final = ("start_map", "start_array")
_CLOSING: Final = ("end_map", "end_array")


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
    at_most: int = _MAX_ITEMS
    or_one: bool = False


#: What is built of a value: keys of an object, items of a list, or the whole. Where the value is of
#: another type it is built empty, so that its reader can name the type.
Shape = Mapping[str, "Shape"] | Items | Whole


@dataclass(frozen=True)
class Parsed:
    """What is built of a body, and the number of items that were only counted."""

    value: Any
    items_left_out: int


def parse_stream(body: BinaryIO, shape: Shape) -> Parsed:
    """Parse a body of JSON from its beginning, and build what a shape asks for.

    Args:
        body: bytes of UTF-8 that can be read again from the beginning.
        shape: what is built; the rest is skipped, and need not even be right.

    Raises:
        BadRequest: it is no JSON, or too deeply nested.
        PayloadTooLarge: it has too many items or values, or would take too much memory.
    """
    try:
        return _Parser(shape).parse(body)
    except ijson.JSONError:
        return _parse_small(body, shape)


def _parse_small(body: BinaryIO, shape: Shape) -> Parsed:
    """Parse with Python's own parser, which knows NaN, Infinity and numbers of any size."""
    body.seek(0)
    text = body.read(_SMALL + 1)
    try:
        if len(text) > _SMALL:
            raise ValueError
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("Expected a body of JSON, but got something else.") from None
    return _select(value, shape)


def _select(value: Any, shape: Shape) -> Parsed:
    """Select what a shape asks for of a value that is parsed already."""
    if isinstance(shape, Whole) or not isinstance(value, list | dict):
        return Parsed(value, 0)
    if isinstance(value, list):
        if not isinstance(shape, Items):
            return Parsed([], 0)
        kept = [_select(item, shape.shape) for item in value[: shape.at_most]]
        left_out = len(value) - len(kept) + sum(item.items_left_out for item in kept)
        return Parsed([item.value for item in kept], left_out)
    shape = _shape_within(shape, is_list=False)
    keys = shape if isinstance(shape, Mapping) else {}
    parts = {key: _select(value[key], keys[key]) for key in value if key in keys}
    left_out = sum(part.items_left_out for part in parts.values())
    return Parsed({key: part.value for key, part in parts.items()}, left_out)


class _Parser:
    """Feed ijson with a body, and leave out long lists of numbers that are skipped."""

    def __init__(self, shape: Shape) -> None:
        self._selector = _Selector(shape)
        self._parser = ijson.basic_parse_coro(self._selector, use_float=True)
        self._in_numbers = False

    def parse(self, body: BinaryIO) -> Parsed:
        selector = self._selector
        body.seek(0)
        size = _CHUNK
        while chunk := body.read(size):
            selector.bytes_read += len(chunk)
            before = selector.events
            for part in self._without_numbers(chunk):
                self._parser.send(part)
            selector.check_events()
            is_in_text = selector.events == before and not self._in_numbers
            size = min(2 * size, _LARGEST_CHUNK) if is_in_text else _CHUNK
        self._parser.close()
        return Parsed(selector.value, selector.items_left_out)

    def _without_numbers(self, chunk: bytes) -> Iterator[bytes]:
        """Iterate over the parts of a chunk that ijson has to see; none is empty."""
        at = self._end_of_numbers(chunk, 0) if self._in_numbers else 0
        while match := _NUMBERS.search(chunk, at):
            if match.start() > at:
                yield chunk[at : match.start()]
            before = self._selector.events
            yield b"["
            at = match.start() + 1
            # A bracket within a text, unlike that of a list, is no event.
            if self._selector.events > before and self._selector.is_skipping:
                at = self._end_of_numbers(chunk, at)
        if at < len(chunk):
            yield chunk[at:]

    def _end_of_numbers(self, chunk: bytes, at: int) -> int:
        match = _MORE_NUMBERS.match(chunk, at)
        end = match.end() if match else at
        self._in_numbers = end == len(chunk)
        return end


class _Selector:
    """Take the events of a parser, and build what a shape asks for.

    Attributes:
        bytes_read: bytes of the body that the parser has got; set by the parser.
        events: events so far.
        items_left_out: items that were counted only.
    """

    def __init__(self, shape: Shape) -> None:
        self.bytes_read = 0
        self.events = 0
        self.items_left_out = 0
        self._next: Shape = shape
        self._open: list[tuple[Shape, bool]] = []  # of containers: the shape; whether it is a list
        self._counts: list[int] = []
        self._skipped_levels = 0
        self._bytes = 0
        self._builder = ObjectBuilder()

    @property
    def value(self) -> Any:
        return self._builder.value

    @property
    def is_skipping(self) -> bool:
        return self._skipped_levels > 0

    def check_events(self) -> None:
        """Refuse a body of so many tiny values that it would take long."""
        if self.events > _FREE_EVENTS + self.bytes_read // _BYTES_PER_EVENT:
            raise PayloadTooLarge("The body has more values than a body of its size may have.")

    def send(self, given: tuple[str, Any]) -> None:
        """Take an event: what it is, and its value."""
        event, value = given
        self.events += 1
        if self._skipped_levels:
            self._skip(event)
        elif event in _CLOSING:
            self._open.pop()
            self._counts.pop()
            self._builder.event(event, value)
        elif event == "map_key":
            self._take_key(value)
        else:
            self._take(event, value)

    def _skip(self, event: str) -> None:
        if event in _OPENING:
            self._skipped_levels += 1
            self._check_depth()
        elif event in _CLOSING:
            self._skipped_levels -= 1

    def _take_key(self, key: str) -> None:
        shape = self._open[-1][0]
        self._next = shape if isinstance(shape, Whole) else _shape_at(shape, key)
        if self._next is not Whole.SKIPPED:
            self._spend(_KEY_BYTES + len(key))
            self._builder.event("map_key", key)

    def _take(self, event: str, value: Any) -> None:
        shape = self._shape_of_value()
        opens = event in _OPENING
        if shape is Whole.SKIPPED:
            self._skipped_levels = int(opens)
            return
        self._spend(_size(event, value))
        self._builder.event(event, value)
        if opens:
            is_list = event == "start_array"
            self._open.append((_shape_within(shape, is_list), is_list))
            self._counts.append(0)
            self._check_depth()

    def _shape_of_value(self) -> Shape:
        if not self._open or not self._open[-1][1]:
            return self._next
        shape = self._open[-1][0]
        if isinstance(shape, Items):
            return self._count_item(shape)
        return shape if isinstance(shape, Whole) else Whole.SKIPPED

    def _count_item(self, items: Items) -> Shape:
        self._counts[-1] += 1
        if self._counts[-1] > _MAX_ITEMS:
            raise PayloadTooLarge(f"The body has a list of more than {_MAX_ITEMS} items.")
        if self._counts[-1] <= items.at_most:
            return items.shape
        self.items_left_out += 1
        return Whole.SKIPPED

    def _check_depth(self) -> None:
        if len(self._open) + self._skipped_levels > _MAX_DEPTH:
            raise BadRequest(f"Expected a body of JSON of {_MAX_DEPTH} levels or fewer.")

    def _spend(self, size: int) -> None:
        self._bytes += size
        if self._bytes > _FREE_BYTES + _BYTES_PER_BYTE * self.bytes_read:
            raise PayloadTooLarge("The body holds more than a body of its size may hold.")


def _shape_at(shape: Shape, key: str) -> Shape:
    return shape.get(key, Whole.SKIPPED) if isinstance(shape, Mapping) else Whole.SKIPPED


def _shape_within(shape: Shape, is_list: bool) -> Shape:
    """Return the shape of a container; that of an empty one where it is of another type."""
    if isinstance(shape, Items) and shape.or_one and not is_list:
        return shape.shape
    if isinstance(shape, Whole) or isinstance(shape, Items) == is_list:
        return shape
    return {}


def _size(event: str, value: Any) -> int:
    """Estimate the memory of a value in bytes."""
    if isinstance(value, str):
        return _TEXT_BYTES + len(value) * (1 if value.isascii() else 4)
    if isinstance(value, int):
        return _SMALL_NUMBER_BYTES if -5 <= value <= 256 else _NUMBER_BYTES
    return _EVENT_BYTES.get(event, _NUMBER_BYTES)
