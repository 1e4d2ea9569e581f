"""Files of pictures and label maps: found, read, and written whole; label maps for people."""

import colorsys
import glob
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from clearclip_core.images.opening import open_image, read_rgb
from clearclip_core.images.preprocessing import RGBArray

#: Ends of the names of files that `clearclip segment` writes.
RESULT_SUFFIXES = (".labels.png", ".overlay.png")

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def find_images(patterns: Iterable[str]) -> list[Path]:
    """Find the image files that files, folders and globs name, each once.

    Those of one folder or glob are sorted. Of a folder, files that `clearclip segment` has written
    and hidden files are left out.

    Raises:
        click.BadParameter: a pattern that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            paths = sorted(p for p in path.rglob("*") if is_image(p) and not is_hidden(p, path))
        elif path.is_file():
            paths = [path]
        else:
            matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
            paths = sorted(p for p in matches if p.is_file())
        if not paths:
            raise click.BadParameter(f"no pictures at {pattern!r}.")
        found.update(dict.fromkeys(paths))
    return list(found)


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file in a folder is hidden: its name, or a folder's on the way, begins with a dot.

    macOS keeps ``._photo.jpg`` beside a photo on other systems' drives: its metadata, no image.

    >>> is_hidden(Path("a/._x.jpg"), Path("a")), is_hidden(Path(".a/x.jpg"), Path(".a"))
    (True, False)
    """
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def output_names(paths: Sequence[Path]) -> list[Path]:
    """Choose a different name for each image's results, below the output folder, without a suffix.

    >>> [name.as_posix() for name in output_names([Path("a/x.jpg"), Path("a/y.png")])]
    ['x', 'y']
    >>> [name.as_posix() for name in output_names([Path("a/x.jpg"), Path("b/x.jpg")])]
    ['a/x.jpg', 'b/x.jpg']
    """
    if len({path.stem.casefold() for path in paths}) == len(paths):
        return [Path(path.stem) for path in paths]
    full = [os.path.abspath(path) for path in paths]  # noqa: PTH100 -- links are not followed
    common = os.path.commonpath([os.path.dirname(path) for path in full])  # noqa: PTH120
    return [Path(path).relative_to(common) for path in full]


def is_image(path: Path) -> bool:
    """Whether a path is an image file, by its suffix, and no result of `clearclip segment`."""
    is_result = path.name.endswith(RESULT_SUFFIXES)
    return path.suffix.lower() in _SUFFIXES and not is_result and path.is_file()


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of another when it is complete.

    Missing folders are made. An error or an interrupt leaves the old file as it is, and nothing
    of the new one.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # an interrupt must not leave a partial file, either
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file as a whole; see `replaced`."""
    with replaced(path) as stream:
        stream.write(data)


#: Value of ground-truth pixels that are not counted, as in PASCAL VOC and MMSegmentation.
IGNORE = 255

NOTHING = 254  # value of pixels that are counted, but have no class
_SHOWN = 3  # number of names that a message lists
Truth = npt.NDArray[np.uint8]  # (H, W), the values of a label map file


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


def read_label_values(path: Path) -> Truth:
    """Read the values of a label map: grey levels, or the indices of a palette: (H, W) uint8.

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


NONE_VALUE = 255  # value of "no label" in a label map PNG, as in PASCAL VOC and MMSegmentation

_GOLDEN_ANGLE = 0.381966


