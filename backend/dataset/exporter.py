"""Write a data set: the own files of each picture first, then those that are of all pictures."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backend.annotations.annotated_image import AnnotatedImage
from backend.annotations.label_map import MapRule
from backend.annotations.regions import LabelledRegion
from backend.dataset.dataset_options import DatasetOptions
from backend.dataset.dataset_report import (
    AlikeImage,
    AlikePair,
    ClassCount,
    DatasetReport,
    EarlierSet,
    SetCounts,
    SetScorer,
    Skipped,
)
from backend.dataset.formats.format_writer import (
    ClassTable,
    FormatWriter,
    ImageRow,
    LabelledImage,
    LabelledObject,
    SetFrame,
    WrittenImage,
)
from backend.dataset.formats.writers import WRITERS, find_writers
from backend.dataset.image_file import (
    ImageFile,
    LocalImages,
    digest_of,
    folded,
    names_of,
    read_image_file,
)
from backend.dataset.output_folder import IMAGES_FILE, PARTS, REPORT_FILE, OutputFolder
from backend.dataset.splits import (
    LIKENESS,
    Division,
    SplitKey,
    Thumbnails,
    Twin,
    assign,
    describe_image,
    find_twins,
)
from backend.dataset.tasks import (
    ClassNames,
    LoadedImage,
    LoadedTask,
    TaskLoader,
    TaskSource,
    plain_text,
)
from backend.errors import BadRequest, DatasetError, TaskError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.requests import Task
from clearclip_core.quantities import quantity

_ROWS: Final = f"{PARTS}/rows"  # what is known of each picture, a line a picture
_THUMBNAILS: Final = f"{PARTS}/thumbnails"  # of each picture
_PAIRS: Final = 6  # of pictures that are nearly the same, which the report names
_DECODER: Final = msgspec.json.Decoder(ImageRow)

#: A writer of the data set, and what it says of the objects of a picture.
_Entries = tuple[FormatWriter, list[Any]]


@dataclass(frozen=True)
class SeenImage:
    """A picture of a data set that was read."""

    name: str  # of its file
    task: int
    tag: str  # name of its tag in the labeling config
    digest: str
    file: ImageFile = field(repr=False)
    labelled: LabelledImage = field(repr=False)


@dataclass(eq=False)
class DatasetExporter:
    """Writes a data set into a folder, once; what is known of its pictures waits on the disk."""

    folder: Path  # a new or empty one, or one of the same project, which is replaced
    config: LabelConfig
    options: DatasetOptions
    images: LocalImages
    _: KW_ONLY
    max_megapixels: float
    max_mb: int | None = None  # limit of the data set's size, in MiB; None: the disk's
    scorer: SetScorer | None = None
    earlier: EarlierSet | None = None  # what is known of earlier sets; None: what is in the folder
    look: Callable[[SeenImage], None] | None = None  # is shown each picture that was read

    def __post_init__(self) -> None:
        options = self.options
        self._formats = find_writers(options.formats)
        classes = ClassTable(self.config.names)
        self._classes = (
            classes.with_background(options.background) if options.background else classes
        )
        self._names = ClassNames(self.config, self._classes, options.renamed)
        self._tasks = TaskLoader(
            self._names,
            options.choice,
            MapRule(options.overlap, options.fills_rectangles, self._classes.names),
            self.images.read,
            self._needs_images,
        )

        self._taken: set[str] = set()
        self._keys: list[SplitKey] = []
        self._counts = SetCounts()
        self._report = DatasetReport(splitting=options.splitting, made=round(time.time(), 3))

    @property
    def _needs_images(self) -> bool:
        return self.options.pictures != "none" or self._reads_images

    @property
    def _compares(self) -> bool:
        """Whether pictures are compared with each other."""
        return len(self.options.split.shares) > 1 or self.options.least_correlation is not None

    @property
    def _reads_images(self) -> bool:
        """Whether pictures are needed for more than to be copied."""
        return (
            self._compares
            or self.scorer is not None
            or any(each.has_images for each in self._formats)
        )

    def run(
        self,
        source: TaskSource,
        stopping: threading.Event,
        watch: Callable[[int], None] = lambda _: None,
    ) -> DatasetReport | None:
        """Write the data set of a source; None once `stopping`.

        Until all of it is there, the folder stays as it is.
        """
        try:
            ours = frozenset[str]().union(*(each.files for each in WRITERS.all()))
            with OutputFolder(self.folder, source.name, self.max_mb, ours=ours) as self._output:
                frame = SetFrame(self._output, self._classes, source.name, self.options)
                self._writers = [each(frame) for each in self._formats]
                if self.earlier is None:
                    self.earlier = EarlierSet.read([self._output.target], self.options.splitting)
                if self.options.resplit:
                    self.earlier = replace(self.earlier, parts={})

                with (
                    self._output.place(_ROWS).open("wb") as self._rows,
                    self._output.place(_THUMBNAILS).open("wb") as self._thumbnails,
                    closing(self._tasks.load(source.references())) as loading,
                ):
                    for number, loaded in enumerate(loading, 1):
                        if stopping.is_set():
                            return None
                        self._add(loaded)
                        watch(number)

                self._report.tasks += source.unread
                self._report.unlabelled += source.unread
                return self._finish()
        except OSError as error:
            raise DatasetError(f"{self.folder} cannot be written: {error}.") from None

    def _add(self, loaded: LoadedTask) -> None:
        problems = [loaded.problem] if loaded.problem else []
        self._counts.lost.update(loaded.lost_controls)
        for each in loaded.images:
            self._counts.missing += each.is_missing
            try:
                self._write_image(each, loaded.created)
            except (BadRequest, DatasetError, TaskError) as error:
                image = each.image
                self._counts.unknown.update(filter(None, self._names.unknown_labels(image)))
                place = f"{image.tag.name} {image.item_index or 0}: "
                problems.append(f"{place if len(loaded.images) > 1 else ''}{error}")
        self._report.tasks += 1
        self._report.unlabelled += not (problems or loaded.images)
        if problems:
            self._report.skipped.append(Skipped(loaded.id, " ".join(problems)))

    def _finish(self) -> DatasetReport:
        """Divide the pictures, write what is of all of them, and return the report."""
        options, report = self.options, self._report
        assert self.earlier is not None, "run has read it"
        thumbnails = self._read_thumbnails()
        grouped_by = None if options.least_correlation is None else thumbnails
        division = assign(options.split, self._keys, grouped_by, options.least_correlation or 1.0)
        parts = division.parts
        self._report_parts(parts, self.earlier)

        report.notes = [
            *self._counts.notes(len(parts), options.names, has_background=bool(options.background)),
            *self._missing_notes(),
            *chain.from_iterable(each.notes() for each in self._writers),
        ]
        self._check_not_lost(self.earlier)
        report.notes += self._part_notes(division)
        twins = [] if thumbnails is None else find_twins(options.split.names, parts, thumbnails)
        report.alike = self._most_alike(parts, twins)
        report.notes += self._alike_notes(parts, twins)
        report.notes += self._moved_notes(parts, self.earlier)
        report.changes = self.earlier.changes(self._images(parts))
        report.score = None if self.scorer is None else self.scorer.score()

        if not options.dry_run:
            self._write_shared_files(parts)
            text = msgspec.json.format(msgspec.json.encode(report), indent=2)
            self._output.write(REPORT_FILE, text + b"\n")
            self._output.finish()
        return report

    def _report_parts(self, parts: Sequence[str], earlier: EarlierSet) -> None:
        split, report = self.options.split, self._report
        report.parts = {name: parts.count(name) for name in split.names}
        report.asked = dict(zip(split.names, split.shares, strict=True))
        report.classes = self._count_classes(parts)
        here = {key.digest for key in self._keys}
        report.absent = {each: p for each, p in earlier.parts.items() if each not in here}

    def _check_not_lost(self, earlier: EarlierSet) -> None:
        """Raise a `DatasetError` where an empty set would take the place of one with pictures."""
        report = self._report
        if not report.skipped or report.pictures or self.options.dry_run or not earlier.made:
            return
        one, tasks = report.skipped[0], quantity(len(report.skipped), "task")
        told = f"{tasks} skipped, no picture left: nothing is written, and earlier sets stay."
        raise DatasetError(" ".join((told, *report.notes, f"Task {one.task}: {one.reason}")))

    def _missing_notes(self) -> Iterator[str]:
        """Say how to do without pictures that are missing, where nothing but copies needs them."""
        if self._counts.missing and not self._reads_images:
            yield (
                f"{quantity(self._counts.missing, 'picture')} not found: "
                f"{self.options.names.missing_images}."
            )

    def _part_notes(self, division: Division) -> Iterator[str]:
        """Say how many pictures are kept together, and what that has cost the parts."""
        pictures = len(division.parts)
        if self.options.least_correlation is not None and pictures:
            yield division.describe_groups()

        empty = [name for name, count in self._report.parts.items() if pictures and not count]
        if empty:
            yield (
                f"No picture is in {' and '.join(empty)}: {quantity(pictures, 'picture')} in "
                f"{quantity(len(division.groups), 'group')} of those that belong together are too "
                "few for the parts. Annotate more, give another split, or a higher value of "
                f"{self.options.names.near_duplicates}."
            )

        if division.divided:
            yield (
                f"{quantity(division.divided, 'group')} of pictures that belong together are in "
                "several parts, since a new picture joins some that are there already."
            )

    def _alike_notes(self, parts: Sequence[str], twins: Sequence[Twin]) -> Iterator[str]:
        """Say how many pictures are nearly the same as one of a part before."""
        if not twins:
            return
        options = self.options
        counts = Counter(parts[twin.index] for twin in twins)
        told = " and ".join(f"{quantity(n, 'picture')} of {part}" for part, n in counts.items())
        is_kept = options.least_correlation is not None and options.least_correlation <= LIKENESS
        choice = options.names.near_duplicates
        cure = "" if is_kept else f" To keep them together, give {choice} the value {LIKENESS}."
        yield (
            f"Nearly the same as a picture of a part before: {told}. A model is tested there with "
            f"what it has learned from.{cure}"
        )

    def _most_alike(self, parts: Sequence[str], twins: Sequence[Twin]) -> list[AlikePair]:
        """Return the most alike pairs; a picture of a part before is in one of them."""
        first_of = {twin.other: twin for twin in reversed(twins)}
        shown = sorted(first_of.values(), key=lambda twin: -twin.correlation)[:_PAIRS]
        wanted = {index for twin in shown for index in (twin.index, twin.other)}
        images = {
            index: AlikeImage(row.image, row.task, row.part)
            for index, row in enumerate(self._images(parts) if shown else ())
            if index in wanted
        }
        return [
            AlikePair(round(twin.correlation, 3), (images[twin.other], images[twin.index]))
            for twin in shown
        ]

    def _moved_notes(self, parts: Sequence[str], earlier: EarlierSet) -> Iterator[str]:
        """Say how many pictures are in another part than before.

        Raises:
            DatasetError: they would leave their part, which nobody has asked for.
        """
        moved = earlier.moved((key.digest for key in self._keys), parts)
        if len(self.options.split.names) == 1 or not moved:
            return
        places = ", ".join(f"{count} out of {part}" for part, count in moved.items())
        told = f"{quantity(moved.total(), 'picture')} of {len(parts)}"
        if not (earlier.parts or self.options.resplit or self.options.dry_run):
            raise DatasetError(
                f"{told} would leave the part where the last set has put them ({places}): it was "
                f"divided by “{earlier.splitting}”. A model that has learned from one of them "
                f"would be tested with it. Divide as before, or {self.options.names.resplit}."
            )
        yield (
            f"{told} are in another part than in the last set, divided by “{earlier.splitting}” "
            f"({places}): do not test models of that set with this one."
        )

    def _write_image(self, loaded: LoadedImage, created: float) -> None:
        """Write the own files of a picture, and remember what is to be known of it at the end."""
        if loaded.problem:
            raise DatasetError(loaded.problem)
        image = loaded.image
        task = int(image.task.id or 0)
        wanted, suffix = names_of(image.source, f"task-{task}")
        value = self._value_of(image.task)
        file = None
        if loaded.content is not None:
            file = read_image_file(loaded.content, self.max_megapixels, suffix)
            suffix = file.suffix
        size_hw = file.size_hw if file is not None else image.size_hw
        assert size_hw is not None, "a picture without a region is read"

        name = self._free_name(wanted, task)
        labelled = self._tasks.label(image, size_hw)
        things = labelled.objects(self.options.by_label)
        entries = self._entries(things)
        written = WrittenImage(name, self._label_map(labelled), file)
        row = msgspec.structs.replace(
            _row(image, file, labelled, things),
            image=name + (suffix or ".png"),
            entries={w.name: some for w, some in entries if w.keeps_entries},
        )

        if not self.options.dry_run:
            self._write_files(image.source, row.image, written, entries)
        if file is not None:
            seen = SeenImage(row.image, task, image.tag.name, row.digest, file, labelled)
            self._look_at(seen, written)
        self._rows.write(msgspec.json.encode(row) + b"\n")
        known = self._known_part(row.digest)
        self._keys.append(SplitKey(row.digest, value, (created, task), known, row.objects))
        self._taken.add(folded(name))
        self._report.pictures += 1
        self._report.regions += len(row.regions)

    def _write_files(
        self, source: str, file_name: str, written: WrittenImage, entries: Sequence[_Entries]
    ) -> None:
        if written.file is not None:
            self._copy_image(source, written.file, file_name)
        for writer, some in entries:
            for path, content in writer.image_files(written, some).items():
                self._output.write(path, content)

    def _look_at(self, seen: SeenImage, written: WrittenImage) -> None:
        """Score a picture's label map, keep its thumbnail to compare it, and show it."""
        if self.scorer is not None and written.label_map is not None:
            names = self._classes.all_names
            self.scorer.add(seen.file.rgb, seen.tag, written.label_map, names)
        if self._compares:
            self._thumbnails.write(describe_image(seen.file.rgb))
        if self.look is not None:
            self.look(seen)

    def _value_of(self, task: Task) -> str:
        name = self.options.split_by
        value = task.data.get(name) if name else ""
        if name and (not isinstance(value, str | int | float) or not str(value).strip()):
            raise DatasetError(f'Its data has no "{name}", by which the parts are divided.')
        return str(value)

    def _free_name(self, wanted: Sequence[str], task: int) -> str:
        numbered = (f"{wanted[-1]}-task{task}{f'-{n}' if n > 1 else ''}" for n in count(1))
        return next(name for name in chain(wanted, numbered) if folded(name) not in self._taken)

    def _known_part(self, digest: str) -> str:
        """Return the part that a picture is in by an earlier set; empty without one."""
        return self.earlier.parts.get(digest, "") if self.earlier is not None else ""

    def _entries(self, things: Sequence[LabelledObject]) -> list[_Entries]:
        """Return what each writer says of the objects; each mask is drawn once, and let go."""
        found: list[_Entries] = [(writer, []) for writer in self._writers]
        asked = [(writer, entries) for writer, entries in found if writer.has_objects]
        for thing in things if asked else ():
            mask = thing.mask()
            if not mask.any():
                continue
            for writer, entries in asked:
                entry = writer.entry(thing, mask)
                if entry is not None:
                    entries.append(entry)
        return found

    def _label_map(self, labelled: LabelledImage) -> npt.NDArray[np.uint8] | None:
        """Return the label map of a picture, its background included; count what it lacks."""
        if self.scorer is None and not any(each.has_label_maps for each in self._writers):
            return None
        counts = self._counts
        drawn = labelled.draw()
        counts.covered += drawn.covered_px > 0
        counts.covered_px += drawn.covered_px
        if any(each.is_rectangle for each in labelled.regions):
            counts.framed += bool((drawn.regions > len(drawn.labels)).any())
        unpainted = int(np.count_nonzero(drawn.regions == 0))
        counts.mostly_unpainted += 2 * unpainted > drawn.regions.size
        return self._classes.values(drawn)

    def _count_classes(self, parts: Sequence[str]) -> dict[str, dict[str, ClassCount]]:
        images, objects = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for row in self._images(parts):
            images.update((name, where) for name in row.objects for where in (row.part, ""))
            objects.update({(name, row.part): count for name, count in row.objects.items()})

        def counted(name: str, part: str) -> ClassCount:
            share = images[name, part] / max(1, images[name, ""])
            return ClassCount(images[name, part], objects[name, part], round(100 * share))

        names, own = self._classes.names, self.options.split.names
        return {name: {part: counted(name, part) for part in own} for name in names}

    def _copy_image(self, source: str, file: ImageFile, name: str) -> None:
        if self.options.pictures == "none" and not any(w.has_images for w in self._writers):
            return
        path = f"{self.options.image_folder}/{name}"
        self._counts.converted += not file.is_original
        if self.options.pictures != "link" or not file.is_original:
            self._output.write(path, file.content)
            return
        target = self.images.find(source)
        if target is None:
            reason = "Its picture is no file of this machine to link to"
            raise DatasetError(f"{reason}: name --picture-folder, or copy the pictures.")
        self._output.place(path).symlink_to(target)

    def _read_thumbnails(self) -> Thumbnails | None:
        if not self._compares or not self._keys:
            return None
        path = self._output.place(_THUMBNAILS)
        return np.memmap(path, np.float16, "r").reshape(len(self._keys), -1)

    def _images(self, parts: Sequence[str], wanted: str = "") -> Iterator[ImageRow]:
        with self._output.place(_ROWS).open("rb") as rows:
            for line, part in zip(rows, parts, strict=True):
                if wanted in ("", part):
                    yield msgspec.structs.replace(_DECODER.decode(line), part=part)

    def _write_shared_files(self, parts: Sequence[str]) -> None:
        options, output = self.options, self._output
        with output.place(IMAGES_FILE).open("wb") as stream:
            for row in self._images(parts):
                told = msgspec.structs.replace(row, entries={})
                stream.write(msgspec.json.encode(told) + b"\n")
        text = json.dumps(self._classes.to_json(options.overlap), ensure_ascii=False, indent=2)
        output.write("classes.json", f"{text}\n".encode())
        for writer in self._writers:
            for part in options.split.names:
                writer.write_part(part, partial(self._images, parts, part))
            writer.finish()


