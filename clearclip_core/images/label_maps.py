"""Folders of images with label maps: pair their files, and read the label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearclip_core.images.files import is_hidden, is_image
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import RGBArray, to_rgb

#: Value of ground-truth pixels that are not counted, as in PASCAL VOC and MMSegmentation.
IGNORE = 255

#: Value of pixels that are counted, but have no class.
NOTHING = 254

#: Number of names that a message lists.
_SHOWN = 3

#: (H, W), the values of a label map file.
Truth = npt.NDArray[np.uint8]


class LayoutError(ValueError):
    """A folder that does not fit a layout; the message names what was expected and found."""


@dataclass(frozen=True)
class PictureFiles:
    """Paths of an image of a data set and of its ground truth.

    Attributes:
        name: path of the image below the folder of images, without suffix.
        picture: path of the image.
        label_map: path of the label map, a grey or palette PNG of class indices.
    """

    name: str
    picture: Path
    label_map: Path

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB and the (H, W) uint8 values of the label map.

        Raises:
            LayoutError: a file cannot be read, or they differ in size.
        """
        try:
            with open_image(self.picture) as picture:
                rgb = to_rgb(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise LayoutError(f"{self.picture} cannot be read: {error}") from error
        label_map = read_label_map(self.label_map)
        if label_map.shape != rgb.shape[:2]:
            raise LayoutError(
                f"Expected {self.label_map} to be as large as its picture, "
                f"{_size(rgb)} px, but it has {_size(label_map)}."
            )
        return rgb, label_map


def pair_files(images: Path, masks: Path) -> list[PictureFiles]:
    """Pair the images of a folder with the PNGs of another that have the same path below it.

    Images without a label map are left out: often only some of a folder have been labelled. Both
    folders may be one, or one may lie in the other.

    Args:
        images: folder of images, in folders below it or not.
        masks: folder of label maps.

    Returns:
        The pairs by name.

    Raises:
        LayoutError: a missing folder, no pair, a label map without an image, or two images of one
            name.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise LayoutError(f"Expected a folder at {folder}, but there is none.")
    found = [path for path in _files(masks) if path.suffix.lower() == ".png"]
    maps = _by_name(masks, found)
    taken = {path.resolve() for path in found}
    pictures = _by_name(images, [path for path in _files(images) if path.resolve() not in taken])
    if not maps:
        raise LayoutError(f"Expected label maps at {masks}/**/*.png, but there are none.")
    lonely = sorted(set(maps) - set(pictures))
    if lonely:
        raise LayoutError(
            f"Expected a picture in {images} for each label map in {masks}, but there is none "
            f"for {len(lonely)} of {len(maps)}: {', '.join(lonely[:_SHOWN])}."
        )
    return [PictureFiles(name, pictures[name], maps[name]) for name in sorted(maps)]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if is_image(p) and not is_hidden(p, folder))


def _by_name(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    found = [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice:
        raise LayoutError(f"Expected one file of each name in {folder}: {twice[0]} has more.")
    return dict(found)


def read_label_map(path: Path) -> Truth:
    """Read the values of a label map: grey levels, or the indices of a palette.

    Returns:
        (H, W) uint8.

    Raises:
        LayoutError: the file cannot be read, or is an image in colour.
    """
    try:
        with open_image(path) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise LayoutError(f"{path} cannot be read: {error}") from error
    if mode not in ("L", "P"):
        raise LayoutError(
            f"Expected {path} to be a grey or palette picture of class indices (mode L or P), but "
            f"its mode is {mode}."
        )
    return np.asarray(values, np.uint8)


def class_indices(values: Truth, indices: Sequence[int | None]) -> Truth:
    """Replace the values of a label map by class indices.

    Args:
        values: (H, W), the values of a label map; 255 stays.
        indices: for each value from 0 on, its class index; -1 for pixels without a class, which
            become 254, and None for pixels that are not counted, which become 255.

    Raises:
        ValueError: the map holds a value without an entry in `indices`.

    >>> class_indices(np.array([[0, 1, 2, 255]], np.uint8), [-1, 0, None]).tolist()
    [[254, 0, 255, 255]]
    """
    wrong = np.unique(values[(values >= len(indices)) & (values != IGNORE)])
    if wrong.size:
        raise ValueError(
            f"Expected a label map to hold 0 to {len(indices) - 1} and {IGNORE}, but got "
            f"{wrong[0]}."
        )
    table = np.full(256, IGNORE, np.uint8)
    for value, index in enumerate(indices):
        table[value] = IGNORE if index is None else NOTHING if index < 0 else index
    return table[values]


def _size(array: npt.NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"
