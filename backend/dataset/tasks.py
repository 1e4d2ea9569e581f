"""The tasks of a project, and their pictures."""

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Final, Protocol

from backend.annotations.annotated_image import (
    AnnotatedImage,
    AnnotationChoice,
    SourcedRegions,
    find_images,
    sourced_regions,
)
from backend.annotations.label_map import MapRule, draw_label_map, vote
from backend.annotations.regions import LabelledRegion, Provenance
from backend.dataset.formats.format_writer import ClassTable, LabelledImage
from backend.errors import BadRequest, DatasetError, ImageNotFound, TaskError
from backend.label_studio.client import LabelStudioClient, TasksTogether
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import Annotation, TaskRow, WholeTask
from backend.label_studio.region_reader import Area, drawn_areas, is_shape
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from clearclip_core.thread_pools import read_ahead


@dataclass(frozen=True)
class TaskRecord:
    """A task with all of its annotations, and what models have said about it."""

    task: Task
    annotations: tuple[Annotation, ...] = ()
    versions: Mapping[int, str] = field(default_factory=dict)  # prediction -> its ``model_version``
    #: Version and regions of the newest one, if it counts.
    prediction: tuple[str, Sequence[Any]] | None = None


@dataclass(frozen=True)
class TaskReference:
    """A task by its id, to be read in a thread."""

    id: int
    read: Callable[[], TaskRecord] = field(repr=False, compare=False)


#: Threads that wait for Label Studio, and what is read ahead: they bound the memory.
READERS: Final = 4
READ_AHEAD: Final = 8


class TaskSource(Protocol):
    """Tasks to make a data set of."""

    @property
    def name(self) -> str:
        """Name by which a folder knows what it was made of, such as the address of a project."""

    @property
    def unread(self) -> int:
        """Number of the other tasks, once all are listed."""

    def references(self) -> Iterator[TaskReference]: ...


@dataclass(eq=False)
class ProjectTasks:
    """The tasks of a project or a view that have an annotation, or by choice a prediction."""

    _client: LabelStudioClient
    _project: int
    _view: int | None = None
    _with_predictions: bool = False
    unread: int = field(init=False, default=0)

    @property
    def name(self) -> str:
        return f"{self._client.url}/projects/{self._project}"

    def count(self) -> int | None:
        """Return the number of tasks that are read; None with a view, which is listed first."""
        return None if self._view is not None else self._client.count(self._project, self._wanted)

    def references(self) -> Iterator[TaskReference]:
        total, listed = self._listed()
        self.unread = total
        for rows in listed:
            wanted = [row for row in rows if self._counts(row)]
            self.unread -= len(wanted)
            ids = [row.id for row in wanted]
            whole = TasksTogether(self._client, self._project, ids, WholeTask)
            yield from (TaskReference(row.id, partial(self._read, row, whole)) for row in wanted)

    def _listed(self) -> tuple[int, Iterable[Sequence[TaskRow]]]:
        """Return how many tasks there are, and those of them that may count, page by page."""
        if self._view is None:
            _, total, _ = self._client.newest_change(self._project)
            return total, self._client.pages(self._project, self._wanted)
        rows = self._client.view_rows(self._project, self._view)
        return len(rows), [rows]

    @property
    def _wanted(self) -> TaskFilter:
        return TaskFilter(labeled=None if self._with_predictions else True)

    def _counts(self, task: TaskRow) -> bool:
        predicted = self._with_predictions and task.total_predictions
        return bool(task.total_annotations or predicted)

    def _read(self, found: TaskRow, tasks: TasksTogether[WholeTask]) -> TaskRecord:
        task = Task(found.id, self._project, found.data)
        whole = tasks.take(found.id)
        if whole is None:  # it is gone
            return TaskRecord(task)
        predictions = sorted(whole.predictions, key=lambda each: each.id)
        if found.annotations:
            versions = {each.id: each.version for each in predictions}
            return TaskRecord(task, tuple(whole.annotations), versions)
        if not predictions:  # deleted meanwhile: it would count as an empty picture
            return TaskRecord(task)
        return TaskRecord(task, prediction=(predictions[-1].version, predictions[-1].regions))


# ---- their pictures ------------------------------------------------------------------------------

_KEPT_PIXELS: Final = 64 << 20  # pixels of all masks of a picture that are kept while it is written


@dataclass(frozen=True)
class ClassNames:
    """The classes of regions: their labels, or those `renamed`; empty leaves its regions out."""

    config: LabelConfig
    classes: ClassTable
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, name in self.renamed.items():
            if name and name not in self.classes.all_names:
                raise DatasetError(
                    f'"{label}={name}" names no label of the labeling config, which has '
                    f"{', '.join(self.classes.names[:20])}."
                )

    def names_of(self, area: Area) -> Iterator[str]:
        """Yield the names of the classes that a region has; none where it is left out.

        A label that the labeling config does not have is the name itself, empty without a label.
        """
        if not area.labels:
            yield ""
        for text in dict.fromkeys(area.labels):
            name = self.config.label_of(area.control, text)
            label = text if name is None else name
            if label and (wanted := self.renamed.get(text, self.renamed.get(label, label))):
                yield wanted

    def unknown_labels(self, image: AnnotatedImage) -> list[str]:
        """Return the labels of regions that are no class, once for each region."""
        regions = (region for version in image.versions for region in version)
        return [each.label for each in regions if each.label not in self.classes.all_names]


