"""The masks of one picture in a data set, to be read when the size of the picture is known."""

import stat
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.annotations.regions import LabelledRegion
from backend.errors import DatasetError
from clearclip_core.images.files import is_hidden

#: Bytes of a file, its name for errors, the size (H, W) of its picture -> the regions.
ReadFile = Callable[[bytes, str, tuple[int, int]], Iterable[LabelledRegion]]


@dataclass(frozen=True)
class Limits:
    """What a file with masks of one picture may have at most: MiB, and millions of pixels."""

    max_file_mb: int = 100
    max_megapixels: float = 150


@dataclass(frozen=True)
class MaskSource:
    """The masks of one picture, which are not read yet."""

    name: str  # path of the picture in the data set; with its suffix where the format says it
    where: str  # the file, for errors
    #: Reads the regions of a picture of a height and width in px.
    read_regions: Callable[[tuple[int, int]], Iterable[LabelledRegion]] = field(
        repr=False, compare=False
    )
    other_name: str = ""  # of the picture, where no picture has the first one
    has_objects: bool = False  # whether each region is a thing, whose parts belong together
    size_hw: tuple[int, int] | None = None  # the size of the picture, where the file says it

    @classmethod
    def of_file(
        cls, path: Path, root: Path, limits: Limits, read: ReadFile, *, has_objects: bool = False
    ) -> "MaskSource":
        """Return the masks of a file, which has the name of its picture below a folder."""
        where = relative_name(path, root)

        def read_regions(image_hw: tuple[int, int]) -> Iterable[LabelledRegion]:
            return read(read_bytes(path, limits), where, image_hw)

        name = where[: len(where) - len(path.suffix)]
        return cls(name, where, read_regions, has_objects=has_objects)


def find_below(
    folder: Path,
    below: Sequence[str],
    suffix: str,
    is_wanted: Callable[[Path], bool] = lambda _: True,
) -> tuple[Path, list[Path]]:
    """Find the files of a data set, without hidden ones and links that lead out of the folder, and
    the folder that names start from: the first one of names `below` that is there, else itself."""
    root = next((folder / name for name in below if (folder / name).is_dir()), folder)
    home = folder.resolve()
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() == suffix
        and path.is_file()
        and is_wanted(path)
        and not is_hidden(path, root)
        and path.resolve().is_relative_to(home)
    )
    return root, files


def relative_name(path: Path, folder: Path) -> str:
    """Return the path of a file below a folder in composed letters, which macOS decomposes."""
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())


def read_bytes(path: Path, limits: Limits) -> bytes:
    """Read a file within the limit.

    Raises:
        DatasetError: it is too large, cannot be read, or is no file, such as a pipe, for whose
            writer a reader would wait.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DatasetError(f"{path} is no file.")
        if found.st_size > limits.max_file_mb << 20:
            raise DatasetError(f"{path} is over the limit of {limits.max_file_mb} MB.")
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from None


def check_mask_size(where: str, found_hw: Sequence[int], image_hw: tuple[int, int]) -> None:
    """Raise a `DatasetError` where masks have another size than their picture."""
    if tuple(found_hw) != image_hw:
        found, wanted = (f"{width}×{height} px" for height, width in (found_hw, image_hw))
        raise DatasetError(f"{where} is {found}, but its picture {wanted}.")


def read_score(given: Any) -> float | None:
    """Return the probability that a file gives for a mask; None where it is none in [0, 1]."""
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 1:
        return float(given)
    return None
