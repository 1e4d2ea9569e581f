"""What a format of a data set writes: labelled pictures, their classes, and the one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, ClassVar, Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from backend.annotations.label_map import LabelMap, Overlap
from backend.annotations.regions import LabelledRegion
from backend.dataset.dataset_options import DatasetOptions
from backend.dataset.image_file import ImageFile
from backend.dataset.output_folder import OutputFolder
from backend.errors import DatasetError
from clearclip_core import BoolMask
from clearclip_core.images.drawing import palette
from clearclip_core.images.label_maps import NONE_VALUE, Truth

ClassColour = tuple[int, int, int]

NO_CLASS: Final = NONE_VALUE  # value of pixels without a class in label maps

#: What files say of the rule by which overlaps are resolved.
OVERLAP_RULES: Final[Mapping[Overlap, str]] = {
    "later": "Where regions overlap, the one that was drawn later wins.",
    "label-order": "Where regions overlap, the class of the lowest value wins: the label that "
    "comes first in the labeling config.",
    "smallest": "Where regions overlap, the region with the fewest pixels wins.",
}


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set: 1 to 255 different names, else a `DatasetError` is raised.

    The value of a class in label maps is its index in `all_names`, `NO_CLASS` that of no class.
    `background` is the class of pixels that nobody has painted, the value 0; empty: they have none.
    """

    names: tuple[str, ...]
    background: str = ""

    def __post_init__(self) -> None:
        all_ = self.all_names
        if not self.names or len(all_) > NO_CLASS or len(set(all_)) < len(all_):
            wanted = f"1 to {NO_CLASS} classes of different names"
            raise DatasetError(f"Expected a data set to have {wanted}, but got {len(self.names)}.")

    def with_background(self, name: str) -> ClassTable:
        """Return the table with a background; a class of that name becomes it."""
        return ClassTable(tuple(each for each in self.names if each != name), name)

    @property
    def all_names(self) -> tuple[str, ...]:
        """Name of each value in label maps."""
        return (self.background, *self.names) if self.background else self.names

    @property
    def colours(self) -> list[ClassColour]:
        """RGB of each value in label maps, far apart for neighbouring classes."""
        found = [(int(r), int(g), int(b)) for r, g, b in palette(len(self.names))]
        return [(0, 0, 0), *found] if self.background else found

    def value_of(self, name: str) -> int:
        """Return the value of a class in label maps."""
        return self.names.index(name) + bool(self.background)

    def values(self, label_map: LabelMap) -> Truth:
        """Return the value of each pixel's class, (H, W) uint8."""
        values = {name: value for value, name in enumerate(self.all_names)}
        return label_map.values(values, 0 if self.background else NO_CLASS, NO_CLASS)

    def to_json(self, overlap: Overlap) -> dict[str, Any]:
        """Return what ``classes.json`` holds; `overlap` is the rule of the label maps."""
        named = zip(self.all_names, self.colours, strict=True)
        return {
            "nothing": NO_CLASS,
            **({"background": 0} if self.background else {}),
            "overlap": overlap,
            "overlap_rule": OVERLAP_RULES[overlap],
            "classes": [
                {"value": value, "name": name, "colour": list(colour)}
                for value, (name, colour) in enumerate(named)
            ],
        }


@dataclass(frozen=True)
class LabelledObject:
    """A thing in a picture: its parts, and a key that stays between exports."""

    label: str
    key: str
    regions: tuple[LabelledRegion, ...]

    @property
    def score(self) -> float | None:
        """Mean score of its parts; None where a person has drawn one."""
        scores = [each.score for each in self.regions if each.score is not None]
        return sum(scores) / len(scores) if len(scores) == len(self.regions) else None

    def mask(self) -> BoolMask:
        """Return its mask (H, W) bool, which may be shared with its region."""
        return reduce(np.bitwise_or, (region.read_mask() for region in self.regions))


