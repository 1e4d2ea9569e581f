"""Write the files of a data set that are of all its pictures, and remove those it has no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from backend.dataset.labelled_image import ClassTable
from backend.dataset.manifest import Manifest, PictureRow
from backend.dataset.options import DatasetOptions
from backend.dataset.writers import coco, index_png, parquet, yolo
from clearclip_core.evaluation.atomic_write import replaced

PICTURES_FILE: Final = "pictures.jsonl"
_WRITTEN: Final = "shared files"
_TABLES: Final = "tables"


def write_shared_files(
    folder: Path,
    manifest: Manifest,
    parts: Mapping[int, str],
    classes: ClassTable,
    options: DatasetOptions,
) -> None:
    """Write lists, tables and annotations of all pictures, each file as a whole.

    Args:
        folder: of the data set.
        manifest: its pictures.
        parts: id of a picture's row -> name of its part.
        classes: the classes.
        options: what is written.
    """
    names = options.split.names
    written = [PICTURES_FILE, index_png.CLASSES_FILE]
    _write_pictures(folder / PICTURES_FILE, manifest, parts)
    index_png.write_classes(folder, classes, options.overlap)

    def pictures(part: str) -> Iterator[PictureRow]:
        return manifest.pictures(among=lambda row: parts[row] == part)

    if "index-png" in options.formats:
        index_png.write_lists(folder, {n: (row.name for row in pictures(n)) for n in names})
        written += [f"splits/{part}.txt" for part in names]
    if "coco" in options.formats:
        info = {"description": manifest.fact("source"), "annotations": str(options.choice)}
        for part in names:
            file = f"{coco.FOLDER}/instances_{part}.json"
            coco.write_coco(folder / file, partial(pictures, part), classes, options.overlap, info)
            written.append(file)
    if "yolo" in options.formats:
        lists = {part: (row.file_name for row in pictures(part)) for part in names}
        yolo.write_data_file(
            folder, lists, classes, options.overlap, options.image_folder or "images"
        )
        written += ["data.yaml", *(f"{part}.txt" for part in names)]
    if "parquet" in options.formats:
        written += _write_tables(folder, manifest, pictures, classes, options)
    for file in set(json.loads(manifest.fact(_WRITTEN) or "[]")) - set(written):
        (folder / file).unlink(missing_ok=True)
    manifest.keep_fact(_WRITTEN, json.dumps(written))


def _write_tables(
    folder: Path,
    manifest: Manifest,
    pictures: Callable[[str], Iterator[PictureRow]],
    classes: ClassTable,
    options: DatasetOptions,
) -> list[str]:
    """Write the tables of all parts; return their files."""

    def files(row: PictureRow) -> tuple[Path, Path]:
        image = folder / options.image_folder / row.file_name
        return image, folder / options.mask_folder / f"{row.name}.png"

    known = json.loads(manifest.fact(_TABLES) or "{}")
    tables: dict[str, str] = {}
    for part in options.split.names:
        rows = partial(pictures, part)
        tables |= parquet.write_tables(folder, part, rows, files, classes, known)
    source = manifest.fact("source")
    parquet.write_card(folder, options.split.names, classes, options.overlap, source)
    manifest.keep_fact(_TABLES, json.dumps(tables))
    return [*tables, parquet.CARD_FILE]


def _write_pictures(path: Path, manifest: Manifest, parts: Mapping[int, str]) -> None:
    """Write a line of JSON for each picture: its part and task, and the origins of its regions."""
    with replaced(path) as stream:
        for row in manifest.pictures():
            told: dict[str, Any] = {
                "image": row.file_name,
                "part": parts[row.id],
                "task": row.task,
                "source": row.source,
                "height": row.size_hw[0],
                "width": row.size_hw[1],
                "digest": row.digest,
                "regions": row.regions,
            }
            stream.write(f"{json.dumps(told, ensure_ascii=False)}\n".encode())
