"""Find the writers of formats by name: those of this folder, and those of other packages.

Another package adds a format without a change here: a class below `FormatWriter`, named by an entry
point of the group ``clearclip.writers`` under the name of its format. The command and the page
offer it then. The guide "Add a format" has an example.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from itertools import combinations
from typing import Final

from backend.dataset.formats.coco import CocoWriter
from backend.dataset.formats.format_writer import FormatWriter
from backend.dataset.formats.label_map import IndexPngWriter, OverlayWriter
from backend.dataset.formats.parquet import ParquetWriter
from backend.dataset.formats.yolo import YoloBoxWriter, YoloWriter
from backend.errors import DatasetError

GROUP: Final = "clearclip.writers"  # of entry points

_LOG: Final = logging.getLogger(__name__)

_OWN: Final[dict[str, type[FormatWriter]]] = {
    each.name: each
    for each in (
        IndexPngWriter,
        CocoWriter,
        YoloWriter,
        YoloBoxWriter,
        ParquetWriter,
        OverlayWriter,
    )
}


def format_names() -> list[str]:
    """Return the names of all formats, ours first; no other package is imported for that."""
    return [*_OWN, *_entry_points()]


def find_writer(name: str) -> type[FormatWriter]:
    """Return the writer of a format.

    Raises:
        DatasetError: there is none of that name, its package is broken, or it needs a library that
            is not installed.
    """
    if name in _OWN:
        writer = _OWN[name]
    elif (point := _entry_points().get(name)) is not None:
        writer = _load(point)
    else:
        known = ", ".join(format_names())
        raise DatasetError(f'Expected a format to be {known}, but got "{name[:50]}".')

    if writer.library and find_spec(writer.library) is None:
        raise DatasetError(
            f"The format {name} needs {writer.library}, which is not installed here: "
            + (f"pip install {writer.library}." if name not in _OWN else f"pip install '{_EXTRA}'.")
        )
    return writer


def find_writers(names: Iterable[str]) -> list[type[FormatWriter]]:
    """Return the writers of formats that are written into one folder.

    Raises:
        DatasetError: see `find_writer`; or two of them have files of one name.
    """
    writers = [find_writer(name) for name in names]
    for one, other in combinations(writers, 2):
        if one.files & other.files:
            both = f"{one.name} and {other.name} have files of the same names"
            raise DatasetError(f"The formats {both}: write each into a folder of its own.")
    return writers


def all_writers() -> Iterator[type[FormatWriter]]:
    """Iterate over all writers; those of broken packages are logged and left out."""
    yield from _OWN.values()
    for point in _entry_points().values():
        try:
            yield _load(point)
        except DatasetError as error:
            _LOG.warning("%s", error)


_EXTRA: Final = "clearclip-label-studio[dataset]"


def _entry_points() -> dict[str, EntryPoint]:
    """Return the formats of other packages by name; ours cannot be replaced."""
    return {each.name: each for each in entry_points(group=GROUP) if each.name not in _OWN}


def _load(point: EntryPoint) -> type[FormatWriter]:
    package = point.dist.name if point.dist is not None else point.value
    try:
        writer = point.load()
    except Exception as error:  # noqa: BLE001 -- the import of another package may raise anything
        told = f"{type(error).__name__}: {error!s:.200}"
        raise DatasetError(f"The format {point.name} of {package} is broken: {told}.") from None
    if not (isinstance(writer, type) and issubclass(writer, FormatWriter)):
        raise DatasetError(f"The format {point.name} of {package} is no FormatWriter.")
    if writer.name != point.name:
        told = f'calls itself "{writer.name}": give both one name'
        raise DatasetError(f"The format {point.name} of {package} {told}.")
    return writer