@dataclass(frozen=True)
class LabelledImage:
    """An upright picture, its regions as they were drawn, and how its label map is drawn."""

    size_hw: tuple[int, int]
    regions: tuple[LabelledRegion, ...]
    draw: Callable[[], LabelMap] = field(repr=False, compare=False)

    def objects(self, by_label: bool = False) -> list[LabelledObject]:
        """Return the things in the picture, which may overlap; with `by_label` one for each label.

        Regions below a region of the same label in Label Studio's list are parts of one thing.
        """
        found = {(each.id, each.label): each for each in self.regions if each.id}
        parts: dict[tuple[str, str], list[LabelledRegion]] = {}
        for number, region in enumerate(self.regions):
            whole, seen = region, {region.id}
            while whole.parent not in seen and (whole.parent, region.label) in found:
                seen.add(whole.parent)
                whole = found[whole.parent, region.label]
            key = "" if by_label else whole.id or f"#{number}"
            parts.setdefault((region.label, key), []).append(region)
        return [LabelledObject(label, key, tuple(some)) for (label, key), some in parts.items()]


class ImageRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of ``pictures.jsonl``: a picture whose own files are written."""

    image: str  # name of its file
    task: int
    source: str  # its address in Label Studio; "data:" where the address is the picture itself
    height: int
    width: int
    key: str
    digest: str  # of its file, or of its address where the file is not read
    annotated: str  # digest of its regions as they were drawn
    objects: dict[str, int]  # label -> number of its objects
    regions: list[dict[str, Any]]
    entries: dict[str, list[Any]] = {}  # format -> what it says of each object, as long as it waits
    part: str = ""

    @property
    def name(self) -> str:
        """Name of its files, without a suffix."""
        return self.image.rpartition(".")[0]


ReadRows = Callable[[], Iterator[ImageRow]]  # iterates over the pictures of a part


@dataclass(frozen=True)
class SetFrame:
    """What is the same for all pictures of a data set; `source` names what it is made of."""

    output: OutputFolder
    classes: ClassTable
    source: str
    options: DatasetOptions


@dataclass(frozen=True)
class WrittenImage:
    """A picture to write files for."""

    name: str  # of its files, without a suffix
    #: (H, W) uint8 values of `ClassTable`, where a writer has `has_label_maps`.
    label_map: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    #: The picture itself, where it was read.
    file: ImageFile | None = field(default=None, repr=False, compare=False)

    @cached_property
    def label_png(self) -> bytes:
        """Its label map as a grey PNG: of a palette others read grey levels, without a word."""
        assert self.label_map is not None, "has_label_maps"
        # Two to three times as fast as Pillow, which tries five filters for each row; files are
        # larger by half.
        return cv2.imencode(".png", self.label_map)[1].tobytes()


class FormatWriter:
    """Writes one format: files of each picture first, then those of a part, then those of all.

    To add a format, write a class below this one and put it into the list of `formats.writers`, or
    name it by an entry point of another package; see the guide "Add a format". The command and the
    page take the rest from here. A writer is made for one data set, and is called by one thread.
    """

    name: ClassVar[str]  #: as the command has it
    title: ClassVar[str]  #: as the page has it
    #: Files and folders that it writes into the data set's folder. A later run replaces these, so
    #: that no two formats of a folder may have one of the same name.
    files: ClassVar[frozenset[str]]
    library: ClassVar[str] = ""  #: module that must be installed for it
    has_objects: ClassVar[bool] = False  #: whether `entry` is asked of each object
    keeps_entries: ClassVar[bool] = False  #: whether entries wait in rows until a part is written
    has_label_maps: ClassVar[bool] = False  #: whether pictures come with their label maps
    has_images: ClassVar[bool] = False  #: whether pictures are read and their files copied for it

    def __init__(self, frame: SetFrame) -> None:
        self.frame = frame

    def entry(self, thing: LabelledObject, mask: BoolMask) -> Any:
        """Return what the format says of an object.

        Args:
            thing: the object.
            mask: (H, W) bool of the upright picture, with a pixel or more; not to be written to.

        Returns:
            Anything that JSON can hold where the writer `keeps_entries`; None for nothing.
        """

    def image_files(self, image: WrittenImage, entries: Sequence[Any]) -> Mapping[str, bytes]:
        """Return the own files of a picture: path in the data set's folder -> bytes.

        Args:
            image: the picture.
            entries: what `entry` has returned for its objects, in their order, without None.
        """
        return {}

    def write_part(self, part: str, rows: ReadRows) -> None:
        """Write the files of one part.

        Args:
            part: "train", "val" or "test".
            rows: iterates over the pictures of the part, each time that it is called.
        """

    def finish(self) -> None:
        """Write the files that are of all parts."""

    def notes(self) -> Iterator[str]:
        """Iterate over sentences for the report."""
        yield from ()
