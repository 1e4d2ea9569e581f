"""The tasks of a project, or of a file that Label Studio exported, and their pictures."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final, Protocol
from xml.sax.saxutils import quoteattr

import msgspec

from backend.annotations.annotated_image import (
    AnnotatedImage,
    AnnotationChoice,
    Said,
    find_images,
    said_by,
)
from backend.annotations.label_map import MapRule, draw_label_map, vote
from backend.annotations.regions import LabelledRegion, Provenance
from backend.dataset.formats.format_writer import ClassTable, LabelledImage
from backend.dataset.mask_source import Limits, read_bytes
from backend.errors import BadRequest, DatasetError, TaskError
from backend.label_studio.client import LabelStudioClient, TasksTogether
from backend.label_studio.image_loader import ImageName
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import Annotation, TaskRow, WholeTask, decode_time
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


# ---- of a file -----------------------------------------------------------------------------------

_LIMITS: Final = Limits(max_file_mb=16 << 10)

#: Tools beside ``<Labels>``; and type of a region -> tag of the control that draws such.
_TOOLS: Final = ("Brush", "Bitmask", "Polygon", "Rectangle", "Ellipse")
_TAGS: Final = {
    "labels": "Labels",
    **{tool.lower(): tool for tool in _TOOLS},
    **{f"{tool.lower()}labels": f"{tool}Labels" for tool in _TOOLS},
}


class _Region(msgspec.Struct):
    from_name: str = ""
    to_name: str = ""
    type: str = ""
    value: dict[str, msgspec.Raw] = {}


class _Result(msgspec.Struct):
    result: list[_Region] = []


class _Task(msgspec.Struct):
    """What the labeling config is told by: masks are passed over."""

    data: dict[str, Any]
    annotations: list[_Result]
    id: int | None = None
    project: int | None = None


class ExportedTasks:
    """The tasks of a file that *Export*, *JSON* has written, and what it says of their project."""

    unread: Final = 0

    def __init__(self, path: Path, with_predictions: bool = False) -> None:
        self._with_predictions = with_predictions
        try:
            self._rows = msgspec.json.decode(read_bytes(path, _LIMITS), type=list[msgspec.Raw])
            if not self._rows:
                raise DatasetError(f"{path} has no tasks: an export has those that are annotated.")
            self._first = msgspec.json.decode(self._rows[0], type=_Task)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{path} is no list of tasks with their annotations: export the project again, as "
                f"JSON, not as JSON-MIN or another format ({error})."
            ) from None
        number = self._first.project
        self.name = f"project {number}" if number else str(path.resolve().parent)

    def count(self) -> int:
        return len(self._rows)

    def references(self) -> Iterator[TaskReference]:
        for number, row in enumerate(self._rows, 1):
            try:
                id_ = msgspec.json.decode(row, type=_Task).id or number
            except msgspec.MsgspecError:
                id_ = number
            yield TaskReference(id_, partial(self._read, row, id_))

    def _read(self, row: msgspec.Raw, id_: int) -> TaskRecord:
        try:
            raw = msgspec.json.decode(row)
            task = Task(id_, raw.get("project"), raw["data"])
            annotations = tuple(_annotation(each, id_) for each in raw["annotations"])
            began = (each.get("prediction") or {} for each in raw["annotations"])
            versions = {each["id"]: str(each["model_version"]) for each in began if "id" in each}
        except (msgspec.MsgspecError, AttributeError, LookupError, TypeError):
            raise DatasetError("It is broken: export the project again, as JSON.") from None
        some = [each for each in raw.get("predictions") or () if isinstance(each, dict)]
        if annotations or not (self._with_predictions and some):
            return TaskRecord(task, annotations, versions)
        version, regions = some[-1].get("model_version"), some[-1].get("result") or ()
        return TaskRecord(task, prediction=(str(version or ""), regions))

    @cached_property
    def originals(self) -> frozenset[str]:
        """Names of files before they were uploaded, as far as one task alone has them."""
        addresses = (str(value) for task in self._tasks() for value in task.data.values())
        names = (ImageName.of(each[:4096]) for each in addresses)
        counts = Counter(each.uploaded_file for each in names if each and each.uploaded_file)
        return frozenset(name for name, count in counts.items() if count == 1)

    def label_config(self) -> str:
        """Return a labeling config with what the annotations have: labels in alphabetical order."""
        labels: dict[tuple[str, str], set[str]] = defaultdict(set)  # of a tag and name
        images: dict[tuple[str, str], set[str]] = defaultdict(set)
        for region in (each for t in self._tasks() for one in t.annotations for each in one.result):
            if tag := _TAGS.get(region.type):
                texts = msgspec.json.decode(region.value.get(region.type, b"[]"), type=list[str])
                labels[tag, region.from_name].update(texts)
                images[tag, region.from_name].add(region.to_name)
        if not any(labels.values()):
            kinds = "brush, bitmask, polygon, rectangle or ellipse"
            raise DatasetError(f"Its annotations have no {kinds}.")
        if not any(tag in _TOOLS for tag, _ in labels):  # <Labels> need one, whichever it was
            images["Brush", ""].update(*images.values())
        names = sorted(frozenset[str]().union(*images.values()))
        lines = [self._image(name, alone=len(names) == 1) for name in names]
        for (tag, name), to in sorted(images.items()):
            inner = "".join(f"<Label value={quoteattr(e)}/>" for e in sorted(labels[tag, name]))
            named = f"name={quoteattr(name)} toName={quoteattr(','.join(sorted(to)))}"
            lines.append(f"<{tag} {named}>{inner}</{tag}>")
        return f"<View>{''.join(lines)}</View>"

    def _image(self, name: str, *, alone: bool) -> str:
        """Return the tag of an image: its data have its name, or alone have an address."""
        data = self._first.data
        keys = [key for key, value in data.items() if _is_address(value)]
        if name in keys or not (alone and len(keys) == 1):
            keys = [key for key in keys if key == name]
        if not keys:
            raise DatasetError(
                f'It is open which data of the tasks are the pictures of "{name}": '
                f"{', '.join(data)[:200]}. Give the project's labeling config by --config."
            )
        value = "valueList" if isinstance(data[keys[0]], list) else "value"
        return f"<Image name={quoteattr(name)} {value}={quoteattr(f'${keys[0]}')}/>"

    def _tasks(self) -> Iterator[_Task]:
        for row in self._rows:
            try:
                yield msgspec.json.decode(row, type=_Task)
            except msgspec.MsgspecError:
                continue  # it is skipped with its reason when it is read


def _is_address(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and (first[:10] == "data:image" or "/" in first or "." in first)


def _annotation(raw: dict[str, Any], task: int) -> Annotation:
    whose = raw.get("completed_by")
    more = {"completed_by": whose.get("id") if isinstance(whose, dict) else whose}
    ids = {"task": task, "project": raw.get("project") or 0}
    return msgspec.convert(raw | more | ids, Annotation, dec_hook=decode_time)


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
            said = self._said(record)
            created = min((each.created for each in record.annotations), default=math.inf)
            config, names_of = self.names.config, self.names.names_of
            found = find_images(record.task, said, config, names_of) if said else ()
            areas = (area for result, _ in said for area in drawn_areas(result) if is_shape(area))
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
            return LoadedImage(image, problem=str(error))

    def label(self, image: AnnotatedImage, size_hw: tuple[int, int]) -> LabelledImage:
        """Return a picture of a size in px with its regions, if they fit and have known labels."""
        for text in self.names.unknown_labels(image):
            told = f'the label "{text[:100]}", which the labeling config does not have there'
            raise DatasetError(f"A region has {told if text else 'no label'}.")
        drawn, classes = image.size_hw, self.names.classes
        if drawn is not None and drawn != size_hw:
            own, its = (f"{width}×{height} px" for height, width in (drawn, size_hw))
            raise DatasetError(f"Its regions were drawn on {own}, but the picture has {its}.")
        versions = [_with_masks_kept(each) for each in image.versions]
        draws = [partial(draw_label_map, each, size_hw, self.rule) for each in versions]
        if len(versions) == 1:
            things = tuple(each for each in versions[0] if each.label != classes.background)
            return LabelledImage(size_hw, things, draws[0])
        voted = vote([draw() for draw in draws], classes.names)
        made = (
            LabelledRegion(name, mask, None, Provenance("majority"), "majority")
            for name in classes.names
            if (mask := cache(partial(voted.mask_of, name)))().any()
        )
        return LabelledImage(size_hw, tuple(made), lambda: voted)

    def _said(self, record: TaskRecord) -> list[Said]:
        if record.prediction is not None:
            version, regions = record.prediction
            return [(regions, Provenance("prediction", plain_text(version)))]
        return [
            said_by(each, plain_text(record.versions.get(each.prediction or 0, "")))
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
