"""Write a data set: the own files of each picture first, then those that are of all pictures."""

from __future__ import annotations

import json
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from backend.dataset.formats import coco, parquet, yolo
from backend.dataset.labelled_image import (
    NO_CLASS,
    LabelledImage,
    LabelledObject,
    LabelledRegion,
    Overlap,
    PictureRow,
)
from backend.dataset.output_folder import PICTURES_FILE, OutputFolder
from backend.dataset.picture_file import (
    LocalPictures,
    PictureFile,
    digest_of,
    folded,
    name_of,
    read_picture_file,
)
from backend.dataset.splits import Features, Split, SplitKey, assign
from backend.dataset.task_images import (
    AnnotatedImage,
    LoadedTask,
    ProjectLabels,
    RegionReader,
    TaskLoader,
    plain_text,
)
from backend.dataset.tasks import TaskReference
from backend.errors import BadRequest, DatasetError, TaskError
from backend.label_studio.annotations import AnnotationChoice
from clearclip_core import RGBArray
from clearclip_core.quantities import quantity

Format = Literal["index-png", "coco", "yolo", "yolo-boxes", "parquet"]

#: What becomes of the pictures themselves: copied, linked to files of this machine, or only named.
Pictures = Literal["copy", "link", "none"]

#: Libraries that formats need, which are in the extra ``dataset``.
_LIBRARIES: Final = {"coco": "pycocotools", "parquet": "pyarrow"}

#: Folder of what is removed at the end: what is known of each picture, a line a picture; features;
#: and what only tables are made of.
_PARTS: Final = ".parts"
_ROWS: Final = f"{_PARTS}/rows"
_FEATURES: Final = f"{_PARTS}/features"

_REPORT_FILE: Final = "report.json"

_SHOWN: Final = 10  # reasons on a terminal; the file has all

