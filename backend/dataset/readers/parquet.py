"""Read Parquet files as Hugging Face's ``datasets`` writes them: a label map PNG a row."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from backend.dataset.labelled_image import NO_CLASS, LabelledRegion
from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.readers.label_map import LabelValues, read_class_map
from backend.errors import DatasetError

#: Columns that may hold masks and names, the usual ones first.
_MASKS: Final = ("mask", "label", "annotation", "segmentation_mask", "semantic_mask")
_NAMES: Final = ("file_name", "name", "image_id")
_PATH: Final = "image.path"
#: Bytes of a column of a row group, uncompressed but for repeated values, which are held once.
_MAX_GROUP_BYTES: Final = 512 << 20
#: Rows of a row group, and letters of a name.
_MAX_ROWS: Final = 1 << 20
_MAX_NAME: Final = 4096


@dataclass
class _Table:
    """A Parquet file, of which one row group is in memory at a time."""

    path: Path
    file: Any
    mask: str
    _group: int = -1
    _rows: Any = ()

    def mask_of(self, group: int, row: int) -> bytes:
        """Return the bytes of a row's mask."""
        if group != self._group:
            self._rows, self._group = self.column(group, self.mask), group
        found = self._rows[row].as_py() if row < len(self._rows) else None
        content = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(content, bytes):
            raise DatasetError(f"Row {row} of row group {group} of {self.path} has no mask in it.")
        return content

    def names(self, group: int) -> Iterator[str]:
        """Iterate over the names of the pictures of a row group."""
        columns = self.file.schema_arrow.names
        column = next((each for each in (*_NAMES, "image") if each in columns), None)
        found = self.column(group, _PATH if column == "image" else column) if column else ()
        if len(found) != self.file.metadata.row_group(group).num_rows:
            raise DatasetError(
                f"Expected {self.path} to have a column {' or '.join(_NAMES)}, or the path in "
                "image, for the names of pictures, but it has none."
            )
        for row, scalar in enumerate(found):
            told = scalar.as_py()
            name = told.get("path") if isinstance(told, dict) else told
            if not isinstance(name, str | int) or not 0 < len(str(name).strip()) <= _MAX_NAME:
                raise DatasetError(
                    f"Row {row} of {self.path} does not say the name of its picture."
                )
            yield str(name)

    def column(self, group: int, column: str) -> Any:
        """Read a column of a row group; a value that many rows have is in memory once."""
        arrow: Any = importlib.import_module("pyarrow")
        told = self.file.metadata.row_group(group)
        try:
            size_mb = sum(
                chunk.total_uncompressed_size
                for chunk in map(told.column, range(told.num_columns))
                if f"{chunk.path_in_schema}.".startswith(f"{column}.")
            ) / (1 << 20)
            if size_mb > _MAX_GROUP_BYTES >> 20 or told.num_rows > _MAX_ROWS:
                raise DatasetError(
                    f"{self.path} has a row group of {size_mb:.0f} MB and {told.num_rows} rows in "
                    f'the column "{column}".'
                )
            table = self.file.read_row_group(group, columns=[column], use_threads=False)
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DatasetError(f"{self.path} is damaged ({str(error)[:100]}).") from None
        return table.column(column.partition(".")[0]) if table.num_columns else ()


def find_parquet_files(path: Path) -> list[Path]:
    """Return a Parquet file, or all in a folder."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    return sorted(each for each in path.rglob("*.parquet") if each.is_file())


def read_parquet(path: Path, names: Path | None, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the rows of a Parquet file, or of all in a folder.

    Without `names`, those count that ``datasets`` keeps in the file, else see `LabelValues.find`.

    Raises:
        DatasetError: pyarrow is not installed, a file is damaged, or has no masks or names.
    """
    if find_spec("pyarrow") is None:
        raise DatasetError(
            "Parquet files need pyarrow, which is not installed here: pip install pyarrow."
        )
    files = find_parquet_files(path)
    if not files:
        raise DatasetError(f"Expected Parquet files at {path}, but there are none.")
    for file in files:
        table = _open(file)
        values = LabelValues.read(names) if names else _embedded_names(table)
        if values is None:
            values = LabelValues.find(path if path.is_dir() else path.parent)
        for group in range(table.file.num_row_groups):
            for row, name in enumerate(table.names(group)):
                yield _source(table, group, row, name, values, limits)


def _source(
    table: _Table, group: int, row: int, name: str, values: LabelValues, limits: Limits
) -> MaskSource:
    where = f"{name} in {table.path.name}"

    def read_regions(picture_hw: tuple[int, int]) -> Sequence[LabelledRegion]:
        content = table.mask_of(group, row)
        if len(content) > limits.max_file_mb << 20:
            raise DatasetError(f"{where} is over the limit of {limits.max_file_mb} MB.")
        return read_class_map(content, where, limits).regions(values, picture_hw)

    return MaskSource(name, where, read_regions)


def _open(path: Path) -> _Table:
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        told = parquet.read_metadata(path)
        leaves = [told.schema.column(index) for index in range(told.num_columns)]
        texts = [
            leaf.path
            for leaf in leaves
            if leaf.physical_type == "BYTE_ARRAY" and not leaf.max_repetition_level
        ]
        file = parquet.ParquetFile(path, read_dictionary=texts)
        columns = file.schema_arrow.names
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is no Parquet file, or is damaged ({str(error)[:100]})."
        ) from None
    mask = next((each for each in _MASKS if each in columns), None)
    if mask is None:
        raise DatasetError(
            f"Expected {path} to have a column {' or '.join(_MASKS)}, but it has "
            f"{', '.join(columns[:20])}."
        )
    return _Table(path, file, mask)


def _embedded_names(table: _Table) -> LabelValues | None:
    """Read the names of classes that ``datasets`` keeps beside the schema; None where it has none.

    The features of a mask are those of an image. Names stand with the first list of classes.
    """
    metadata = table.file.schema_arrow.metadata or {}
    try:
        found = _class_names(json.loads(metadata.get(b"huggingface", b"{}")))
    except (ValueError, RecursionError):
        return None
    if not found:
        return None
    names: dict[int, str | None] = {NO_CLASS: None}
    return LabelValues(names | dict(enumerate(found)), file=str(table.path))


def _class_names(feature: Any) -> list[str]:
    """Return the names of the first ``ClassLabel`` in a feature or in those below it."""
    below: list[Any] = list(feature) if isinstance(feature, list) else []
    if isinstance(feature, Mapping):
        names = feature.get("names")
        if isinstance(names, list) and all(isinstance(each, str) for each in names):
            return names
        below = list(feature.values())
    return next(filter(None, map(_class_names, below)), [])
