"""Read the lists of a COCO file object by object, within limits.

A file may have millions of annotations, of which one is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import ijson
from ijson.common import ObjectBuilder

from backend.errors import DatasetError

#: Largest file, in bytes.
_MAX_BYTES: Final = 4 << 30
#: Values of one object: points of its outlines, or runs.
_MAX_VALUES: Final = 4_000_000
#: Levels of lists and objects within an object of a list.
_MAX_DEPTH: Final = 8

_OPENING: Final = ("start_map", "start_array")
_CLOSING: Final = ("end_map", "end_array")


def read_objects(path: Path, keys: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the objects in lists at the top of a JSON file, in the order of the file.

    Args:
        path: the file.
        keys: keys of the lists that are read.

    Yields:
        The key of the list, and the object.

    Raises:
        DatasetError: it is no JSON or cut off, too large, or an object of it is.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DatasetError(f"{path} is over the limit of {_MAX_BYTES >> 20} MB.")
        with path.open("rb") as file:
            yield from _objects(ijson.basic_parse(file, use_float=True), keys, path)
    except (ijson.JSONError, UnicodeDecodeError, OverflowError):
        raise DatasetError(f"{path} is no JSON file, or is damaged or cut off.") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from None


def _objects(
    events: Iterator[tuple[str, Any]], keys: Collection[str], path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    depth, values, key = 0, 0, ""
    builder: ObjectBuilder | None = None
    for event, value in events:
        if event == "map_key" and depth == 1:
            key = value
            continue
        if depth == 2 and event == "start_map" and key in keys:
            builder, values = ObjectBuilder(), 0
        depth += (event in _OPENING) - (event in _CLOSING)
        if builder is None:
            continue
        builder.event(event, value)
        values += 1
        if values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise DatasetError(
                f'An object of "{key}" in {path} has more than {_MAX_VALUES} values or '
                f"{_MAX_DEPTH} levels."
            )
        if depth == 2:
            yield key, builder.value
            builder = None
