"""Write a data set: the own files of each picture first, then those that are of all pictures."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import msgspec
import numpy as np

from backend.dataset.labelled_image import LabelledImage, Overlap, PictureRow
from backend.dataset.output_folder import PICTURES_FILE, OutputFolder
from backend.dataset.picture_file import PictureFile, folded, name_of, read_picture_file
from backend.dataset.splits import Features, Split, assign
from backend.dataset.task_images import (
    LoadedImage,
    LoadedTask,
    ProjectLabels,
    ReadFile,
    TaskImage,
    TaskImageReader,
    TaskLoader,
    plain_text,
)
from backend.dataset.tasks import TaskSource
from backend.dataset.writers import coco, index_png, parquet, yolo
from backend.errors import DatasetError, TaskError
from backend.label_studio.annotations import AnnotationChoice
from backend.label_studio.image_loader import RGBArray
from clearclip_core.quantities import quantity

#: A format of trainers: palette PNGs, COCO's JSON, YOLO's polygons, Hugging Face's tables.
Format = Literal["index-png", "coco", "yolo", "parquet"]

#: What becomes of the pictures themselves: copied, linked to files of this machine, or only named.
Pictures = Literal["copy", "link", "none"]

#: Folder of what only the tables are made of; it is removed at the end.
_PARTS: Final = ".parts"

#: Reasons that are shown on a terminal; the file has all.
_SHOWN: Final = 10


class Describer(Protocol):
    """Computes the features by which near-duplicates are found."""

    def describe(self, rgb: RGBArray) -> bytes:
        """Return the features (D,) float16, of unit length, of an upright picture."""
        ...


#: Address of a picture -> its file on this machine; None where there is none.
LocalFile = Callable[[str], Path | None]


def _nowhere(source: str) -> Path | None:
    return None


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of a data set.

    Attributes:
        formats: those to write, in any number.
        pictures: what becomes of the pictures.
        choice: the annotations that count.
        overlap: the rule by which overlaps are resolved.
        split: shares of the parts.
        least_cosine: cosine of features from which on two pictures are near-duplicates, which are
            kept in one part; None: only equal files are.
        with_predictions: whether untouched predictions count where a task has no annotation.
    """

    formats: tuple[Format, ...] = ("index-png",)
    pictures: Pictures = "copy"
    choice: AnnotationChoice = field(default_factory=AnnotationChoice)
    overlap: Overlap = "label-order"
    split: Split = field(default_factory=Split)
    least_cosine: float | None = None
    with_predictions: bool = False

    @property
    def needs_pictures(self) -> bool:
        """Whether the files of all pictures are read."""
        return (
            self.pictures != "none"
            or "parquet" in self.formats
            or len(self.split.shares) > 1
            or self.least_cosine is not None
        )

    @property
    def image_folder(self) -> str:
        """Folder of the pictures; hidden where only tables are made of them, empty without any."""
        if self.pictures != "none":
            return "images"
        return f"{_PARTS}/images" if "parquet" in self.formats else ""

    @property
    def mask_folder(self) -> str:
        """Folder of the label maps; hidden where only tables are made of them, empty without."""
        if "index-png" in self.formats:
            return "masks"
        return f"{_PARTS}/masks" if "parquet" in self.formats else ""


def formats() -> tuple[Format, ...]:
    """Return all formats."""
    return get_args(Format)


class Skipped(msgspec.Struct, frozen=True):
    """A task of which a picture is not in the data set, and why."""

    task: int
    reason: str


class DatasetReport(msgspec.Struct, frozen=True):
    """The result of a run.

    Attributes:
        pictures: number of pictures.
        parts: name of a part -> number of its pictures.
        regions: regions of all pictures.
        tasks: tasks that were read.
        unlabelled: tasks of which nothing counts.
        skipped: tasks that lack a picture in the data set.
    """

    pictures: int
    parts: Mapping[str, int]
    regions: int
    tasks: int
    unlabelled: int
    skipped: Sequence[Skipped]

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {part}" for part, count in self.parts.items())
        lines = [
            f"{quantity(self.pictures, 'picture')} ({parts}) with "
            f"{quantity(self.regions, 'region')}; "
            f"{quantity(self.tasks, 'task')} read, "
            f"{self.unlabelled} without an annotation that counts, "
            f"{len(self.skipped)} skipped."
        ]
        empty = [part for part, count in self.parts.items() if self.pictures and not count]
        if empty:
            lines.append(
                f"No picture is in {' and '.join(empty)}: parts are drawn at random, and few "
                "pictures may miss one. Annotate more, or give another split."
            )
        lines += [f"Task {each.task}: {each.reason}" for each in self.skipped[:_SHOWN]]
        if len(self.skipped) > _SHOWN:
            lines.append(f"… and {len(self.skipped) - _SHOWN} more, in report.json.")
        return "\n".join(lines)


