"""A picture with its labelled regions, and the classes that label maps number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from backend.errors import DatasetError
from clearclip_core.images.label_maps import NONE_VALUE, palette

BoolMask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

#: Which region a pixel belongs to that several cover.
Overlap = Literal["label-order", "largest", "smallest", "score"]

#: Where a region came from, as Label Studio has it; "majority" where several annotators have voted.
Origin = Literal["manual", "prediction", "prediction-changed", "majority"]

#: Value of pixels without a class in label maps.
NOTHING: Final = NONE_VALUE

#: What files say of the rule by which overlaps are resolved.
OVERLAP_RULES: Final[Mapping[Overlap, str]] = {
    "label-order": "Where regions overlap, the class of the lowest value wins: the label that "
    "comes first in the labeling config.",
    "largest": "Where regions overlap, the region with the most pixels wins.",
    "smallest": "Where regions overlap, the region with the fewest pixels wins.",
    "score": "Where regions overlap, the region with the highest score wins; one without a score, "
    "which a person has drawn, wins over all that have one.",
}


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set: the value of a class in label maps is its index here.

    `NOTHING` is the value of pixels without a class.

    Attributes:
        names: different names, at most 255.
        colours: RGB of each class, 0 to 255.

    Raises:
        DatasetError: no names, a name twice, more than 255, or not one colour for each.

    >>> ClassTable.of(["sky", "road"]).index("road")
    1
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.names) <= NOTHING:
            raise DatasetError(
                f"Expected a data set to have 1 to {NOTHING} classes, but got {len(self.names)}."
            )
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise DatasetError(f'Expected classes of different names, but got "{twice[0]}" twice.')
        if len(self.colours) != len(self.names):
            raise DatasetError(
                f"Expected a colour for each of {len(self.names)} classes, but got "
                f"{len(self.colours)}."
            )

    @classmethod
    def of(cls, names: Sequence[str]) -> ClassTable:
        """Make a table with colours that are far apart for neighbouring classes."""
        colours = [(int(r), int(g), int(b)) for r, g, b in palette(len(names))]
        return cls(tuple(names), tuple(colours))

    def index(self, name: str) -> int:
        """Return the value of a class in label maps.

        Raises:
            DatasetError: there is no such class.
        """
        if name not in self.names:
            raise DatasetError(f'Expected a class of the data set, but got "{name[:100]}".')
        return self.names.index(name)

    def palette_bytes(self) -> bytes:
        """Return the 768 bytes of a palette: RGB of the values 0 to 255; black without a class."""
        table = np.zeros((NOTHING + 1, 3), np.uint8)
        table[: len(self.colours)] = self.colours
        return table.tobytes()

    def to_json(self, overlap: Overlap) -> dict[str, Any]:
        """Return what ``classes.json`` holds.

        Args:
            overlap: the rule by which the label maps resolve overlaps.
        """
        return {
            "nothing": NOTHING,
            "overlap": overlap,
            "overlap_rule": OVERLAP_RULES[overlap],
            "classes": [
                {"value": value, "name": name, "colour": list(colour)}
                for value, (name, colour) in enumerate(zip(self.names, self.colours, strict=True))
            ],
        }

    @classmethod
    def from_json(cls, found: Any) -> ClassTable:
        """Read what `to_json` has written.

        Raises:
            DatasetError: it holds something else.
        """
        try:
            classes = found["classes"]
            if [each["value"] for each in classes] != list(range(len(classes))):
                raise DatasetError("Expected the values of classes to count from 0 without a gap.")
            names = tuple(str(each["name"]) for each in classes)
            colours = tuple(_read_colour(each["colour"]) for each in classes)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DatasetError(
                'Expected "classes" with a "value", a "name" and a "colour" each, but got others.'
            ) from None
        return cls(names, colours)


@dataclass(frozen=True)
class Provenance:
    """Where a region came from.

    Attributes:
        origin: "manual" for one that a person has drawn; "prediction" for one that stands as it
            was predicted; "prediction-changed" for one that a person has changed; "majority" for
            the pixels on which more than half of the annotators agree.
        model_version: version of the prediction; empty where a person has drawn it, or where Label
            Studio has lost the prediction.
        annotation: id of the annotation; None where it is of a prediction that nobody has taken.
        annotator: id of the annotator; None where Label Studio does not say.
    """

    origin: Origin = "manual"
    model_version: str = ""
    annotation: int | None = None
    annotator: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what files say of it."""
        return {
            "origin": self.origin,
            "model_version": self.model_version,
            "annotation": self.annotation,
            "annotator": self.annotator,
        }


@dataclass(frozen=True)
class LabelledRegion:
    """A part of a picture that has a label.

    Attributes:
        label: name of its class.
        read_mask: draws or decodes its mask, (H, W) bool in the size of the picture. It may raise
            a `DatasetError`.
        score: probability in [0, 1]; None where a person has drawn it.
        provenance: where it came from.
        id: id of the region in Label Studio; empty where it has none.
    """

    label: str
    read_mask: Callable[[], BoolMask] = field(repr=False, compare=False)
    score: float | None = None
    provenance: Provenance = Provenance()
    id: str = ""

    @classmethod
    def of(cls, label: str, mask: BoolMask, **more: Any) -> LabelledRegion:
        """Make a region of a mask that is there already, (H, W) bool."""
        return cls(label, lambda: mask, **more)


