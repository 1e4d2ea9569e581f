"""What a format of a data set writes: the one protocol of all of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.annotations.label_map import Overlap
from backend.dataset.labelled_image import ClassTable, LabelledObject, PictureRow
from backend.dataset.output_folder import OutputFolder
from clearclip_core import BoolMask, RGBArray

#: Iterates over the pictures of a part, each time that it is called.
ReadRows = Callable[[], Iterator[PictureRow]]


@dataclass(frozen=True)
class SetFrame:
    """What is the same for all pictures of a data set.

    Attributes:
        source: name of what it is made of, such as the address of a project.
        image_folder: folder of the pictures' files, hidden where only tables are made of them.
    """

    output: OutputFolder
    classes: ClassTable
    parts: tuple[str, ...]
    source: str
    annotations: str
    overlap: Overlap
    image_folder: str
    min_area_px: int


@dataclass(frozen=True)
class WrittenPicture:
    """A picture whose own files are written.

    Attributes:
        name: of its files, without a suffix.
        label_map: (H, W) uint8, where the writer has label maps.
        rgb: (H, W, 3) uint8, where it has pictures.
    """

    name: str
    label_map: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    rgb: RGBArray | None = field(default=None, repr=False, compare=False)

    @cached_property
    def label_png(self) -> bytes:
        """Its label map as a grey PNG: of a palette others read grey levels, without a word."""
        assert self.label_map is not None, "has_label_maps"
        file = io.BytesIO()
        # Three times faster than at the default level, 6; the files are a third larger.
        Image.fromarray(self.label_map).save(file, "PNG", compress_level=3)
        return file.getvalue()


class FormatWriter:
    """Writes one format: files of each picture first, then those of a part, then those of all.

    To add a format, write a class below this one, put it into `exporter.FORMATS`, and say in the
    guide what it is for. The command and the page take the rest from here.

    Attributes:
        name: as the command has it.
        title: as the page has it.
        files: names of the files and folders that it writes into the data set's folder.
        library: what must be installed for it; empty: nothing.
        has_objects: whether `entry` is asked of each object.
        keeps_entries: whether entries wait in the rows until a part is written.
        has_label_maps: whether pictures come with their label maps.
        has_pictures: whether pictures are read and their files copied for it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    files: ClassVar[frozenset[str]]
    library: ClassVar[str] = ""
    has_objects: ClassVar[bool] = False
    keeps_entries: ClassVar[bool] = False
    has_label_maps: ClassVar[bool] = False
    has_pictures: ClassVar[bool] = False

    def __init__(self, frame: SetFrame) -> None:
        self.frame = frame

    def entry(self, thing: LabelledObject, mask: BoolMask) -> Any:
        """Return what the format says of an object with a pixel or more; None for nothing."""

    def picture_files(self, picture: WrittenPicture, entries: Sequence[Any]) -> Mapping[str, bytes]:
        """Return the own files of a picture, path -> bytes, given the entries of its objects."""
        return {}

    def write_part(self, part: str, rows: ReadRows) -> None:
        """Write the files of one part."""

    def finish(self) -> None:
        """Write the files that are of all parts."""

    def notes(self) -> Iterator[str]:
        """Iterate over sentences for the report."""
        yield from ()