class DatasetExporter:
    """Writes a data set into a folder.

    Args:
        folder: the folder: a new or empty one, or one of the same project, which is replaced.
        labels: the controls and classes of the project.
        options: what is written.
        read_file: reads the file of a picture.
        max_megapixels: limit of a picture's size, in millions of pixels.
        max_mb: limit of the data set's size, in MiB; None: as much as the disk holds.
        describer: computes the features of pictures; None: only equal files are kept together.
        local_file: finds the file to link to.

    Raises:
        DatasetError: a library that a format needs is not installed.
    """

    def __init__(
        self,
        folder: Path,
        labels: ProjectLabels,
        options: DatasetOptions,
        read_file: ReadFile,
        *,
        max_megapixels: float,
        max_mb: int | None = None,
        describer: Describer | None = None,
        local_file: LocalFile = _nowhere,
    ) -> None:
        if "coco" in options.formats:
            coco.check_installed()
        if "parquet" in options.formats:
            parquet.check_installed()
        self._folder = folder
        self._max_mb = max_mb
        self._parts = _ExportParts(
            labels,
            options,
            TaskImageReader(
                labels,
                options.choice,
                with_predictions=options.with_predictions,
                overlap=options.overlap,
                max_megapixels=max_megapixels,
            ),
            max_megapixels,
            describer,
            local_file,
        )
        self._loader = TaskLoader(self._parts.reader, read_file, options.needs_pictures)

    def run(
        self,
        source: TaskSource,
        stopping: threading.Event,
        watch: Callable[[int], None] = lambda _: None,
    ) -> DatasetReport | None:
        """Write the data set; until all of it is there, the folder stays as it is.

        Args:
            source: lists and reads tasks.
            stopping: once it is set, no further task is read.
            watch: called with the number of tasks so far.

        Returns:
            The report; None where it was stopped.

        Raises:
            DatasetError: the folder is in use for something else, or cannot be written.
            StudioRefused: the token may not read the project.
            StudioUnreachable: Label Studio does not answer.
        """
        try:
            with OutputFolder(self._folder, source.name, self._max_mb) as output:
                export = _Export(self._parts, output, source.name)
                with closing(self._loader.load(source.references())) as loading:
                    for number, loaded in enumerate(loading, 1):
                        if stopping.is_set():
                            return None
                        export.add(loaded)
                        watch(number)
                return export.finish()
        except OSError as error:
            raise DatasetError(f"{self._folder} cannot be written: {error}.") from None


@dataclass(frozen=True)
class _ExportParts:
    labels: ProjectLabels
    options: DatasetOptions
    reader: TaskImageReader
    max_megapixels: float
    describer: Describer | None
    local_file: LocalFile


