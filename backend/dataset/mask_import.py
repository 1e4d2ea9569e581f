"""Import the masks of a data set into a project: check all of them first, then write."""

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from backend.annotations.regions import LabelledRegion
from backend.dataset.mask_source import MaskSource, check_mask_size
from backend.dataset.matching import (
    ClassMapping,
    Matched,
    Target,
    Unmatched,
    image_places,
    match_by_name,
)
from backend.dataset.tasks import READ_AHEAD, READERS
from backend.errors import DatasetError, TaskError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ImageReader
from backend.label_studio.region_writer import draw_regions
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import BoolMask, RunMask
from clearclip_core.quantities import quantity
from clearclip_core.thread_pools import read_ahead

ImportKind = Literal["predictions", "annotations"]

_LONGEST_VERSION: Final = 100
_SHOWN: Final = 10  # lines of one kind that are shown; the report file has all of them
_Result = Sequence[Mapping[str, Any]]  # regions as entries of a result of Label Studio


@dataclass(frozen=True)
class ImportOptions:
    """What an import is to do; see `ClassMapping` and `NameMatcher` for what is not said here."""

    version: str  # name of the import, the ``model_version`` of its predictions
    kind: ImportKind = "predictions"
    replace: bool = False  # whether predictions of an earlier import of that version go
    instances: bool = False  # draw each object as a region of its own, not one for a label
    renamed: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_line = re.fullmatch(r"[^,\x00-\x1f\x7f]+", self.version) is not None
        is_short = len(self.version) <= _LONGEST_VERSION
        if not (is_line and is_short and self.version == self.version.strip()):
            raise DatasetError(
                f"Expected the name of a version to have 1 to {_LONGEST_VERSION} letters and no "
                f"comma, which Label Studio puts between versions, but got {self.version[:100]!r}."
            )
        if self.replace and self.kind == "annotations":
            raise DatasetError(
                "Annotations are not replaced, since somebody may have corrected them: delete them "
                "in the data manager, and import again."
            )


def version_of_masks(path: Path) -> str:
    """Return the name of the version of an import from a folder or a file.

    >>> version_of_masks(Path("data/street, 2026/"))
    'masks street 2026'
    """
    name = re.sub(r"[\s,\x00-\x1f\x7f]+", " ", path.resolve().stem).strip()
    return "masks" if name.lower() == "masks" else f"masks {name}"[:_LONGEST_VERSION].strip()


class MappedClass(msgspec.Struct):
    """The label and control of a class, empty where it has none, and its number of images."""

    label: str = ""
    pictures: int = 0


class ImportReport(msgspec.Struct):
    """What an import would write, and what it has written."""

    project: int
    version: str
    kind: str
    files: int  # files of masks, or the pictures in one; `matched` of them match an image
    matched: int
    ready: int  # tasks whose masks have no problem and are to be written
    present: int  # tasks that have this version, or any annotation, already; they stay as they are
    replaced: int
    tasks_without: int
    left_out: list[Unmatched]
    problems: list[str] = []
    classes: dict[str, MappedClass] = {}
    written: int | None = None  # tasks that were written; None before
    left: int = 0
    refused: dict[int, str] = {}
    objects: int = 0  # in formats that tell them apart; `regions` are made of them
    regions: int = 0

    def plan(self) -> str:
        has = "annotations" if self.kind == "annotations" else "this version"
        files, without = quantity(self.files, "file"), quantity(self.tasks_without, "task")
        ready, present = quantity(self.ready, "task"), f"{self.present} with {has} already"

        lines = [f'Project {self.project}, {self.kind} of the version "{self.version}":']
        lines.append(
            f"{files} of masks, {self.matched} for a picture of a task; {without} without masks."
        )
        lines.append(f"{ready} to write; {present}, {self.replaced} with it replaced.")

        if self.classes:
            lines.append("Classes:")
            for name, each in self.classes.items():
                where = quantity(each.pictures, "picture")
                lines.append(f"  {name} -> {each.label or 'no label'}, in {where}")

        if self.regions < self.objects:
            lines.append(
                f"{quantity(self.objects, 'object')} become {quantity(self.regions, 'region')}, "
                "one for each label of a picture: --instances keeps them apart."
            )

        lines += _listed("Left out:", [f"{each.where}: {each.reason}." for each in self.left_out])
        lines += _listed("Cannot be written:", self.problems)
        return "\n".join(lines)

    def outcome(self) -> str:
        written = quantity(self.written or 0, "task")
        lines = [f"{written} written, {len(self.refused)} refused, {self.left} left."]
        lines += _listed("Refused:", [f"task {t}: {why}" for t, why in self.refused.items()])
        return "\n".join(lines)


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    lines = [title, *(f"  {each}" for each in sentences[:_SHOWN])] if sentences else []
    more = len(sentences) - _SHOWN
    return [*lines, f"  and {more} more"] if more > 0 else lines