@dataclass(frozen=True)
class LoadedImage:
    """An image of a task with its file's bytes if needed, or why they could not be read."""

    image: AnnotatedImage
    content: bytes | None = field(default=None, repr=False)
    problem: str = ""
    is_missing: bool = False  # whether the problem is that there is no file


@dataclass(frozen=True)
class LoadedTask:
    """A task with the pictures that count, or why it was not read; and what it has lost."""

    id: int
    images: tuple[LoadedImage, ...] = ()
    problem: str = ""
    lost_controls: Mapping[str, int] = field(default_factory=dict)
    created: float = math.inf  # when it was annotated first, in seconds since the epoch


@dataclass(frozen=True)
class TaskLoader:
    """Reads tasks ahead, and makes labelled pictures of them."""

    names: ClassNames
    choice: AnnotationChoice
    rule: MapRule  # draws the label map of each annotation, before annotators vote
    read_file: Callable[[str, Task], bytes]
    needs_images: bool  # without, only pictures are read that have no region, and so no size

    def load(self, references: Iterable[TaskReference]) -> Generator[LoadedTask, None, None]:
        return read_ahead(self._load, references, READERS, READ_AHEAD)

    def _load(self, reference: TaskReference) -> LoadedTask:
        try:
            record = reference.read()
            chosen = self._choose(record)
            created = min((each.created for each in record.annotations), default=math.inf)
            config, names_of = self.names.config, self.names.names_of
            found = find_images(record.task, chosen, config, names_of) if chosen else ()
            areas = (area for result, _ in chosen for area in drawn_areas(result) if is_shape(area))
            lost = Counter(a.control for a in areas if a.control not in config.control_names)
            return LoadedTask(reference.id, tuple(map(self._load_image, found)), "", lost, created)
        except (BadRequest, DatasetError, TaskError) as error:
            return LoadedTask(reference.id, problem=str(error))

    def _load_image(self, image: AnnotatedImage) -> LoadedImage:
        try:
            if not self.needs_images and image.size_hw is not None:
                return LoadedImage(image)
            return LoadedImage(image, self.read_file(image.source, image.task))
        except (BadRequest, TaskError) as error:
            return LoadedImage(image, None, str(error), isinstance(error, ImageNotFound))

    def label(self, image: AnnotatedImage, size_hw: tuple[int, int]) -> LabelledImage:
        """Return a picture of a size in px with its regions, if they fit and have known labels."""
        self._check(image, size_hw)
        versions = [_with_masks_kept(each) for each in image.versions]
        draws = [partial(draw_label_map, each, size_hw, self.rule) for each in versions]
        if len(versions) == 1:
            background = self.names.classes.background
            things = tuple(each for each in versions[0] if each.label != background)
            return LabelledImage(size_hw, things, draws[0])

        voted = vote([draw() for draw in draws], self.names.classes.names)
        regions = []
        for name in self.names.classes.names:
            mask = cache(partial(voted.mask_of, name))
            if mask().any():
                source = Provenance("majority")
                regions.append(LabelledRegion(name, mask, None, source, "majority"))
        return LabelledImage(size_hw, tuple(regions), lambda: voted)

    def _check(self, image: AnnotatedImage, size_hw: tuple[int, int]) -> None:
        """Refuse a picture with a region of no known label, or drawn on another size.

        Raises:
            DatasetError: says which.
        """
        for text in self.names.unknown_labels(image):
            told = f'the label "{text[:100]}", which the labeling config does not have there'
            raise DatasetError(f"A region has {told if text else 'no label'}.")

        drawn_hw = image.size_hw
        if drawn_hw is not None and drawn_hw != size_hw:
            own, its = (f"{width}×{height} px" for height, width in (drawn_hw, size_hw))
            raise DatasetError(f"Its regions were drawn on {own}, but the picture has {its}.")

    def _choose(self, record: TaskRecord) -> list[SourcedRegions]:
        """Return the regions that count, of the prediction or of the annotations of a task."""
        if record.prediction is not None:
            version, regions = record.prediction
            return [(regions, Provenance("prediction", plain_text(version)))]
        return [
            sourced_regions(each, plain_text(record.versions.get(each.prediction or 0, "")))
            for each in self.choice.choose(record.annotations)
        ]


def plain_text(text: str) -> str:
    """Replace lone surrogates, which no file of UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _with_masks_kept(regions: Sequence[LabelledRegion]) -> Sequence[LabelledRegion]:
    """Keep the masks of a picture, which several formats read, where they are small enough."""
    if sum(math.prod(each.area.size_hw) for each in regions) > _KEPT_PIXELS:
        return regions
    return [replace(each, read_mask=cache(each.read_mask)) for each in regions]
