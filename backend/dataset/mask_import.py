"""Import the masks of a data set into a project: check all of them first, then write."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from backend.dataset.class_mapping import ClassMapping
from backend.dataset.import_options import ImportOptions
from backend.dataset.import_report import ImportPlan, ImportReport
from backend.dataset.mask_source import MaskSource
from backend.dataset.mask_store import MaskStore
from backend.dataset.region_drawing import RegionDrawer
from backend.dataset.task_matching import Matched, Unmatched, match_by_name, match_by_table
from backend.errors import DatasetError, TaskError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ImageReader, ImageShape
from backend.label_studio.image_names import image_places
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from clearclip_core.quantities import quantity

#: Images whose sizes are asked for at once.
_AT_ONCE: Final = 4
#: Tasks of one request to write.
_CHUNK: Final = 8

#: Told after each image or task how many of how many are done.
Progress = Callable[[int, int], None]

#: The masks of one image, and its shape.
_Checked = tuple[Matched, ImageShape]


def _untold(done: int, total: int) -> None:
    """Show no progress."""


@dataclass
class _Check:
    """What the check of all masks has found.

    Attributes:
        good: task -> its images without a problem.
        problems: sentences about single masks.
        classless: sentence about a class without a label -> the files that have it.
        pictures: class -> number of images that have it.
        labels: class -> its label and control.
    """

    good: dict[int, list[_Checked]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)
    classless: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    pictures: Counter[str] = field(default_factory=Counter)
    labels: dict[str, str] = field(default_factory=dict)

    def sentences(self) -> tuple[str, ...]:
        """Return all problems, one sentence each; a class without a label is one."""
        classless = (
            f"{text} It is in {quantity(len(files), 'file')}, such as {files[0]}."
            for text, files in self.classless.items()
        )
        return (*classless, *self.problems)


class MaskImporter:
    """Imports masks into one project.

    Args:
        client: Label Studio.
        images: reads the sizes of the pictures.
        project: id of the project.
        options: what to do.
        stopping: once it is set, nothing more is begun.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        images: ImageReader,
        project: int,
        options: ImportOptions,
        stopping: threading.Event | None = None,
    ) -> None:
        self._client = client
        self._images = images
        self._project = project
        self._options = options
        self._stopping = stopping or threading.Event()
        self._store = MaskStore(client, project, options)
        self._ready: dict[int, list[_Checked]] = {}
        self._replaced: set[int] = set()

    def plan(self, sources: Iterable[MaskSource], progress: Progress = _untold) -> ImportPlan:
        """Match all masks to images, and read each of them; nothing is written.

        Raises:
            DatasetError: the data set cannot be read at all.
            LabelConfigError: the project has no control that is drawn.
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        self._config = parse_label_config(self._client.label_config(self._project))
        self._mapping = ClassMapping(self._config, self._options.renamed, self._options.controls)
        self._drawer = RegionDrawer(
            self._mapping, instances=self._options.instances, as_stored=self._options.as_stored
        )
        tasks = list(self._client.all_tasks(self._project, TaskFilter()))
        matched, unmatched = self._match(sources, tasks)
        by_task: dict[int, list[Matched]] = defaultdict(list)
        for each in sorted(matched, key=lambda each: each.place.key):
            by_task[each.place.key[0]].append(each)
        stored = self._store.find(list(by_task))
        self._replaced = stored.present - stored.changed if self._options.replace else set()
        closed = (stored.present - self._replaced) | stored.others
        check = self._check(
            [m for t, some in by_task.items() if t not in closed for m in some], progress
        )
        self._ready = {
            task: images for task, images in check.good.items() if len(images) == len(by_task[task])
        }
        reasons = {
            task: f"task {task} has annotations that are not of this import"
            for task in sorted(stored.others)
        } | (stored.kept() if self._options.replace else {})
        annotated = (
            Unmatched(each.source.where, reason)
            for task, reason in reasons.items()
            for each in by_task[task]
        )
        return ImportPlan(
            project=self._project,
            version=self._options.version,
            kind=self._options.kind,
            files=len(matched) + len(unmatched),
            matched=len(matched),
            ready=len(self._ready),
            present=len(stored.present - self._replaced),
            replaced=len(self._replaced),
            tasks_without=len({task.id for task in tasks} - set(by_task)),
            left_out=(*unmatched, *annotated),
            problems=check.sentences(),
            classes={
                name: (check.labels.get(name, ""), check.pictures[name])
                for name in sorted(check.pictures)
            },
        )

    def write(self, progress: Progress = _untold) -> ImportReport:
        """Store what `plan` has found, without the tasks that have problems.

        It ends early once `stopping` is set; the same import goes on from there.

        Raises:
            StudioRefused: the token may not write there.
            StudioUnreachable: Label Studio does not answer.
        """
        refused: dict[int, str] = {}
        done, tasks = 0, list(self._ready)
        while done < len(tasks) and not self._stopping.is_set():
            chunk = tasks[done : done + _CHUNK]
            refused |= self._store.write({t: self._result(t) for t in chunk}, self._replaced)
            done += len(chunk)
            progress(done, len(tasks))
        return ImportReport(done - len(refused), len(tasks) - done, refused)

    def _match(
        self, sources: Iterable[MaskSource], tasks: Iterable[Task]
    ) -> tuple[list[Matched], list[Unmatched]]:
        places = image_places(tasks, self._config.images)
        if self._options.table is None:
            return match_by_name(sources, places, self._options.addresses)
        return match_by_table(sources, places, self._options.table)

    def _check(self, matched: Sequence[Matched], progress: Progress) -> _Check:
        """Read masks, each with the shape of its image."""
        found = _Check()
        for number, (each, shape) in enumerate(self._with_shapes(matched), 1):
            try:
                if isinstance(shape, TaskError):
                    raise DatasetError(f"{each.source.where}: {shape}")
                names = self._drawer.check(each, shape)
            except DatasetError as error:
                found.problems.append(f"{error}{self._hint(shape)}")
            else:
                if self._find_labels(names, each, found):
                    found.good[each.place.key[0]].append((each, shape))
            progress(number, len(matched))
        return found

    def _find_labels(self, names: Iterable[str], each: Matched, found: _Check) -> bool:
        """Find the labels of an image's classes; return whether each class has one."""
        is_complete = True
        for name in names:
            found.pictures[name] += 1
            try:
                target = self._mapping.target(name, each.place.tag)
            except DatasetError as error:
                found.classless[str(error)].append(each.source.where)
                is_complete = False
            else:
                found.labels[name] = f"{target.label.name} ({target.control.name})"
        return is_complete

    def _with_shapes(
        self, matched: Sequence[Matched]
    ) -> Iterator[tuple[Matched, ImageShape | TaskError]]:
        """Iterate over masks with the shape of their image, or why it cannot be read."""

        def shape(each: Matched) -> ImageShape | TaskError:
            try:
                return self._images.read_shape(each.place.source, each.place.task)
            except TaskError as error:
                return error

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(matched), 2 * _AT_ONCE):
                if self._stopping.is_set():
                    return
                some = matched[start : start + 2 * _AT_ONCE]
                yield from zip(some, pool.map(shape, some), strict=True)

    def _hint(self, shape: ImageShape | TaskError) -> str:
        """Return what may help where a picture is turned by its EXIF data."""
        if isinstance(shape, TaskError) or shape.size_hw == shape.stored_hw:
            return ""
        if self._options.as_stored:
            return " EXIF turns the picture: leave --as-stored out if masks fit what people see."
        return " EXIF turns the picture: give --as-stored if masks fit it unturned."

    def _result(self, task: int) -> list[dict[str, Any]]:
        return [entry for found in self._ready[task] for entry in self._drawer.draw(*found)]
