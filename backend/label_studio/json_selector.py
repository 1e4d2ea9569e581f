"""Build of the events of a parser of JSON what a shape asks for, within limits."""

from __future__ import annotations

from typing import Any, Final

from ijson.common import ObjectBuilder

from backend.errors import BadRequest, PayloadTooLarge
from backend.label_studio.json_shapes import MAX_ITEMS, Items, Shape, Whole, shape_at, shape_within

#: Most levels of objects and lists in one another.
_MAX_DEPTH: Final = 100

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

_OPENING: Final = ("start_map", "start_array")
_CLOSING: Final = ("end_map", "end_array")


class Selector:
    """Take the events of a parser, and build what a shape asks for.

    Attributes:
        bytes_read: bytes of the body that the parser has got; set by the parser.
        events: events so far.
        items_left_out: items that were counted only.
        text: the value of the next event, a text that the parser has put together.
    """

    def __init__(self, shape: Shape) -> None:
        self.bytes_read = 0
        self.events = 0
        self.items_left_out = 0
        self.text: str | None = None
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

    def check_memory(self, size: int) -> None:
        """Refuse a body of which this many bytes more would be too many."""
        if self._bytes + size > _FREE_BYTES + _BYTES_PER_BYTE * self.bytes_read:
            raise PayloadTooLarge("The body holds more than a body of its size may hold.")

    def send(self, given: tuple[str, Any]) -> None:
        """Take an event: what it is, and its value."""
        event, value = given
        self.events += 1
        if self.text is not None:
            value, self.text = self.text, None
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
        self._next = shape if isinstance(shape, Whole) else shape_at(shape, key)
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
            self._open.append((shape_within(shape, is_list), is_list))
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
        if self._counts[-1] > MAX_ITEMS:
            raise PayloadTooLarge(f"The body has a list of more than {MAX_ITEMS} items.")
        if self._counts[-1] <= items.at_most:
            return items.shape
        self.items_left_out += 1
        return Whole.SKIPPED

    def _check_depth(self) -> None:
        if len(self._open) + self._skipped_levels > _MAX_DEPTH:
            raise BadRequest(f"Expected a body of JSON of {_MAX_DEPTH} levels or fewer.")

    def _spend(self, size: int) -> None:
        self.check_memory(size)
        self._bytes += size


def _size(event: str, value: Any) -> int:
    """Estimate the memory of a value in bytes."""
    if isinstance(value, str):
        return _TEXT_BYTES + len(value) * (1 if value.isascii() else 4)
    if isinstance(value, int):
        return _SMALL_NUMBER_BYTES if -5 <= value <= 256 else _NUMBER_BYTES
    return _EVENT_BYTES.get(event, _NUMBER_BYTES)
