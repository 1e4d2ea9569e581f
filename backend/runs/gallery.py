"""Draw pictures of a data set while it is written: what one looks at before one trains with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from backend.annotations.label_map import MapRule, draw_label_map
from backend.annotations.regions import LabelledRegion
from backend.dataset.dataset_report import AlikeImage, AlikePair, ClassCount, DatasetReport
from backend.dataset.exporter import SeenImage
from backend.dataset.image_file import read_image_file
from backend.dataset.output_folder import IMAGES_FILE
from backend.label_studio.label_config import LabelConfig
from backend.runs.crops import crop_of
from backend.runs.label_errors import painted
from clearclip_core.images.drawing import palette, thumbnail
from clearclip_core.images.opening import to_data_url

_SHOWN: Final = 6  # pictures under their masks
_LACKED: Final = 12  # classes that a part lacks; one picture is shown of each

#: Long sides in px.
_SIDE_PX: Final = 320
_CROP_PX: Final = 160


class ShownImage(msgspec.Struct, frozen=True):
    """A picture, or a part of it."""

    task: int
    part: str
    picture: str  # data URL of a JPEG; "" where the data set has no file of it


class ShownPair(msgspec.Struct, frozen=True):
    """Two pictures of different parts that are nearly the same."""

    correlation: float
    images: tuple[ShownImage, ShownImage]


class Gallery(msgspec.Struct, frozen=True):
    """Pictures of a data set."""

    images: list[ShownImage] = []  # under their masks
    colours: dict[str, str] = {}  # class that they show -> its colour, as in CSS
    lacked: dict[str, ShownImage] = {}  # class that a part lacks -> a place that has it
    alike: list[ShownPair] = []


@dataclass(frozen=True, eq=False)
class GalleryMaker:
    """Draws some pictures while a data set is written, as pages draw masks.

    Of all pictures, those are shown whose files have the lowest digests, so that chance chooses
    them, and a data set of the same pictures shows the same; pictures without a region come last.
    """

    config: LabelConfig
    rule: MapRule
    _images: dict[tuple[bool, str, str], _Drawn] = field(default_factory=dict)
    _crops: dict[str, _Drawn] = field(default_factory=dict)  # by class

    def add(self, seen: SeenImage) -> None:
        """Look at a picture of the data set, and draw it if it is to be shown."""
        key = not seen.labelled.regions, seen.digest, seen.name
        if len(self._images) < _SHOWN or key < max(self._images):
            self._images[key] = self._draw(seen)
            if len(self._images) > _SHOWN:
                del self._images[max(self._images)]

        for region in seen.labelled.regions:
            if region.label not in self._crops:
                self._crop(seen, region)

    def _draw(self, seen: SeenImage) -> _Drawn:
        labels = self._labels(seen)
        regions = seen.labelled.regions
        label_map = painted(draw_label_map(regions, seen.file.size_hw, self.rule).truth(labels))
        legend = self.config.legend_of(seen.tag)
        shown = {name: legend[name] for name in labels if any(r.label == name for r in regions)}
        colours = self.config.colours_of(seen.tag)
        picture = to_data_url(thumbnail(seen.file.rgb, label_map, colours, _SIDE_PX))
        return _Drawn(seen.task, seen.name, picture, shown)

    def _crop(self, seen: SeenImage, region: LabelledRegion) -> None:
        labels, mask = self._labels(seen), region.read_mask()
        if region.label in labels and mask.any():
            colour = self.config.colours_of(seen.tag)[[labels.index(region.label)]]
            picture = crop_of(seen.file.rgb, mask, colour, _CROP_PX)
            self._crops[region.label] = _Drawn(seen.task, seen.name, picture)

    def _labels(self, seen: SeenImage) -> list[str]:
        return [label.name for label in self.config.labels_of(seen.tag)]

    def finish(self, report: DatasetReport, folder: Path, max_megapixels: float) -> Gallery:
        """Return the pictures of a data set that is written into a folder.

        Raises:
            OSError: the folder cannot be read.
        """
        shown = [self._images[key] for key in sorted(self._images)]
        lacking = list(lacking_classes(report.classes))[:_LACKED]
        lacked = {name: self._crops[name] for name in lacking if name in self._crops}
        parts = _parts(folder, {each.name for each in (*shown, *lacked.values())})

        colours: dict[str, str] = {}
        for each in shown:
            colours |= each.colours
        return Gallery(
            [each.in_part(parts) for each in shown],
            colours,
            {name: each.in_part(parts) for name, each in lacked.items()},
            [_pair(each, folder, max_megapixels) for each in report.alike],
        )


class _Drawn(msgspec.Struct, frozen=True):
    """A picture that is drawn before its part is known."""

    task: int
    name: str
    picture: str
    colours: dict[str, str] = {}

    def in_part(self, parts: Mapping[str, str]) -> ShownImage:
        return ShownImage(self.task, parts[self.name], self.picture)


class _Row(msgspec.Struct):
    image: str
    part: str


def lacking_classes(classes: Mapping[str, Mapping[str, ClassCount]]) -> Iterator[str]:
    """Iterate over the classes that some parts of a data set have, and others lack."""
    for name, counts in classes.items():
        pictures = [each.pictures for each in counts.values()]
        if any(pictures) and not all(pictures):
            yield name


def _parts(folder: Path, names: set[str]) -> dict[str, str]:
    """Return the part of each picture of some names."""
    with (folder / IMAGES_FILE).open("rb") as lines:
        rows = (msgspec.json.decode(line, type=_Row) for line in lines)
        return {row.image: row.part for row in rows if row.image in names}


def _pair(pair: AlikePair, folder: Path, max_megapixels: float) -> ShownPair:
    one, other = (_small(each, folder, max_megapixels) for each in pair.images)
    return ShownPair(pair.correlation, (one, other))


def _small(image: AlikeImage, folder: Path, max_megapixels: float) -> ShownImage:
    """Return a picture of a data set without masks, shrunk."""
    file = folder / "images" / image.image
    if not file.is_file():
        return ShownImage(image.task, image.part, "")
    rgb = read_image_file(file.read_bytes(), max_megapixels).rgb
    nothing = np.full(rgb.shape[:2], -1, np.int16)
    picture = to_data_url(thumbnail(rgb, nothing, palette(1), _SIDE_PX))
    return ShownImage(image.task, image.part, picture)
