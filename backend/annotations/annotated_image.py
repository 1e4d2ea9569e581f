"""Which annotations of a task count, and the images that they are of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

from backend.annotations.label_map import DEFAULT_RULE, LabelMap, MapRule, draw_label_map
from backend.annotations.regions import LabelledRegion, Place, Provenance, read_regions
from backend.errors import BadRequest, TaskError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.records import Annotation
from backend.label_studio.region_reader import Area, image_size
from backend.label_studio.requests import Task
from clearclip_core import RGBArray
from clearclip_core.images.preprocessing import reduced_sizes

Rule = Literal["preferred", "newest", "ground-truth", "annotator", "majority"]

#: Errors of one image, for which it is left out.
LEAVE_OUT: Final = (TaskError, BadRequest, ValueError)


@dataclass(frozen=True)
class AnnotationChoice:
    """Says which annotations count where a task has several; skipped ones never do.

    "preferred" is the newest that is marked as ground truth, else the newest, the one that was
    changed last; "ground-truth" the newest that is marked as such; "annotator" the newest of one
    annotator; "majority" the newest of each.
    """

    rule: Rule = "preferred"
    annotator: int | None = None
    with_reviewed: bool = True  # whether those that nobody has opened in the editor count

    @classmethod
    def parse(cls, text: str) -> "AnnotationChoice":
        """Read the name of a rule, or the number of an annotator, as a person has typed it.

        Raises:
            BadRequest: it is neither.

        >>> AnnotationChoice.parse("5")
        AnnotationChoice(rule='annotator', annotator=5, with_reviewed=True)
        """
        for rule in get_args(Rule):
            if text == rule != "annotator":
                return cls(rule)
        if text.isascii() and text.isdecimal() and len(text) < 19:
            return cls("annotator", int(text))
        raise BadRequest(
            "Expected the annotations to be preferred, newest, ground-truth, majority or the "
            f'number of an annotator, but got "{text[:50]}".'
        )

    def __str__(self) -> str:
        rule = self.rule if self.annotator is None else str(self.annotator)
        return rule if self.with_reviewed else f"{rule}, without reviewed"

    def choose(self, annotations: Iterable[Annotation]) -> list[Annotation]:
        """Return the annotations that count: several only for "majority".

        >>> old, new = Annotation(1, 1, 1, (), updated=5.0), Annotation(2, 1, 1, (), updated=6.0)
        >>> [each.id for each in AnnotationChoice().choose([new, old])]
        [2]
        >>> marked = Annotation(3, 1, 1, (), updated=1.0, ground_truth=True)
        >>> [each.id for each in AnnotationChoice().choose([new, marked, old])]
        [3]
        >>> reviewed = Annotation(4, 1, 1, [{"source": "review"}], updated=9.0)
        >>> [each.id for each in AnnotationChoice(with_reviewed=False).choose([reviewed, old])]
        [1]
        """
        left = sorted(filter(self._counts, annotations), key=lambda each: (each.updated, each.id))
        if self.rule == "preferred":
            left.sort(key=lambda each: each.ground_truth)  # the order of equals stays
        if self.rule == "majority":
            # An annotation without an annotator, such as an imported one, has a vote of its own.
            own = {each.id if each.annotator is None else (each.annotator,): each for each in left}
            return sorted(own.values(), key=lambda each: each.id)
        return left[-1:]

    def _counts(self, annotation: Annotation) -> bool:
        """Return whether an annotation may be chosen."""
        if annotation.skipped or (annotation.is_reviewed and not self.with_reviewed):
            return False
        if self.rule == "ground-truth":
            return annotation.ground_truth
        return self.rule != "annotator" or annotation.annotator == self.annotator


#: The regions of an annotation or a prediction, as they came, and where they came from.
SourcedRegions = tuple[Sequence[Any], Provenance]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image of a task, and the regions that annotations have on it."""

    task: Task
    tag: ImageTag
    item_index: int | None  # index in a list of images; None where the task shows no list
    versions: tuple[tuple[LabelledRegion, ...], ...]  # of each annotation that counts

    @property
    def key(self) -> str:
        """Text that tells it from all other images of the project."""
        return f"{self.task.id}/{self.tag.name}/{self.item_index or 0}"

    @property
    def source(self) -> str:
        """The address of the image; a TaskError where the task's data has none any more."""
        return self.tag.source(self.task.data, self.item_index)

    @cached_property
    def size_hw(self) -> tuple[int, int] | None:
        """The size in px on which its regions were drawn; None without a region.

        Raises:
            BadRequest: regions were drawn on several sizes, or on a picture that is too large.
        """
        areas = [region.area for version in self.versions for region in version]
        return image_size(areas) if areas else None

    def label_map(self, rule: MapRule = DEFAULT_RULE, version: int = 0, step: int = 1) -> LabelMap:
        """Draw the regions of an annotation, see `draw_label_map`.

        Raises:
            ValueError: no annotation has a region of a label on the image: its size is not known.
            BadRequest: a region is broken, or see `size_hw`.
        """
        if self.size_hw is None:
            raise ValueError("No region of a label is on it.")
        return draw_label_map(self.versions[version], self.size_hw, rule, step)

    def read(self, read_image: ReadImage) -> RGBArray:
        """Read (H, W, 3) uint8 RGB, see `read_annotated_image`."""
        return read_annotated_image(read_image, self.source, self.task, self.size_hw)

    def read_reduced(self, read_image: ReadImage) -> RGBArray:
        """Read (h, w, 3) uint8 RGB of its size, a half, a quarter or an eighth, rounded up.

        Raises:
            TaskError: it cannot be read, or is of no such size.
        """
        rgb = read_image(self.source, self.task)
        if self.size_hw is not None and rgb.shape[:2] not in reduced_sizes(self.size_hw):
            raise _other_size(self.size_hw, rgb)
        return rgb


