"""Read where the pictures of an exported data set came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from backend.dataset.mask_source import Limits, read_bytes
from backend.dataset.shared_files import PICTURES_FILE

_LIMITS: Final = Limits(max_file_mb=256)


def read_picture_addresses(path: Path) -> Mapping[str, str]:
    """Read the address of each picture in Label Studio, from the `PICTURES_FILE` of a data set.

    Lines that hold something else are passed over: names match without them as well.

    Args:
        path: folder of the data set, or a file in it or in one of its folders.

    Returns:
        Name of the picture's file in the data set, without suffix -> its address. Empty where the
        data set has no such file.

    Raises:
        DatasetError: the file cannot be read, or is over the limit.
    """
    for folder in (path, path.parent, path.parent.parent):
        if (folder / PICTURES_FILE).is_file():
            return dict(_addresses(read_bytes(folder / PICTURES_FILE, _LIMITS)))
    return {}


def _addresses(content: bytes) -> Iterator[tuple[str, str]]:
    for line in content.splitlines():
        try:
            row: Any = json.loads(line)
            name, address = row["image"], row["source"]
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
        if isinstance(name, str) and isinstance(address, str):
            yield PurePosixPath(name).stem, address