def _row(
    image: AnnotatedImage,
    file: ImageFile | None,
    labelled: LabelledImage,
    things: Sequence[LabelledObject],
) -> ImageRow:
    """Return the line of a picture whose file has no name yet."""
    source = image.source
    is_picture_itself = source[:5].lower() == "data:"
    height, width = labelled.size_hw
    digest = file.digest if file else digest_of(source.encode("utf-8", "replace"))
    regions = [_told(region) for region in labelled.regions]
    objects = Counter(thing.label for thing in things)
    address = "data:" if is_picture_itself else plain_text(source)
    return ImageRow(
        image="",
        task=int(image.task.id or 0),
        source=address,
        height=height,
        width=width,
        key=image.key,
        digest=digest,
        annotated=_digest_of_regions(image),
        objects=objects,
        regions=regions,
    )


def _digest_of_regions(image: AnnotatedImage) -> str:
    areas = (region.area for region in chain.from_iterable(image.versions))
    drawn = [(area.kind, area.labels, area.parent, area.value) for area in areas]
    return digest_of(msgspec.json.encode(drawn))


def _told(region: LabelledRegion) -> dict[str, Any]:
    score = {} if region.score is None else {"score": region.score}
    return {"label": region.label, **score, **msgspec.structs.asdict(region.provenance)}
