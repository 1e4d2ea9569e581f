"""Label map files: their values, and the images that they belong to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clearclip_core.images.files import is_hidden, is_image
from clearclip_core.images.opening import open_image, read_rgb
from clearclip_core.images.preprocessing import RGBArray

#: (H, W) uint8, the values of a label map file.
Truth = npt.NDArray[np.uint8]

#: Value of ground-truth pixels that are not counted, as in PASCAL VOC and MMSegmentation.
IGNORE: Final = 255

#: Value of pixels that are counted, but have no class.
NOTHING: Final = 254

#: Value of "no label" in a label map PNG, as in PASCAL VOC and MMSegmentation.
NONE_VALUE: Final = 255

_MOST_NAMED = 3  # names that a message lists


class LayoutError(ValueError):
    """A folder that does not fit a layout; the message names what was expected and found."""


@dataclass(frozen=True)
class PictureFiles:
    """Paths of an image of a data set and of its ground truth."""

    name: str  # path of the image below the folder of images, without suffix
    picture: Path
    label_map: Path  # path of the label map, a grey or palette PNG of class indices

    @property
    def paths(self) -> tuple[Path, Path]:
        return self.picture, self.label_map

    def read(self, indices: Sequence[int | None]) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB and (H, W) uint8 class indices, see `class_indices`.

        Raises:
            LayoutError: a file cannot be read, they differ in size, or a value has no class.
        """
        try:
            rgb = read_rgb(self.picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise LayoutError(f"{self.picture} cannot be read: {error}") from error
        label_map = read_label_values(self.label_map)
        if label_map.shape != rgb.shape[:2]:
            raise LayoutError(
                f"Expected {self.label_map} to be as large as its picture, "
                f"{_size(rgb)} px, but it has {_size(label_map)}."
            )
        try:
            return rgb, class_indices(label_map, indices)
        except ValueError as error:
            raise LayoutError(f"{self.label_map}: {error}") from error


def pair_files(images: Path, masks: Path) -> list[PictureFiles]:
    """Pair the images of a folder with the PNGs of another that have the same path below it.

    Images without a label map are left out: often only some of a folder have been labelled. Both
    folders may be one, or one may lie in the other.

    Args:
        images: folder of images, in folders below it or not.
        masks: folder of label maps.

    Returns:
        The pairs in the order of their names.

    Raises:
        LayoutError: a missing folder, no pair, a label map without an image, or two images of one
            name.
    """
    image_files, mask_files = _files(images), _files(masks)
    maps = _by_name(masks, [path for path in mask_files if path.suffix.lower() == ".png"])
    taken = {path.resolve() for path in maps.values()}
    pictures = _by_name(images, [path for path in image_files if path.resolve() not in taken])
    if not maps:
        raise LayoutError(f"Expected label maps at {masks}/**/*.png, but there are none.")

    lonely = sorted(set(maps) - set(pictures))
    if lonely:
        raise LayoutError(
            f"Expected a picture in {images} for each label map in {masks}, but there is none "
            f"for {len(lonely)} of {len(maps)}: {', '.join(lonely[:_MOST_NAMED])}."
        )

    return [PictureFiles(name, pictures[name], maps[name]) for name in sorted(maps)]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LayoutError(f"Expected a folder at {folder}, but there is none.")
    return sorted(p for p in folder.rglob("*") if is_image(p) and not is_hidden(p, folder))


def _by_name(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    found = [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice:
        raise LayoutError(f"Expected one file of each name in {folder}: {twice[0]} has more.")
    return dict(found)


def read_label_values(path: Path) -> Truth:
    """Read the values of a label map: grey levels, or the indices of a palette.

    Args:
        path: path of a grey or palette image (Pillow's modes L and P).

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

    Returns:
        (H, W) uint8.

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


def label_shares(label_map: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    """Compute the share of a label map's pixels that each label has.

    Args:
        label_map: (H, W) int, index of each pixel's label; -1 for none.
        count: number of labels.

    Returns:
        (count,) float64 in [0, 1]; their sum is below 1 where pixels have no label.

    >>> label_shares(np.array([[0, 0, 2, -1]]), 3).tolist()
    [0.5, 0.0, 0.25]
    """
    inside = label_map[label_map >= 0]
    return np.asarray(np.bincount(inside.ravel(), minlength=count) / label_map.size)