#: Returns features (D,) float16 of unit length, as bytes, by which near-duplicates are found.
Describe = Callable[[RGBArray], bytes]


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of a data set.

    Attributes:
        background: class of unpainted pixels in label maps; empty: they have none.
        by_label: whether all regions of a label in a picture are one object.
        min_area_px: islands of fewer pixels are left out of YOLO's files.
        split_by: field of the tasks' data whose values are kept in one part; empty: none.
        least_cosine: of the features of near-duplicates, which are kept in one part; None: only
            equal files are.

    Raises:
        DatasetError: two formats need files of the same names.
    """

    formats: tuple[Format, ...] = ("index-png",)
    pictures: Pictures = "copy"
    choice: AnnotationChoice = field(default_factory=AnnotationChoice)
    overlap: Overlap = "label-order"
    background: str = ""
    by_label: bool = False
    min_area_px: int = 20
    split: Split = field(default_factory=Split)
    split_by: str = ""
    least_cosine: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if {"yolo", "yolo-boxes"} <= set(self.formats):
            raise DatasetError(
                "The formats yolo and yolo-boxes have files of the same names: write each into a "
                "folder of its own."
            )

    @property
    def is_yolo(self) -> bool:
        return not {"yolo", "yolo-boxes"}.isdisjoint(self.formats)

    @property
    def splitting(self) -> str:
        """Text of all that decides the parts, but the pictures."""
        return f"{self.split} {self.split_by} {self.least_cosine or ''}".strip()

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
        """Folder of the pictures; hidden where only tables are made of them, empty without."""
        if self.pictures != "none":
            return "images"
        return f"{_PARTS}/images" if "parquet" in self.formats else ""

    @property
    def mask_folder(self) -> str:
        if "index-png" in self.formats:
            return "masks"
        return f"{_PARTS}/masks" if "parquet" in self.formats else ""


class Skipped(msgspec.Struct, frozen=True):
    """A task that lacks a picture in the data set, and why."""

    task: int
    reason: str


class ClassCount(msgspec.Struct, frozen=True):
    """Pictures of a part that have a class, and its objects in them."""

    pictures: int = 0
    objects: int = 0


class DatasetReport(msgspec.Struct):
    """The result of a run.

    Attributes:
        parts: name of a part -> number of its pictures.
        splitting: see `DatasetOptions.splitting`.
        classes: name of a class -> part -> counts.
        tasks: number of tasks that were read; of `unlabelled` ones nothing counts.
        notes: sentences about what is otherwise than one might think.
    """

    pictures: int = 0
    parts: dict[str, int] = {}
    splitting: str = ""
    regions: int = 0
    classes: dict[str, dict[str, ClassCount]] = {}
    tasks: int = 0
    unlabelled: int = 0
    notes: list[str] = []
    skipped: list[Skipped] = []

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {part}" for part, count in self.parts.items())
        lines = [
            f"{quantity(self.pictures, 'picture')} ({parts}) with "
            f"{quantity(self.regions, 'region')}; {quantity(self.tasks, 'task')} read, "
            f"{self.unlabelled} without an annotation that counts, {len(self.skipped)} skipped."
        ]
        for name, counts in self.classes.items():
            told = (
                f"{part} {quantity(n.objects, 'object')} in {quantity(n.pictures, 'picture')}"
                for part, n in counts.items()
            )
            if any(count.objects for count in counts.values()):
                lines.append(f"  {name}: {', '.join(told)}")
        lines += self.notes
        lines += [f"Task {each.task}: {each.reason}" for each in self.skipped[:_SHOWN]]
        if len(self.skipped) > _SHOWN:
            lines.append(f"… and {len(self.skipped) - _SHOWN} more, in report.json.")
        return "\n".join(lines)


@dataclass
class _Counts:
    """Counts of what the notes of a report are about."""

    covered: int = 0  # label maps
    covered_px: int = 0
    mostly_unpainted: int = 0  # label maps
    islands: int = 0
    converted: int = 0  # pictures
    unknown: Counter[str] = field(default_factory=Counter)  # regions of labels
    lost: Counter[str] = field(default_factory=Counter)  # regions of controls

    def notes(self, pictures: int, options: DatasetOptions) -> Iterator[str]:
        if self.covered:
            yield (
                f"In {quantity(self.covered, 'label map')} regions cover others: "
                f"{quantity(self.covered_px, 'pixel')} of theirs have another class (--overlap "
                "says whose)."
            )
        if 2 * self.mostly_unpainted > pictures and not options.background:
            yield (
                f"More than half of the pixels are unpainted in {self.mostly_unpainted} of "
                f"{quantity(pictures, 'picture')}, and trainers ignore them (255). If they are "
                "the ground that your classes stand on, make them a class: --background other, or "
                '"Class of unpainted pixels" on the page.'
            )
        if self.islands:
            yield (
                f"{quantity(self.islands, 'island')} below {options.min_area_px} px left out of "
                "YOLO's files (--min-area)."
            )
        if self.converted:
            yield (
                f"{quantity(self.converted, 'picture')} written as PNG, since trainers read the "
                "original otherwise or not at all."
            )
        for label, count in self.unknown.most_common():
            yield (
                f'{quantity(count, "region")} of the label "{label[:100]}", which the labeling '
                "config lacks: their pictures are skipped. Say what it is now with --map or under "
                f'"Renamed labels" on the page, as "{label[:100]}=LABEL", or "{label[:100]}=" to '
                "leave them out; or write it as the alias of a label."
            )
        for control, count in self.lost.most_common():
            yield (
                f'{quantity(count, "region")} made with the control "{control[:100]}", which the '
                "labeling config lacks: they are left out."
            )


@dataclass(eq=False)
class DatasetExporter:
    """Writes a data set into a folder, once.

    What is known of a picture waits on the disk, so that the memory stays flat.

    Attributes:
        folder: a new or empty one, or one of the same project, which is replaced.
        max_mb: limit of the data set's size, in MiB; None: as much as the disk holds.
        describe: computes the features of pictures; None: only equal files are kept together.
        known: digest of a picture's file -> the part that it stays in; None: as in the folder.

    Raises:
        DatasetError: a library that a format needs is not installed.
    """

    folder: Path
    labels: ProjectLabels
    options: DatasetOptions
    pictures: LocalPictures
    _: KW_ONLY
    max_megapixels: float
    max_mb: int | None = None
    describe: Describe | None = None
    known: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        options = self.options
        for format_ in options.formats:
            if (library := _LIBRARIES.get(format_)) and find_spec(library) is None:
                raise DatasetError(
                    f"The format {format_} needs {library}, which is not installed here: "
                    "pip install 'clearclip-label-studio[dataset]'."
                )
        if options.background:
            classes = self.labels.classes.with_background(options.background)
            self.labels = replace(self.labels, classes=classes)
        self._classes = self.labels.classes
        self._reader = RegionReader(self.labels, options.choice, options.overlap)
        self._names: set[str] = set()
        self._keys: list[SplitKey] = []
        self._counts = _Counts()
        self._report = DatasetReport(splitting=options.splitting)

    def run(
        self,
        source: str,
        tasks: Iterable[TaskReference],
        stopping: threading.Event,
        watch: Callable[[int], None] = lambda _: None,
    ) -> DatasetReport | None:
        """Write the data set; until all of it is there, the folder stays as it is.

        Args:
            source: name of what the tasks are of, such as the address of a project.
            watch: is told the number of tasks so far.

        Returns:
            The report; None where `stopping` was set.

        Raises:
            DatasetError: the folder is in use for something else, or cannot be written.
        """
        loader = TaskLoader(self._reader, self.pictures.read, self.options.needs_pictures)
        try:
            with OutputFolder(self.folder, source, self.max_mb) as self._output:
                if self.known is None:
                    self.known = read_parts(self._output.target, self.options.splitting)
                with (
                    self._output.place(_ROWS).open("wb") as self._rows,
                    self._output.place(_FEATURES).open("wb") as self._features,
                    closing(loader.load(tasks)) as loading,
                ):
                    for number, loaded in enumerate(loading, 1):
                        if stopping.is_set():
                            return None
                        self._add(loaded)
                        watch(number)
                return self._finish(source)
        except OSError as error:
            raise DatasetError(f"{self.folder} cannot be written: {error}.") from None

    def _add(self, loaded: LoadedTask) -> None:
        """Write the own files of a task's pictures; skip those that cannot be, with the reason."""
        problems = [loaded.problem] if loaded.problem else []
        self._counts.lost.update(loaded.lost_controls)
        for each in loaded.images:
            try:
                self._write_picture(each)
            except (BadRequest, DatasetError, TaskError) as error:
                for area, _ in chain.from_iterable(each.versions):
                    self._counts.unknown.update(self.labels.unknown_labels(area))
                place = f"{each.tag} {each.item_index}: " if len(loaded.images) > 1 else ""
                problems.append(f"{place}{error}")
        self._report.tasks += 1
        self._report.unlabelled += not (problems or loaded.images)
        if problems:
            self._report.skipped.append(Skipped(loaded.id, " ".join(problems)))

    def _finish(self, source: str) -> DatasetReport:
        """Write the files that are of all pictures, and the report."""
        options, report = self.options, self._report
        cosine = options.least_cosine or 1.0
        parts, divided = assign(options.split, self._keys, self._read_features(), cosine)
        report.parts = {name: parts.count(name) for name in options.split.names}
        report.classes = self._count_classes(parts)
        report.notes = list(self._counts.notes(len(parts), options))
        empty = [name for name, count in report.parts.items() if parts and not count]
        if empty:
            report.notes.append(
                f"No picture is in {' and '.join(empty)}: parts are drawn at random, and few "
                "pictures may miss one. Annotate more, or give another split."
            )
        if divided:
            report.notes.append(
                f"{quantity(divided, 'group')} of pictures that belong together are in several "
                "parts, since a new picture joins some that are there already."
            )
        if not options.dry_run:
            self._write_shared_files(parts, source)
            text = msgspec.json.format(msgspec.json.encode(report), indent=2)
            self._output.write(_REPORT_FILE, text + b"\n")
            self._output.finish(without=_PARTS)
        return report

    def _write_picture(self, image: AnnotatedImage) -> None:
        if image.problem:
            raise DatasetError(image.problem)
        options, task = self.options, int(image.task.id or 0)
        wanted, suffix = name_of(image.source, f"task-{task}")
        value = self._value_of(image)
        file = None
        if image.content is not None:
            file = read_picture_file(image.content, self.max_megapixels, suffix)
            suffix = file.suffix
        size_hw = file.size_hw if file is not None else image.drawn_size_hw
        assert size_hw is not None, "a picture without a region is read"
        name = self._free_name(wanted, task)
        labelled = self._reader.label(image, size_hw)
        things = labelled.objects(options.by_label)
        contents, annotations = self._contents(name, labelled, things)
        row = PictureRow(
            task=task,
            key=image.key,
            name=name,
            suffix=suffix or ".png",
            size_hw=size_hw,
            digest=file.digest
            if file is not None
            else digest_of(image.source.encode("utf-8", "replace")),
            source="data:" if image.source[:5].lower() == "data:" else plain_text(image.source),
            regions=[_told(region) for region in labelled.regions],
            objects=Counter(thing.label for thing in things),
            coco=annotations,
        )
        if not options.dry_run:
            if file is not None and options.image_folder:
                self._write_image(image, file, f"{options.image_folder}/{row.file_name}")
            for path, content in contents.items():
                self._output.write(path, content)
        if self.describe is not None and file is not None:
            self._features.write(self.describe(file.rgb))
        self._rows.write(msgspec.json.encode(row) + b"\n")
        known = (self.known or {}).get(row.digest, "")
        self._keys.append(SplitKey(row.digest, value, (image.created, task), known))
        self._names.add(folded(name))
        self._report.pictures += 1
        self._report.regions += len(row.regions)

    def _value_of(self, image: AnnotatedImage) -> str:
        """Return the value of the field that divides pictures into parts; empty without one."""
        name = self.options.split_by
        value = image.task.data.get(name) if name else ""
        if name and (not isinstance(value, str | int | float) or not str(value).strip()):
            raise DatasetError(f'Its data has no "{name}", by which the parts are divided.')
        return str(value)

    def _free_name(self, wanted: str, task: int) -> str:
        """Choose a name that no other picture has, whatever the case of its letters."""
        candidate, number = wanted, 1
        while folded(candidate) in self._names:
            candidate = f"{wanted}-task{task}" + (f"-{number}" if number > 1 else "")
            number += 1
        return candidate

    def _contents(
        self, name: str, labelled: LabelledImage, things: Sequence[LabelledObject]
    ) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
        """Return the own files of a picture, path -> bytes, and its annotations for COCO."""
        options = self.options
        contents: dict[str, bytes] = {}
        if options.mask_folder:
            label_map = self._label_map(labelled)
            contents[f"{options.mask_folder}/{name}.png"] = self._classes.to_png(label_map)
        annotations, lines = [], []
        line = yolo.polygon_line if "yolo" in options.formats else yolo.box_line
        for thing in things if options.is_yolo or "coco" in options.formats else ():
            mask, index = thing.mask(), self._classes.names.index(thing.label)
            if not mask.any():
                continue
            if "coco" in options.formats:
                annotations.append(coco.coco_annotation(thing, mask, index + 1))
            if options.is_yolo:
                mask, left_out = yolo.without_small_islands(mask, options.min_area_px)
                self._counts.islands += left_out
                if mask.any():
                    lines.append(line(index, mask))
        if options.is_yolo:
            contents[f"{yolo.LABELS_FOLDER}/{name}.txt"] = "".join(lines).encode()
        return contents, annotations

    def _label_map(self, labelled: LabelledImage) -> npt.NDArray[np.uint8]:
        """Return the label map of a picture, its background included; count what it lacks."""
        counts = self._counts
        label_map, covered_px = labelled.label_map(self._classes, self.options.overlap)
        unpainted = label_map == NO_CLASS
        counts.covered += covered_px > 0
        counts.covered_px += covered_px
        counts.mostly_unpainted += 2 * int(np.count_nonzero(unpainted)) > label_map.size
        if self.options.background:
            if labelled.undecided is not None:
                unpainted &= ~labelled.undecided
            label_map[unpainted] = 0
        return label_map

    def _count_classes(self, parts: Sequence[str]) -> dict[str, dict[str, ClassCount]]:
        pictures, objects = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for row, part in zip(self._pictures(parts), parts, strict=True):
            for label, count in row.objects.items():
                pictures[label, part] += 1
                objects[label, part] += count
        names = self.options.split.names
        return {
            label: {part: ClassCount(pictures[label, part], objects[label, part]) for part in names}
            for label in self._classes.names
        }

    def _write_image(self, image: AnnotatedImage, file: PictureFile, path: str) -> None:
        self._counts.converted += not file.is_original
        if self.options.pictures != "link" or not file.is_original:
            self._output.write(path, file.content)
            return
        target = self.pictures.find(image.source)
        if target is None:
            raise DatasetError(
                "Its picture is no file of this machine to link to: name --picture-folder, or "
                "copy the pictures."
            )
        self._output.place(path).symlink_to(target)

    def _read_features(self) -> Features | None:
        if self.describe is None or not self._keys:
            return None
        path = self._output.place(_FEATURES)
        return np.memmap(path, np.float16, "r").reshape(len(self._keys), -1)

    def _pictures(self, parts: Sequence[str], wanted: str = "") -> Iterator[PictureRow]:
        """Iterate over the pictures of a part, or over all."""
        with self._output.place(_ROWS).open("rb") as rows:
            for line, part in zip(rows, parts, strict=True):
                if wanted in ("", part):
                    yield msgspec.json.decode(line, type=PictureRow)

    def _write_shared_files(self, parts: Sequence[str], source: str) -> None:
        options, classes, output = self.options, self._classes, self._output
        with output.place(PICTURES_FILE).open("wb") as stream:
            stream.writelines(map(_picture_line, self._pictures(parts), parts))
        told_classes = json.dumps(classes.to_json(options.overlap), ensure_ascii=False, indent=2)
        output.write("classes.json", f"{told_classes}\n".encode())
        for part in options.split.names:
            pictures = partial(self._pictures, parts, part)
            if "index-png" in options.formats:
                names = "".join(f"{row.name}\n" for row in pictures())
                output.write(f"splits/{part}.txt", names.encode())
            if "coco" in options.formats:
                info = {"description": source, "annotations": str(options.choice)}
                coco.write_coco(output, part, pictures, classes, info)
            if options.is_yolo:
                folder = options.image_folder or "images"
                files = "".join(f"./{folder}/{row.file_name}\n" for row in pictures())
                output.write(f"{part}.txt", files.encode())
            if "parquet" in options.formats:
                folders = output.path / options.image_folder, output.path / options.mask_folder
                parquet.write_tables(output, part, pictures(), folders, classes)
        if options.is_yolo:
            yolo.write_data_file(output, options.split.names, classes)
        if "parquet" in options.formats:
            parquet.write_card(output, options.split.names, classes, options.overlap, source)


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


def _told(region: LabelledRegion) -> dict[str, Any]:
    score = {} if region.score is None else {"score": region.score}
    return {"label": region.label, **score, **msgspec.structs.asdict(region.provenance)}


class _PartOfPicture(msgspec.Struct):
    digest: str
    part: str


def read_parts(data_set: Path | zipfile.Path, splitting: str) -> dict[str, str]:
    """Read in which parts an earlier run has put pictures: digest -> part.

    None, where there is no earlier data set or where it was divided otherwise.
    """
    try:
        report = msgspec.json.decode((data_set / _REPORT_FILE).read_bytes(), type=DatasetReport)
        if report.splitting != splitting:
            return {}
        with (data_set / PICTURES_FILE).open("rb") as lines:
            rows = (msgspec.json.decode(line, type=_PartOfPicture) for line in lines)
            return {row.digest: row.part for row in rows if row.part in report.parts}
    except (OSError, zipfile.BadZipFile, msgspec.MsgspecError):
        return {}
