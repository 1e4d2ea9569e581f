"""Find the writers of formats by name: those of this folder, and those of other packages.

Another package adds a format without a change here: a class below `FormatWriter`, named by an entry
point of the group ``clearclip.writers`` under the name of its format. The command and the page
offer it then. The guide "Add a format" has an example.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from itertools import combinations
from typing import Final

from backend.dataset.formats.coco import CocoWriter
from backend.dataset.formats.format_writer import FormatWriter
from backend.dataset.formats.label_map import IndexPngWriter, OverlayWriter
from backend.dataset.formats.parquet import ParquetWriter
from backend.dataset.formats.yolo import YoloBoxWriter, YoloWriter
from backend.errors import DatasetError
from clearclip_core.registry import PluginError, Registry

_EXTRA: Final = "clearclip-label-studio[dataset]"

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


def _expect_writer(name: str, found: object) -> type[FormatWriter]:
    if not (isinstance(found, type) and issubclass(found, FormatWriter)):
        raise TypeError("is no FormatWriter")
    if found.name != name:
        raise TypeError(f'calls itself "{found.name}": give both one name')
    return found


#: The writers by the names of their formats, also those of other packages.
WRITERS: Final = Registry("clearclip.writers", "format", _OWN, _expect_writer)


def find_writer(name: str) -> type[FormatWriter]:
    """Return the writer of a format.

    Raises:
        DatasetError: there is none of that name, its package is broken, or it needs a library that
            is not installed.
    """
    try:
        writer = WRITERS.find(name)
    except PluginError as error:
        raise DatasetError(str(error)) from None
    if writer is None:
        known = ", ".join(WRITERS.names())
        raise DatasetError(f'Expected a format to be {known}, but got "{name[:50]}".')

    if writer.library and find_spec(writer.library) is None:
        remedy = f"pip install '{_EXTRA}'" if name in _OWN else f"pip install {writer.library}"
        raise DatasetError(
            f"The format {name} needs {writer.library}, which is not installed here: {remedy}."
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