@dataclass(frozen=True)
class LabelledImage:
    """A picture and its labelled regions.

    Attributes:
        name: its name in the data set: a path with slashes and without suffix, each once.
        size_hw: height and width in px of the upright picture.
        regions: its regions, in the order of the annotation.
        suffix: of the file of the picture, with its dot.
    """

    name: str
    size_hw: tuple[int, int]
    regions: tuple[LabelledRegion, ...] = ()
    suffix: str = ".png"

    @property
    def file_name(self) -> str:
        """Name with the suffix of the picture's file."""
        return self.name + self.suffix

    def owners(
        self, classes: ClassTable, overlap: Overlap = "label-order"
    ) -> npt.NDArray[np.int32]:
        """Return the index of the region that each pixel belongs to; -1 where no region is.

        Regions that a rule does not tell apart follow the label order; of one label, the later
        region wins.

        Returns:
            (H, W) int32, indices into `regions`.

        Raises:
            DatasetError: a label without a class, a mask that cannot be read, or one of another
                size.

        >>> left, all_ = np.array([[True, False]]), np.array([[True, True]])
        >>> regions = LabelledRegion.of("sky", all_), LabelledRegion.of("road", left)
        >>> picture = LabelledImage("a", (1, 2), regions)
        >>> picture.owners(ClassTable.of(["sky", "road"]))
        array([[0, 0]], dtype=int32)
        >>> picture.owners(ClassTable.of(["sky", "road"]), "smallest")
        array([[1, 0]], dtype=int32)
        """
        owners = np.full(self.size_hw, -1, np.int32)
        ordered = sorted(enumerate(self.regions), key=lambda each: -classes.index(each[1].label))
        if overlap == "score":
            ordered.sort(key=lambda each: np.inf if each[1].score is None else each[1].score)
        elif overlap != "label-order":
            sign = 1 if overlap == "largest" else -1
            ordered.sort(key=lambda each: sign * int(np.count_nonzero(self.mask_of(each[1]))))
        for index, region in ordered:  # the one that wins is drawn last
            np.copyto(owners, index, where=self.mask_of(region))
        return owners

    def label_map(
        self, classes: ClassTable, overlap: Overlap = "label-order"
    ) -> npt.NDArray[np.uint8]:
        """Return the value of each pixel's class; `NOTHING` where no region is.

        Returns:
            (H, W) uint8.

        Raises:
            DatasetError: see `owners`.
        """
        return self.label_map_of(self.owners(classes, overlap), classes)

    def label_map_of(
        self, owners: npt.NDArray[np.int32], classes: ClassTable
    ) -> npt.NDArray[np.uint8]:
        """Return the label map (H, W) uint8 of the regions that pixels belong to; see `owners`."""
        values = [classes.index(region.label) for region in self.regions]
        return np.array([*values, NOTHING], np.uint8).take(owners, mode="wrap")  # -1 is the last

    def mask_of(self, region: LabelledRegion) -> BoolMask:
        """Return the mask (H, W) bool of one of its regions.

        Raises:
            DatasetError: it cannot be read, or has another size than the picture.
        """
        mask = region.read_mask()
        if mask.shape != self.size_hw:
            raise DatasetError(
                f"Expected a region of {_size(self.size_hw)} px like its picture, but got "
                f"{_size(mask.shape)}."
            )
        return mask


class PictureRow(msgspec.Struct, frozen=True):
    """What the files of all pictures say of one whose own files are written.

    Attributes:
        task: id of its task.
        name: its name in the data set, without suffix.
        suffix: of its file.
        size_hw: height and width in px.
        digest: of its file.
        source: its address in Label Studio; "data:" where the address is the picture itself.
        regions: label, score and provenance of each region.
        coco: annotations in COCO's format, without ids; empty where they were not asked for.
    """

    task: int
    name: str
    suffix: str
    size_hw: tuple[int, int]
    digest: str
    source: str
    regions: list[dict[str, Any]]
    coco: list[dict[str, Any]]

    @property
    def file_name(self) -> str:
        """Name with the suffix of the picture's file."""
        return self.name + self.suffix


def overlaps() -> tuple[Overlap, ...]:
    """Return the rules for overlaps, the default first."""
    return get_args(Overlap)


def _read_colour(found: Any) -> Colour:
    red, green, blue = (int(each) for each in found)
    if not all(0 <= each <= 255 for each in (red, green, blue)):
        raise ValueError("Expected a colour of 0 to 255.")
    return red, green, blue


def _size(shape_hw: Sequence[int]) -> str:
    """Say a shape in the order of people: width, then height."""
    return "×".join(str(side) for side in reversed(shape_hw))
