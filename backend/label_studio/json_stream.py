"""Parse JSON as it is read, and build of it only what is asked for.

Label Studio sends a task with all its old annotations and predictions: hundreds of megabytes of
masks in a large Retrieve. `json.loads` builds all of it, holds the interpreter meanwhile, and takes
up to forty times the memory of a hostile body. Here the values that nobody asks for are skipped
unread, other threads run in between, and the limits hold while the body is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO, Final

import ijson

from backend.errors import BadRequest, PayloadTooLarge
from backend.label_studio.json_selector import Selector
from backend.label_studio.json_shapes import Parsed, Shape, select
from backend.label_studio.json_texts import (
    PartialText,
    end_of_whole_texts,
    replace_lone_surrogates,
)

#: Bytes of a file that are parsed at a time.
_CHUNK: Final = 1 << 16
#: Bytes of the longest number. ijson reads one from its beginning with each chunk.
_LONGEST_NUMBER: Final = 1 << 16
#: Letters of the longest text that is kept. Its parts are put together in one step, in which no
#: other thread runs. An image of 100 MB has 140 million in a data: URL.
_LONGEST_TEXT: Final = 160 << 20
#: Largest body that `json` may parse, in bytes.
_SMALL: Final = 1 << 18

#: The first numbers of a long list, and those that follow.
_NUMBERS: Final = re.compile(rb"\[[-+.0-9eE,\s]{64,}")
_MORE_NUMBERS: Final = re.compile(rb"[-+.0-9eE,\s]*")


def parse_stream(body: BinaryIO, shape: Shape) -> Parsed:
    """Parse a file of JSON from its beginning, and build what a shape asks for.

    See `parse_chunks`.

    Args:
        body: a file of UTF-8.
        shape: what is built.
    """
    body.seek(0)
    return parse_chunks(iter(partial(body.read, _CHUNK), b""), shape)


def parse_chunks(chunks: Iterable[bytes], shape: Shape) -> Parsed:
    """Parse JSON that arrives in chunks, and build what a shape asks for.

    Args:
        chunks: bytes of UTF-8, at most about 64 kB at a time: no other thread runs meanwhile.
        shape: what is built; the rest is skipped, and need not even be right.

    Raises:
        BadRequest: it is no JSON, or too deeply nested.
        PayloadTooLarge: it has too many items or values, or would take too much memory.
    """
    beginning = bytearray()

    def watched() -> Iterator[bytes]:
        for chunk in chunks:
            if len(beginning) <= _SMALL:
                beginning.extend(chunk)
            yield chunk

    arriving = watched()
    try:
        return _Parser(shape).parse(arriving)
    except (ijson.JSONError, ValueError):
        while len(beginning) <= _SMALL and next(arriving, b""):
            pass
        return _parse_small(bytes(beginning), shape)


def _parse_small(body: bytes, shape: Shape) -> Parsed:
    """Parse with Python's own parser, which knows NaN, Infinity and numbers of any size."""
    try:
        if len(body) > _SMALL:
            raise ValueError
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("Expected a body of JSON, but got something else.") from None
    return select(value, shape)


class _Parser:
    """Feed ijson with a body, less long lists of numbers that are skipped, and texts in parts.

    A text that does not end within its chunk is put together here. ijson sees an empty one, and
    `Selector` gets the text in its place.
    """

    def __init__(self, shape: Shape) -> None:
        self._selector = Selector(shape)
        self._parser = ijson.basic_parse_coro(self._selector, use_float=True)
        self._in_numbers = False
        self._text: PartialText | None = None
        self._number_bytes = 0

    def parse(self, chunks: Iterable[bytes]) -> Parsed:
        selector = self._selector
        for chunk in chunks:
            selector.bytes_read += len(chunk)
            before = selector.events
            for part in self._parts(chunk):
                self._parser.send(part)
            selector.check_events()
            self._check_number(chunk, has_events=selector.events > before)
        self._parser.close()
        return Parsed(selector.value, selector.items_left_out)

    def _check_number(self, chunk: bytes, has_events: bool) -> None:
        """Refuse a number that goes on and on: nothing else is neither an event nor in a text."""
        if has_events or self._in_numbers or self._text is not None or chunk.isspace():
            self._number_bytes = 0
            return
        self._number_bytes += len(chunk)
        if self._number_bytes > _LONGEST_NUMBER:
            raise BadRequest(f"The body has a number of more than {_LONGEST_NUMBER} digits.")

    def _parts(self, chunk: bytes) -> Iterator[bytes]:
        """Iterate over the parts of a chunk that ijson has to see; none is empty."""
        at = 0
        if self._text is not None:
            end = self._take_text(chunk)
            if end is None:
                return
            self._selector.text, self._text = self._text.value, None
            yield b'"'
            at = end + 1
        end = end_of_whole_texts(chunk, at)
        yield from self._without_numbers(replace_lone_surrogates(chunk[at:end]))
        if end < len(chunk):
            self._in_numbers = False
            yield b'"'
            self._text = PartialText(is_kept=not self._selector.is_skipping)
            self._take_text(chunk[end + 1 :])

    def _take_text(self, part: bytes) -> int | None:
        """Take a part of a text; return where it ends, if it does."""
        assert self._text is not None
        end = self._text.take(part)
        self._selector.check_memory(self._text.bytes_taken)
        if self._text.letters > _LONGEST_TEXT:
            raise PayloadTooLarge(f"The body has a text of more than {_LONGEST_TEXT} letters.")
        return end

    def _without_numbers(self, chunk: bytes) -> Iterator[bytes]:
        """Iterate over the parts of a chunk that are no numbers of skipped lists; none is empty."""
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
