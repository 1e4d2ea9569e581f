"""Say and show what masks a folder has, before a project is asked: counts, and a few overlays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
import numpy as np
from PIL import Image

from backend.dataset.formats.layout import FoundMasks, SetFolder
from backend.dataset.image_file import ImageFile, read_image_file
from backend.dataset.mask_source import Limits, MaskSource, check_mask_size, read_bytes
from backend.errors import DatasetError, TaskError
from clearclip_core import BoolMask
from clearclip_core.images.drawing import blend, palette
from clearclip_core.images.opening import open_image
from clearclip_core.quantities import grouped, quantity

_LOOKED_AT: Final = 30  # pictures whose masks are read, spread over all
_OVERLAYS: Final = 3
_SHOWN: Final = 40  # classes, or problems
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")


class PreviewedClass(msgspec.Struct):
    """A class in the pictures that were looked at: how many have it, and its share of pixels."""

    pictures: int = 0
    pixels: int = 0


@dataclass
class MaskPreview:
    """What was found in a folder."""

    layout: str
    files: int  # pictures that masks are for
    pictures: int  # of these, pictures that lie in the folder
    looked_at: int = 0  # of the first, those whose masks were read
    pixels: int = 0  # of those
    classes: dict[str, PreviewedClass] = field(default_factory=dict)
    overlays: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def describe(self, path: Path, command: str) -> str:
        """Return what was found in a folder, and the command that brings it into a project."""
        lines = [
            f"{path} is {self.layout}.",
            f"Masks of {quantity(self.files, 'picture')}; {grouped(self.pictures)} of these "
            "pictures lie in the folder.",
            *self._class_lines(),
        ]
        if self.overlays:
            lines.append("Look at the masks on the pictures, whether they fit:")
            lines += [f"  {each}" for each in self.overlays]
        elif not self.pictures:
            lines.append("No overlay was made: the pictures are not there.")
        if self.problems:
            lines.append("What is wrong:")
            lines += [f"  {each}" for each in self.problems[:_SHOWN]]
        lines += ["What fits a project, and what does not:", f"  {command}"]
        return "\n".join(lines)

    def _class_lines(self) -> Iterator[str]:
        among = "all" if self.looked_at == self.files else quantity(self.looked_at, "picture")
        yield f"{quantity(len(self.classes), 'class', 'classes')} in {among} that were read:"
        by_area = sorted(self.classes.items(), key=lambda item: -item[1].pixels)
        for name, each in by_area[:_SHOWN]:
            share = 100 * each.pixels / max(1, self.pixels)
            where = quantity(each.pictures, "picture")
            yield f"  {name}: in {where}, {share:.1f} % of the pixels"
        if len(by_area) > _SHOWN:
            yield f"  and {len(by_area) - _SHOWN} more"


class PictureFinder:
    """Finds the picture of masks among the files of a folder."""

    def __init__(self, folder: SetFolder, image_folders: Sequence[str]) -> None:
        self._folder = folder
        self._image_folders = frozenset(image_folders)
        self._by_stem: dict[str, list[str]] = {}
        for name in folder.files:
            if name.lower().endswith(_SUFFIXES):
                self._by_stem.setdefault(_stem(name), []).append(name)

    def find(self, source: MaskSource) -> Path | None:
        """Return the picture of masks, which is none of their own files; None without one.

        Of several files of a name, that in the folders of the layout's pictures counts, else the
        one that shares the most of its path, else a JPEG.
        """
        wanted = (source.name, source.other_name)
        named = (self._by_stem.get(_stem(each), ()) for each in wanted if each)
        found = [name for name in next(filter(None, named), ()) if not self._is_mask(name, source)]
        best = max(found, key=lambda name: self._rank(name, source.name), default=None)
        return None if best is None else self._folder.place(best)

    def mask_file(self, source: MaskSource) -> Path | None:
        """Return the file of masks, if it is one of the folder."""
        names = (name for name in self._folder.files if self._is_mask(name, source))
        name = next(names, None)
        return None if name is None else self._folder.place(name)

    def _is_mask(self, name: str, source: MaskSource) -> bool:
        if source.where == source.name:  # where a file has the masks of many pictures
            return False
        return name == source.where or name.endswith(f"/{source.where}")

    def _rank(self, name: str, wanted: str) -> tuple[int, int, bool]:
        parts, asked = PurePosixPath(name).parts, PurePosixPath(wanted).parts
        in_folder = len(self._image_folders.intersection(parts))
        return in_folder, len(set(parts) & set(asked)), not name.lower().endswith(".png")


def _stem(name: str) -> str:
    """Return the name of a file without folders, and without the suffix of a picture."""
    return re.sub(r"\.(?:jpe?g|png|bmp|tiff?|webp|gif)$", "", name.rpartition("/")[2], flags=re.I)


def preview_masks(
    found: FoundMasks, folder: SetFolder, limits: Limits, names: Path | None, to: Path
) -> MaskPreview:
    """Read some of the masks of a folder, and write overlays of a few of its pictures.

    Args:
        found: the masks.
        folder: the folder.
        limits: of a file with masks, and of a picture.
        names: the file of classes that a person has given.
        to: the folder for the overlays.

    Raises:
        DatasetError: its files cannot be read at all, or their classes are not said.
    """
    sources = list(found.read(limits, names))
    finder = PictureFinder(folder, found.image_folders)
    preview = MaskPreview(
        found.layout, len(sources), sum(finder.find(each) is not None for each in sources)
    )
    step = max(1, len(sources) // _LOOKED_AT)
    for source in sources[::step][:_LOOKED_AT]:
        try:
            _look_at(source, finder, limits, preview, to)
        except (DatasetError, TaskError) as error:
            preview.problems.append(str(error))
    return preview


def _look_at(
    source: MaskSource, finder: PictureFinder, limits: Limits, preview: MaskPreview, to: Path
) -> None:
    """Count the classes of one picture, and lay them over it while overlays are wanted."""
    path = finder.find(source)
    image = None
    if path is not None:
        image = read_image_file(read_bytes(path, limits), limits.max_megapixels)
    size_hw = image.size_hw if image is not None else _size_of(source, finder)
    check_mask_size(source.where, source.size_hw or size_hw, size_hw)

    masks = [(each.label, each.read_mask()) for each in source.read_regions(size_hw)]
    preview.looked_at += 1
    preview.pixels += size_hw[0] * size_hw[1]
    _count(masks, preview)
    has_mask = any(mask.any() for _, mask in masks)
    if image is not None and has_mask and len(preview.overlays) < _OVERLAYS:
        file = to / f"{len(preview.overlays) + 1}-{_stem(source.name)[:80]}.jpg"
        _write_overlay(image, masks, list(preview.classes), file)
        preview.overlays.append(file)


def _count(masks: Iterable[tuple[str, BoolMask]], preview: MaskPreview) -> None:
    pixels = Counter[str]()
    for label, mask in masks:
        pixels[label] += int(np.count_nonzero(mask))
    for label, count in pixels.items():
        if count:
            each = preview.classes.setdefault(label, PreviewedClass())
            each.pictures += 1
            each.pixels += count


def _write_overlay(
    image: ImageFile,
    masks: Iterable[tuple[str, BoolMask]],
    names: Sequence[str],
    file: Path,
) -> None:
    label_map = np.full(image.size_hw, -1, np.int16)
    for label, mask in masks:
        if label in names:
            label_map[mask] = names.index(label)
    shown = blend(image.rgb, label_map, palette(len(names)))
    Image.fromarray(shown).save(file, "JPEG", quality=85)


def _size_of(source: MaskSource, finder: PictureFinder) -> tuple[int, int]:
    """Return the height and width of masks whose picture is not there."""
    path = finder.mask_file(source)
    if source.size_hw is None and path is not None and path.suffix.lower() == ".png":
        with suppress(OSError), open_image(path, formats=("PNG",)) as image:
            return image.height, image.width
    if source.size_hw is None:
        raise DatasetError(f"{source.where}: its picture is not in the folder.")
    return source.size_hw