def _as_drawn(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a region as an annotator leaves one: without a score."""
    return {key: value for key, value in entry.items() if key != "score"} | {"origin": "manual"}


#: Controls whose regions are whole masks: an editor freezes on many of them.
_MASKS: Final = ("brushlabels", "bitmasklabels")

#: How far a polygon may leave its mask's edge: less than those of predictions, which are no truth.
_TOLERANCE_PX: Final = 0.5


@dataclass(frozen=True)
class RegionDrawer:
    """Draws the regions of one image; see `ImportOptions` for the fields."""

    mapping: ClassMapping
    instances: bool = False

    def check(self, matched: Matched, size_hw: tuple[int, int]) -> tuple[Counter[str], list[str]]:
        names, empty = Counter[str](), []
        for region, mask in self._regions(matched, size_hw):
            if mask.any():
                names[region.label] += 1
            else:
                empty.append(f"{region.id} is left out: it has no mask, or one without an area")
        return names, empty

    def _regions(
        self, matched: Matched, size_hw: tuple[int, int]
    ) -> Iterator[tuple[LabelledRegion, BoolMask]]:
        """Iterate over the regions that are not left out, and their masks, which may be empty."""
        source = matched.source
        check_mask_size(source.where, source.size_hw or size_hw, size_hw)
        for region in source.read_regions(size_hw):
            if self.mapping.renamed.get(region.label) != "":
                mask = region.read_mask()
                check_mask_size(source.where, mask.shape, size_hw)
                yield region, mask

    def unites(self, target: Target) -> bool:
        return not self.instances and target.control.kind in _MASKS

    def draw(self, matched: Matched, size_hw: tuple[int, int]) -> Iterator[dict[str, Any]]:
        place = matched.place
        for number, (target, mask, score) in enumerate(self._parts(matched, size_hw)):
            owner = f"{place.task.id}/{matched.source.name}/{number}"
            drawn_label = replace(target.label, threshold=0.0)  # it is for the model's predictions
            regions = draw_regions(
                RunMask.of(mask),
                score,
                target.control,
                drawn_label,
                place.tag,
                item_index=place.item_index,
                tolerance_px=_TOLERANCE_PX,
                with_holes=True,
                owner=owner,
            )

            whole = ""
            for region in regions:
                part_of = {"parentID": whole} if whole and matched.source.has_objects else {}
                whole = whole or region.id
                yield from (entry | part_of for entry in region.entries())

    def _parts(
        self, matched: Matched, size_hw: tuple[int, int]
    ) -> Iterator[tuple[Target, BoolMask, float]]:
        united: dict[Target, tuple[BoolMask, list[float]]] = {}
        for region, mask in self._regions(matched, size_hw):
            if not mask.any():
                continue
            target = self.mapping.target(region.label, matched.place.tag)
            score = 1.0 if region.score is None else region.score
            if not self.unites(target):
                yield target, mask, score
                continue
            before, scores = united.get(target, (None, []))
            united[target] = (mask if before is None else before | mask, [*scores, score])
        for target, (mask, scores) in united.items():
            yield target, mask, sum(scores) / len(scores)


#: Why pictures are not written.
_NO_MASKS: Final = (
    "None of its regions has a mask, as in files of boxes: written, it would count as a picture "
    "without anything in it."
)
_EMPTY: Final = (
    "it has no region, so it is not annotated: submit it in Label Studio if nothing is there"
)

_CHUNK: Final = 8  # tasks of one request to write

#: Told after each image or task how many of how many are done.
WatchImport = Callable[[int, int], None]

_Checked = tuple[Matched, tuple[int, int]]  # the masks of one image, and its height and width in px


@dataclass(eq=False)
class MaskImporter:
    """Imports masks into one project; nothing more is begun once `stopping` is set."""

    _client: LabelStudioClient
    _images: ImageReader
    _project: int
    _options: ImportOptions
    _stopping: threading.Event = field(default_factory=threading.Event)
    _ready: dict[int, list[_Checked]] = field(default_factory=dict, init=False)
    _replaced: set[int] = field(default_factory=set, init=False)
    #: Task -> number of its objects that have a mask.
    _drawn: Counter[int] = field(default_factory=Counter, init=False)

    def plan(
        self, sources: Iterable[MaskSource], progress: WatchImport = lambda *_: None
    ) -> ImportReport:
        """Match all masks to images, and read each of them; nothing is written."""
        options = self._options
        config = self._client.config(self._project)
        self._mapping = ClassMapping(config, options.renamed, options.controls)
        self._drawer = RegionDrawer(self._mapping, options.instances)
        tasks = list(self._client.all_tasks(self._project, TaskFilter()))

        places = image_places(tasks, config.images)
        matched, unmatched = match_by_name(sources, places, options.addresses)
        by_task: dict[int, list[Matched]] = defaultdict(list)
        for each in sorted(matched, key=lambda each: each.place.key):
            by_task[each.place.key[0]].append(each)

        stored = self._find_stored(tuple(by_task))
        self._replaced = stored if options.replace else set()
        present = stored - self._replaced

        self._report = ImportReport(
            project=self._project,
            version=options.version,
            kind=options.kind,
            files=len(matched) + len(unmatched),
            matched=len(matched),
            ready=0,
            present=len(present),
            replaced=len(self._replaced),
            tasks_without=len({task.id for task in tasks} - set(by_task)),
            left_out=unmatched,
        )

        checked = [each for task, some in by_task.items() if task not in present for each in some]
        good = self._check(checked, progress)
        whole = {task: some for task, some in good.items() if len(some) == len(by_task[task])}
        self._ready = self._without_empty(whole) if options.kind == "annotations" else whole
        self._report.ready = len(self._ready)
        return self._report

    def _without_empty(self, tasks: Mapping[int, list[_Checked]]) -> dict[int, list[_Checked]]:
        """Leave out tasks without a region: their annotations would say that nothing is there."""
        for task, checked in tasks.items():
            if not self._drawn[task]:
                self._report.left_out += (
                    Unmatched(each.source.where, _EMPTY) for each, _ in checked
                )
        return {task: checked for task, checked in tasks.items() if self._drawn[task]}

    def write(self, progress: WatchImport = lambda *_: None) -> ImportReport:
        """Store what `plan` has found; stopped early, the same import goes on from there."""
        report = self._report
        done, tasks = 0, list(self._ready)
        while done < len(tasks) and not self._stopping.is_set():
            chunk = tasks[done : done + _CHUNK]
            report.refused |= self._store({task: self._result(task) for task in chunk})
            done += len(chunk)
            progress(done, len(tasks))
        report.written, report.left = done - len(report.refused), len(tasks) - done
        return report

    def _find_stored(self, tasks: tuple[int, ...]) -> set[int]:
        if self._options.kind == "annotations":
            return set(self._client.ids(self._project, TaskFilter(ids=tasks, labeled=True)))
        found = self._client.versioned(self._project, self._options.version, tasks)
        return {task for task, has_it in found.items() if has_it}

    def _store(self, results: Mapping[int, _Result]) -> dict[int, str]:
        client, version = self._client, self._options.version
        if self._options.kind == "annotations":
            reasons = {}
            for task, result in results.items():
                reason = client.write_annotation(task, version, [*map(_as_drawn, result)])
                if reason:
                    reasons[task] = reason
            return reasons

        for task in self._replaced.intersection(results):
            for stored in client.stored(task):
                if stored.version == version:
                    client.delete(stored.id)

        entries = {}
        for task, result in results.items():
            score = _mean_score(result)
            entries[task] = {"model_version": version, "score": score, "result": [*result]}
        return client.write_predictions(self._project, version, entries)

    def _check(
        self, matched: Sequence[Matched], progress: WatchImport
    ) -> dict[int, list[_Checked]]:
        """Read all masks; return task -> its images without a problem, and tell of the others."""
        good: dict[int, list[_Checked]] = defaultdict(list)
        problems: dict[str, list[str]] = defaultdict(list)
        wanted = takewhile(lambda _: not self._stopping.is_set(), matched)
        sizes = read_ahead(self._read_size, wanted, READERS, READ_AHEAD)

        for number, (each, size_hw) in enumerate(zip(matched, sizes, strict=False), 1):
            try:
                if isinstance(size_hw, TaskError):
                    raise DatasetError(f"{each.source.where}: {size_hw}")
                found = self._find_labels(each, size_hw)
                if not found:
                    good[each.place.key[0]].append((each, size_hw))
            except DatasetError as error:
                found = [str(error)]

            for text in found:
                problems[text].append(each.source.where)
            progress(number, len(matched))

        self._report.problems = [
            f"{text} It is in {len(files)} files, such as {files[0]}." if len(files) > 1 else text
            for text, files in problems.items()
        ]
        self._report.classes = dict(sorted(self._report.classes.items()))
        return good

    def _find_labels(self, each: Matched, size_hw: tuple[int, int]) -> list[str]:
        """Count an image's classes; return what is wrong with those without a label."""
        report, problems = self._report, []
        names, empty = self._drawer.check(each, size_hw)
        self._drawn[each.place.key[0]] += names.total()
        if empty and not names:
            return [_NO_MASKS]
        report.left_out += (Unmatched(each.source.where, reason) for reason in empty)

        targets = Counter[Target]()
        for name, count in names.items():
            told = report.classes.setdefault(name, MappedClass())
            told.pictures += 1
            try:
                target = self._mapping.target(name, each.place.tag)
            except DatasetError as error:
                problems.append(str(error))
            else:
                told.label = f"{target.label.name} ({target.control.name})"
                targets[target] += count
        if each.source.has_objects:
            report.objects += targets.total()
            report.regions += sum(1 if self._drawer.unites(t) else n for t, n in targets.items())
        return problems

    def _read_size(self, each: Matched) -> tuple[int, int] | TaskError:
        try:
            return self._images.read_size(each.place.source, each.place.task)
        except TaskError as error:
            return error

    def _result(self, task: int) -> list[dict[str, Any]]:
        return [entry for found in self._ready[task] for entry in self._drawer.draw(*found)]


def _mean_score(result: _Result) -> float:
    """Return the mean score of regions, to six digits; 0 where there is none."""
    scores = [float(entry["score"]) for entry in result]
    return round(sum(scores) / len(scores), 6) if scores else 0.0
