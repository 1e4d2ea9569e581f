"""What the values of label maps stand for: ``classes.json``, or a text file of names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backend.dataset.labelled_image import NOTHING, Colour
from backend.dataset.mask_source import Limits, read_bytes
from backend.errors import DatasetError
from clearclip_core.vocabulary import MapNames

#: Files that are looked for, in this order, where none is named.
FILES: Final = ("classes.json", "names.txt", "classes.txt")

_MAX_CLASSES: Final = 1 << 16
_LIMITS: Final = Limits(max_file_mb=16)

#: What reading a value of another type raises.
_BROKEN: Final = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class LabelValues:
    """The classes of label maps.

    Attributes:
        names: value -> name of its class; None for pixels that have no class.
        colours: value -> RGB of its class, where the file says it.
        file: the file that says so.
    """

    names: Mapping[int, str | None]
    colours: Mapping[int, Colour] = field(default_factory=dict)
    file: str = ""

    @classmethod
    def find(cls, folder: Path, given: Path | None = None, expected: str = FILES[0]) -> LabelValues:
        """Read the file that is named, else that of `FILES` in the folder or above it.

        Args:
            folder: of the data set.
            given: the file that is named; None: it is looked for.
            expected: what a data set of that kind has, for the error.

        Raises:
            DatasetError: there is no such file, or it holds something else.
        """
        if given is not None:
            return cls.read(given)
        for place in (folder, folder.parent):
            for name in FILES:
                if (place / name).is_file():
                    return cls.read(place / name)
        raise DatasetError(
            f"Expected {expected} or {FILES[1]} in {folder}, which say what the values of the "
            "masks stand for: name such a file by --names."
        )

    @classmethod
    def read(cls, path: Path) -> LabelValues:
        """Read a file of classes.

        Args:
            path: ``*.json``: what `ClassTable.to_json` writes, a list of names, or an object of
                value -> name. Another suffix: a text file with one name a line, as `MapNames` reads
                it.

        Raises:
            DatasetError: it cannot be read, or holds something else.
        """
        content = read_bytes(path, _LIMITS)
        if path.suffix.lower() == ".json":
            return _read_json(content, path)
        try:
            given = MapNames.read(path)
        except (ValueError, OSError) as error:
            raise DatasetError(str(error)) from None
        names = {
            value: given.labels[index].name if index is not None and index >= 0 else None
            for value, index in enumerate(given.indices)
        }
        return cls({NOTHING: None} | names, file=str(path))


def _read_json(content: bytes, path: Path) -> LabelValues:
    names: dict[int, str | None]
    colours: dict[int, Colour] = {}
    try:
        found = json.loads(content)
        nothing: Any = NOTHING
        if isinstance(found, list):
            names = {value: _name(name) for value, name in enumerate(found)}
        elif isinstance(found, dict) and "classes" in found:
            classes, nothing = found["classes"], found.get("nothing", NOTHING)
            if isinstance(classes, list) and all(isinstance(each, str) for each in classes):
                classes = [{"value": value, "name": name} for value, name in enumerate(classes)]
            names = {_value(each["value"]): _name(each["name"]) for each in classes}
            if len(names) != len(classes):
                raise ValueError("a value is there twice")
            colours = {
                _value(each["value"]): _colour(each["colour"])
                for each in classes
                if "colour" in each
            }
        else:
            names = {_value(value): _name(name) for value, name in found.items()}
        if not 0 < len(names) <= _MAX_CLASSES:
            raise ValueError(f"it has {len(names)} classes")
        empty: dict[int, str | None] = {} if nothing is None else {_value(nothing): None}
    except (*_BROKEN, RecursionError) as error:
        raise DatasetError(
            f'Expected {path} to hold "classes" with a "value" and a "name" each, a list of names, '
            f"or an object of value and name, but got something else ({str(error)[:100]})."
        ) from None
    return LabelValues(empty | names, colours, str(path))


def _value(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError("a value is no whole number")
    value = int(given)
    if not 0 <= value < _MAX_CLASSES:
        raise ValueError(f"a value is not from 0 to {_MAX_CLASSES - 1}")
    return value


def _name(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError("a name is no text")
    return given.strip()


def _colour(given: Any) -> Colour:
    red, green, blue = (int(each) for each in given)
    return red, green, blue
