"""Write tables that the library datasets loads with the names of classes: one row a picture."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from backend.dataset.formats.format_writer import (
    OVERLAP_RULES,
    ClassTable,
    FormatWriter,
    ImageRow,
    ReadRows,
    WrittenImage,
)
from backend.dataset.output_folder import PARTS

_FOLDER: Final = "data"
_MASKS: Final = f"{PARTS}/masks"

_FILE_BYTES: Final = 256 << 20  # bytes of pictures in one file

#: Bytes of pictures, and rows, of one row group, which the writer and readers hold at once. The
#: writer takes several times the bytes, and a row with many regions takes more than its pictures.
_GROUP_BYTES: Final = 4 << 20
_GROUP_ROWS: Final = 100

#: Columns with few different values. A dictionary of files would hold each of them once more.
_REPETITIVE: Final = [
    f"regions.list.element.{each}" for each in ("label", "origin", "model_version")
]

#: What is told of a region beside its label.
_REGION: Final = {
    "score": "float64",
    "origin": "string",
    "model_version": "string",
    "annotation": "int64",
    "annotator": "int64",
}

_FILES: Final = ("image", "mask")  # columns of a picture's file and of its label map


class ParquetWriter(FormatWriter):
    """Writes tables of about 256 MiB, one without a row for a part without pictures, and a card."""

    name = "parquet"
    title = "Parquet (Hugging Face datasets)"
    files = frozenset({_FOLDER, "README.md"})
    library = "pyarrow"
    has_label_maps = True
    has_images = True

    def image_files(self, image: WrittenImage, entries: Sequence[Any]) -> Mapping[str, bytes]:
        return {f"{_MASKS}/{image.name}.png": image.label_png}

    def write_part(self, part: str, rows: ReadRows) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter as TableWriter

        output, schema = self.frame.output, _schema(self.frame.classes)
        columns = {"use_dictionary": _REPETITIVE, "write_statistics": ["name", "task"]}
        folders = output.path / self.frame.options.image_folder, output.path / _MASKS
        groups = _groups(rows(), folders, self.frame.classes)
        group = next(groups, None)
        for number in count():
            path, filled = output.place(f"{_FOLDER}/{part}-{number:05d}.parquet"), 0
            with TableWriter(path, schema, **columns) as writer:
                while group and filled < _FILE_BYTES:
                    size = sum(len(row[column]["bytes"]) for row in group for column in _FILES)
                    output.take(size)
                    writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
                    filled += size
                    group = next(groups, None)
            if group is None:
                return

    def finish(self) -> None:
        """Write the card, whose head says which files are which part."""
        frame = self.frame
        lines = ["---", "configs:", "- config_name: default", "  data_files:"]
        for part in frame.options.split.names:
            split = "validation" if part == "val" else part
            lines += [f"  - split: {split}", f"    path: {_FOLDER}/{part}-*.parquet"]
        rule = OVERLAP_RULES[frame.options.overlap]
        lines += ["---", "", f"Made from {frame.source}.", "", rule, ""]
        lines += ["The value 255 in a mask stands for no class.", ""]
        lines += ["| value | class |", "|---|---|"]
        names = (name.replace("|", "\\|") for name in frame.classes.all_names)
        lines += [f"| {value} | {name} |" for value, name in enumerate(names)]
        frame.output.write("README.md", ("\n".join(lines) + "\n").encode())


def _groups(
    rows: Iterable[ImageRow], folders: tuple[Path, Path], classes: ClassTable
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    filled = 0
    for row in rows:
        values = _values(row, folders, classes)
        group.append(values)
        filled += sum(len(values[column]["bytes"]) for column in _FILES)
        if filled > _GROUP_BYTES or len(group) == _GROUP_ROWS:
            yield group
            group, filled = [], 0
    if group:
        yield group


def _values(row: ImageRow, folders: tuple[Path, Path], classes: ClassTable) -> dict[str, Any]:
    files = zip(_FILES, folders, (row.image, f"{row.name}.png"), strict=True)
    values = {
        column: {"bytes": (folder / name).read_bytes(), "path": name}
        for column, folder, name in files
    }
    regions: list[dict[str, Any]] = [
        {key: each.get(key) for key in _REGION} | {"label": classes.value_of(each["label"])}
        for each in row.regions
    ]
    labels = sorted({each["label"] for each in regions})
    return {**values, "name": row.name, "task": row.task, "labels": labels, "regions": regions}


def _schema(classes: ClassTable) -> Any:
    import pyarrow

    types = {"float64": pyarrow.float64(), "string": pyarrow.string(), "int64": pyarrow.int64()}
    file = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    region = [("label", pyarrow.int64()), *((name, types[kind]) for name, kind in _REGION.items())]
    fields = [
        ("image", file),
        ("mask", file),
        ("name", pyarrow.string()),
        ("task", pyarrow.int64()),
        ("labels", pyarrow.list_(pyarrow.int64())),
        ("regions", pyarrow.list_(pyarrow.struct(region))),
    ]
    label = {"names": list(classes.all_names), "_type": "ClassLabel"}
    features = {
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "name": {"dtype": "string", "_type": "Value"},
        "task": {"dtype": "int64", "_type": "Value"},
        "labels": {"feature": label, "_type": "Sequence"},
        "regions": [
            {"label": label} | {n: {"dtype": k, "_type": "Value"} for n, k in _REGION.items()}
        ],
    }
    told = json.dumps({"info": {"features": features}})  # datasets looks for them there
    return pyarrow.schema(fields, metadata={"huggingface": told})