def read_annotated_image(
    read_image: ReadImage, source: str, task: Task, size_hw: Sequence[int] | None
) -> RGBArray:
    """Read an image (H, W, 3) uint8 RGB whose regions were drawn on that height and width in px.

    Raises:
        TaskError: it cannot be read, or it has another size.
    """
    rgb = read_image(source, task)
    if size_hw is not None and rgb.shape[:2] != tuple(size_hw):
        raise _other_size(size_hw, rgb)
    return rgb


def _other_size(size_hw: Sequence[int], rgb: RGBArray) -> TaskError:
    return TaskError(
        f"The regions are of a picture of {_size(size_hw)} px, but it has {_size(rgb.shape)}."
    )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"


def find_images(
    task: Task,
    annotated: Iterable[SourcedRegions],
    config: LabelConfig,
    names_of: Callable[[Area], Iterable[str]] | None = None,
) -> list[AnnotatedImage]:
    """Return the images of a task with what annotations say of each, which may be nothing.

    Args:
        task: the task.
        annotated: the regions of each annotation that counts.
        config: the project's labeling config.
        names_of: see `read_regions`, also for errors.
    """
    read = [read_regions(result, config, names_of, source) for result, source in annotated]

    def versions(place: Place) -> tuple[tuple[LabelledRegion, ...], ...]:
        return tuple(tuple(each.get(place, ())) for each in read)

    return [
        AnnotatedImage(task, tag, index, versions((tag.name, index or 0)))
        for tag in config.annotated
        for index in tag.indices(task.data)
    ]


def sourced_regions(annotation: Annotation, model_version: str = "") -> SourcedRegions:
    """Return the regions of an annotation with their source.

    Args:
        annotation: the annotation.
        model_version: that of the prediction that it began with; empty where nobody knows.
    """
    source = Provenance(
        model_version=model_version, annotation=annotation.id, annotator=annotation.annotator
    )
    return annotation.result, source


def find_chosen_image(
    client: LabelStudioClient,
    task: Task,
    config: LabelConfig,
    tag: ImageTag,
    item_index: int | None,
) -> AnnotatedImage:
    """Return an image of a task with the regions of the annotation that counts.

    Raises:
        ValueError: there is no annotation, or it has no region of a label on the image.
        BadRequest: a region is broken.
    """
    chosen = AnnotationChoice().choose(client.annotations(int(task.id or 0)))
    if not chosen:
        raise ValueError("It has no annotation that was submitted.")
    (annotation,) = chosen
    for image in find_images(task, [sourced_regions(annotation)], config):
        if (image.tag, image.item_index) == (tag, item_index) and image.size_hw is not None:
            return image
    raise ValueError(f"Annotation {annotation.id} has no region of a label on it.")
