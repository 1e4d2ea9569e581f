"""What an import of masks is to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from backend.errors import DatasetError

ImportKind = Literal["predictions", "annotations"]

_LONGEST_VERSION: Final = 100


@dataclass(frozen=True)
class ImportOptions:
    """What an import is to do.

    Attributes:
        version: name of the import, the ``model_version`` of its predictions.
        kind: whether the masks are predictions, to be corrected, or annotations.
        replace: whether what an earlier import of that version has stored is removed.
        instances: see `RegionDrawer`.
        as_stored: see `RegionDrawer`.
        renamed: see `ClassMapping`.
        controls: see `ClassMapping`.
        table: CSV file that matches files and tasks; None: they match by name.
        addresses: see `NameMatcher`.

    Raises:
        DatasetError: Label Studio cannot tell such a version from others.
    """

    version: str
    kind: ImportKind = "predictions"
    replace: bool = False
    instances: bool = False
    as_stored: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    table: Path | None = None
    addresses: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_line = re.fullmatch(r"[^,\x00-\x1f\x7f]+", self.version) is not None
        is_short = len(self.version) <= _LONGEST_VERSION
        if not (is_line and is_short and self.version == self.version.strip()):
            raise DatasetError(
                f"Expected the name of a version to have 1 to {_LONGEST_VERSION} letters and no "
                f"comma, which Label Studio puts between versions, but got {self.version[:100]!r}."
            )


def version_of(path: Path) -> str:
    """Return the name of the version of an import from a folder or a file.

    >>> version_of(Path("data/street, 2026/"))
    'masks street 2026'
    >>> version_of(Path("masks"))
    'masks'
    """
    name = re.sub(r"[\s,\x00-\x1f\x7f]+", " ", path.resolve().stem).strip()
    return "masks" if name.lower() == "masks" else f"masks {name}"[:_LONGEST_VERSION].strip()