def palette(count: int) -> RGBArray:
    """Make (count, 3) uint8 colours that are far apart for neighbouring indices.

    >>> len({tuple(colour) for colour in palette(150).tolist()})
    150
    """
    colours = [
        colorsys.hsv_to_rgb(
            (0.58 + i * _GOLDEN_ANGLE) % 1, (0.85, 0.55, 0.7)[i % 3], (0.95, 0.8, 0.6)[i // 3 % 3]
        )
        for i in range(count)
    ]
    return np.asarray(np.rint(255 * np.array(colours).reshape(-1, 3)), dtype=np.uint8)


#: How strongly a label's colour covers the picture below it: enough to tell the label, little
#: enough to see what the mask covers. The contour says where it ends.
FILL_OPACITY: Final = 0.35

#: A contour's two lines as mixtures of the label's colour: the darker one with black, the lighter
#: one with white. One of them stands out from any picture, also blue from a blue sky.
_DARK_SHARE: Final = 0.65
_LIGHT_SHARE: Final = 0.65

#: Short side in pixels for which a contour gains a pixel on each side.
_CONTOUR_EVERY_PX: Final = 1000


def overlay(
    rgb: RGBArray,
    label_map: npt.NDArray[Any],
    labels: Sequence[str],
    opacity: float = FILL_OPACITY,
) -> Image.Image:
    """Lay the labels' colours over an image, with a legend of the labels in it.

    See `blend` for the arguments, in which `labels` take the place of the colours.
    """
    colours = palette(len(labels))
    shares = label_shares(label_map, len(labels))
    shown = [i for i in np.argsort(-shares).tolist() if shares[i] > 0]
    entries = [(f"{labels[i]}  {shares[i]:.0%}", tuple(colours[i].tolist())) for i in shown]
    return _with_legend(Image.fromarray(blend(rgb, label_map, colours, opacity)), entries)


def blend(
    rgb: RGBArray, label_map: npt.NDArray[Any], colours: RGBArray, opacity: float = FILL_OPACITY
) -> RGBArray:
    """Lay labels' colours over an image, and draw a contour where one label meets another.

    A contour has a light and a dark line, each a pixel wide for a short side below 1,000 pixels,
    two for one below 2,000, and so on.

    Args:
        rgb: (H, W, 3) uint8.
        label_map: (H, W) int, indices into `colours`; -1 for no label.
        colours: (labels, 3) uint8.
        opacity: of the fill, 0 (contours alone) to 1.

    Returns:
        (H, W, 3) uint8.
    """
    last = np.zeros((1, 3))  # of -1, never seen
    table = np.vstack((colours, last)).astype(np.uint8)
    painted = table.take(label_map, axis=0, mode="wrap")
    mixed = cv2.addWeighted(painted, opacity, rgb, 1 - opacity, 0)
    image = cv2.copyTo(rgb, (label_map < 0).astype(np.uint8), mixed)

    # Of two neighbours the lower index has the dark line and the higher one, which is a label, the
    # light one, both in the colour of the higher.
    known = label_map.astype(np.int16)
    side = 2 * (1 + min(known.shape) // _CONTOUR_EVERY_PX) + 1
    around = np.ones((side, side), np.uint8)
    highest, lowest = cv2.dilate(known, around), cv2.erode(known, around)
    is_dark = known < highest
    is_light = (known > lowest) & ~is_dark

    dark = np.rint(table * (1 - _DARK_SHARE)).astype(np.uint8)
    light = np.rint(255 * _LIGHT_SHARE + table * (1 - _LIGHT_SHARE)).astype(np.uint8)
    image[is_dark] = dark[highest[is_dark]]
    image[is_light] = light[known[is_light]]
    return np.asarray(image, np.uint8)


def thumbnail(
    rgb: RGBArray,
    label_map: npt.NDArray[np.signedinteger[Any]],
    colours: RGBArray,
    side_px: int,
    opacity: float = FILL_OPACITY,
) -> RGBArray:
    """Shrink an image to a long side of at most `side_px`, and lay the labels' colours over it.

    See `blend` for the other arguments and the value.
    """
    factor = min(1.0, side_px / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels = cv2.resize(label_map.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
    return blend(small, labels, colours, opacity)


def label_shares(label_map: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    """Compute (count,) the share of a label map's pixels that each label has.

    >>> label_shares(np.array([[0, 0, 2, -1]]), 3).tolist()
    [0.5, 0.0, 0.25]
    """
    inside = label_map[label_map >= 0]
    return np.asarray(np.bincount(inside.ravel(), minlength=count) / label_map.size)


def _with_legend(image: Image.Image, entries: list[tuple[str, tuple[int, ...]]]) -> Image.Image:
    size = max(12, min(image.size) // 28)
    font = ImageFont.load_default(size)
    line = round(size * 1.6)
    rows = max(1, (image.height - size) // line)
    column = size * 3 + max((round(font.getlength(text)) for text, _ in entries), default=0)
    columns = -(-len(entries) // rows)
    canvas = Image.new("RGB", (image.width + columns * column, image.height), "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for index, (text, colour) in enumerate(entries):
        x = image.width + index // rows * column + size // 2
        y = size // 2 + index % rows * line
        draw.rectangle((x, y, x + size, y + size), fill=colour)
        draw.text((x + size * 1.5, y + size / 2), text, fill="black", font=font, anchor="lm")
    return canvas
