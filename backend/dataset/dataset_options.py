"""The choices of a data set, the same for the command, the page and the writers of formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from backend.annotations.annotated_image import AnnotationChoice
from backend.annotations.label_map import LATER, Overlap
from backend.dataset.output_folder import PARTS
from backend.dataset.splits import Split

#: What becomes of the pictures themselves: copied, linked to files of this machine, or only named.
Pictures = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class ChoiceNames:
    """What sentences call the choices: here as the command's options, on the page as its fields."""

    overlap: str = "--overlap"
    fill_rectangles: str = "--fill-rectangles"
    background: str = "--background other"
    renamed: str = "by --map"
    missing_images: str = (
        "name their folder by --picture-folder, or leave pictures out by --pictures none"
    )
    near_duplicates: str = "--near-duplicates"
    resplit: str = "give --resplit"
    min_area: str = "--min-area"


ON_THE_PAGE: Final = ChoiceNames(
    overlap="“Pixels of several regions”",
    fill_rectangles="“Fill rectangles”",
    background="“Class of unpainted pixels”",
    renamed="under “Renamed labels”",
    missing_images="take the tick off “With the pictures”",
    near_duplicates="“Keep near-duplicates in one part”",
    resplit="tick “Divide anew”",
    min_area="“Smallest island”",
)


@dataclass(frozen=True)
class DatasetOptions:
    """Choices of a data set; `formats.writers` says which formats there are."""

    formats: tuple[str, ...] = ("index-png",)
    pictures: Pictures = "copy"
    choice: AnnotationChoice = field(default_factory=AnnotationChoice)
    overlap: Overlap = LATER
    fills_rectangles: bool = False
    background: str = ""  # class of unpainted pixels in label maps; empty: they have none
    by_label: bool = False  # whether all regions of a label in a picture are one object
    min_area_px: int = 20  # islands of fewer pixels are left out of YOLO's files
    split: Split = field(default_factory=Split)
    split_by: str = ""  # field of the tasks' data whose values are kept in one part
    #: Correlation of the thumbnails of near-duplicates, which stay in one part; None: equal files.
    least_correlation: float | None = None
    resplit: bool = False  # whether pictures may leave the part where an earlier set has put them
    renamed: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False
    names: ChoiceNames = ChoiceNames()

    @property
    def image_folder(self) -> str:
        """Folder of the pictures' files, hidden where only tables are made of them."""
        return "images" if self.pictures != "none" else f"{PARTS}/images"

    @property
    def splitting(self) -> str:
        """Text of all that decides the parts, but the pictures."""
        return f"{self.split} {self.split_by} {self.least_correlation or ''}".strip()