class _Export:
    """One run: adds task after task, and writes the files of all pictures at the end.

    What is known of a picture waits on the disk, so that the memory stays flat.
    """

    def __init__(self, parts: _ExportParts, output: OutputFolder, source: str) -> None:
        self._of = parts
        self._output = output
        self._source = source
        self._names: set[str] = set()
        self._digests: list[str] = []
        self._skipped: list[Skipped] = []
        self._tasks = self._unlabelled = self._regions = 0
        (output.path / _PARTS).mkdir()
        self._rows = (output.path / _PARTS / "rows").open("wb")
        self._features = (output.path / _PARTS / "features").open("wb")

    def add(self, loaded: LoadedTask) -> None:
        """Write the own files of a task's pictures; skip those that cannot be, with the reason."""
        problems = [loaded.problem] if loaded.problem else []
        written = 0
        for each in loaded.images:
            try:
                if each.problem:
                    raise DatasetError(each.problem)
                self._write_picture(each)
                written += 1
            except (DatasetError, TaskError) as error:
                place = f"{each.image.tag} {each.image.item_index}: "
                problems.append(f"{place if len(loaded.images) > 1 else ''}{error}")
        self._tasks += 1
        self._unlabelled += not (problems or written)
        if problems:
            self._skipped.append(Skipped(loaded.reference.id, " ".join(problems)))

    def finish(self) -> DatasetReport:
        """Write the files that are of all pictures, and the report."""
        self._rows.close()
        self._features.close()
        split = self._of.options.split
        cosine = self._of.options.least_cosine or 1.0
        parts = assign(split, self._digests, self._read_features(), cosine)
        counts = Counter(parts)
        report = DatasetReport(
            pictures=len(parts),
            parts={name: counts[name] for name in split.names},
            regions=self._regions,
            tasks=self._tasks,
            unlabelled=self._unlabelled,
            skipped=self._skipped,
        )
        self._write_shared_files(parts)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        self._output.write("report.json", text + b"\n")
        self._output.finish(without=_PARTS)
        return report

    def _write_picture(self, loaded: LoadedImage) -> None:
        image, options = loaded.image, self._of.options
        task = int(image.task.id or 0)
        wanted, suffix = name_of(image.source, f"task-{task}")
        file = None
        if loaded.content is not None:
            file = read_picture_file(loaded.content, self._of.max_megapixels, suffix)
        size_hw = file.size_hw if file is not None else image.drawn_size_hw
        assert size_hw is not None, "a picture without a region is read"
        suffix = file.suffix if file is not None else suffix or ".png"
        name = self._free_name(wanted, task)
        labelled = self._of.reader.label(image, name, suffix, size_hw)
        contents, annotations = self._contents(labelled)
        if file is not None and options.image_folder:
            self._write_image(image, file, f"{options.image_folder}/{labelled.file_name}")
        for path, content in contents.items():
            self._output.write(path, content)
        if self._of.describer is not None and file is not None:
            self._features.write(self._of.describer.describe(file.rgb))
        row = PictureRow(
            task=task,
            name=name,
            suffix=suffix,
            size_hw=size_hw,
            digest=file.digest if file is not None else _digest(image.source),
            source="data:" if image.source[:5].lower() == "data:" else plain_text(image.source),
            regions=_told(labelled),
            coco=annotations,
        )
        self._rows.write(msgspec.json.encode(row) + b"\n")
        self._digests.append(row.digest)
        self._names.add(folded(name))
        self._regions += len(row.regions)

    def _free_name(self, wanted: str, task: int) -> str:
        """Choose a name that no other picture has, whatever the case of its letters."""
        candidate, number = wanted, 1
        while folded(candidate) in self._names:
            candidate = f"{wanted}-task{task}" + (f"-{number}" if number > 1 else "")
            number += 1
        return candidate

    def _contents(
        self, labelled: LabelledImage
    ) -> tuple[dict[str, bytes], list[dict[str, object]]]:
        """Return the own files of a picture, path -> bytes, and its annotations for COCO."""
        options, classes = self._of.options, self._of.labels.classes
        owners = labelled.owners(classes, options.overlap)
        contents: dict[str, bytes] = {}
        if options.mask_folder:
            label_map = labelled.label_map_of(owners, classes)
            path = f"{options.mask_folder}/{labelled.name}.png"
            contents[path] = index_png.encode_label_map(label_map, classes)
        if "yolo" in options.formats:
            lines = yolo.yolo_lines(labelled, owners, classes)
            contents[f"{yolo.FOLDER}/{labelled.name}.txt"] = lines.encode()
        annotations = []
        if "coco" in options.formats:
            annotations = coco.coco_annotations(labelled, owners, classes)
        return contents, annotations

    def _write_image(self, image: TaskImage, file: PictureFile, path: str) -> None:
        if self._of.options.pictures != "link" or not file.is_original:
            self._output.write(path, file.content)
            return
        target = self._of.local_file(image.source)
        if target is None:
            raise DatasetError(
                "Its picture is no file of this machine to link to: name --picture-folder, or "
                "copy the pictures."
            )
        self._output.link(path, target)

    def _read_features(self) -> Features | None:
        path = self._output.path / _PARTS / "features"
        if self._of.describer is None or not self._digests:
            return None
        return np.memmap(path, np.float16, "r").reshape(len(self._digests), -1)

    def _pictures(self, parts: Sequence[str], wanted: str | None = None) -> Iterator[PictureRow]:
        """Iterate over the pictures of a part, or over all."""
        with (self._output.path / _PARTS / "rows").open("rb") as rows:
            for line, part in zip(rows, parts, strict=True):
                if wanted in (None, part):
                    yield msgspec.json.decode(line, type=PictureRow)

    def _write_shared_files(self, parts: Sequence[str]) -> None:
        options, classes, output = self._of.options, self._of.labels.classes, self._output
        names = options.split.names
        with output.open(PICTURES_FILE) as stream:
            for row, part in zip(self._pictures(parts), parts, strict=True):
                stream.write(_picture_line(row, part))
        index_png.write_classes(output, classes, options.overlap)
        for part in names:
            pictures = partial(self._pictures, parts, part)
            if "index-png" in options.formats:
                index_png.write_list(output, part, (row.name for row in pictures()))
            if "coco" in options.formats:
                info = {"description": self._source, "annotations": str(options.choice)}
                coco.write_coco(output, part, pictures, classes, options.overlap, info)
            if "yolo" in options.formats:
                files = (row.file_name for row in pictures())
                yolo.write_list(output, part, files, options.image_folder or "images")
            if "parquet" in options.formats:
                folders = output.path / options.image_folder, output.path / options.mask_folder
                parquet.write_tables(output, part, pictures, folders, classes)
        if "yolo" in options.formats:
            yolo.write_data_file(output, names, classes, options.overlap)
        if "parquet" in options.formats:
            parquet.write_card(output, names, classes, options.overlap, self._source)


def _picture_line(row: PictureRow, part: str) -> bytes:
    """Return the line of a picture in `PICTURES_FILE`: its part, task and address, its regions."""
    told: dict[str, Any] = {
        "image": row.file_name,
        "part": part,
        "task": row.task,
        "source": row.source,
        "height": row.size_hw[0],
        "width": row.size_hw[1],
        "digest": row.digest,
        "regions": row.regions,
    }
    return f"{json.dumps(told, ensure_ascii=False)}\n".encode()


def _told(labelled: LabelledImage) -> list[dict[str, Any]]:
    return [
        {
            "label": region.label,
            **({} if region.score is None else {"score": region.score}),
            **region.provenance.to_json(),
        }
        for region in labelled.regions
    ]


def _digest(source: str) -> str:
    return hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=16).hexdigest()
