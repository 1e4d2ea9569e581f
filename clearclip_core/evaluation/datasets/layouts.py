"""Layouts of data sets: folders and names of images and label maps, as MMSegmentation has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clearclip_core.images.files import is_hidden
from clearclip_core.images.label_maps import LayoutError, PictureFiles

#: Number of names that a message lists.
_SHOWN = 3

#: End of the names of label maps that are made from published ones.
_DERIVED = "TrainIds"


@dataclass(frozen=True)
class Layout:
    """Folders, suffixes, and the file that lists the images.

    The label map of ``PICTURES/x/y`` + `picture_suffix` is ``MAPS/x/y`` + `map_suffix`.

    Attributes:
        pictures: folder of the images, below the data set's.
        picture_suffix: end of the images' names.
        maps: folder of the label maps.
        map_suffix: end of the label maps' names.
        listing: text file with the name of an image on each line; None for all files in
            `pictures` and `maps`.
    """

    pictures: str
    picture_suffix: str
    maps: str
    map_suffix: str
    listing: str | None = None

    def find(self, root: Path) -> list[PictureFiles]:
        """Find all images of a data set, in the order of the listing, or of their names.

        Raises:
            LayoutError: a folder, the listing, an image, or a label map is missing.
        """
        self._check_folders(root)
        names = self._listed(root) if self.listing else self._found(root)
        found = [
            PictureFiles(
                name,
                root / self.pictures / f"{name}{self.picture_suffix}",
                root / self.maps / f"{name}{self.map_suffix}",
            )
            for name in names
        ]
        if not found:
            where = self.listing or f"{self.pictures}/**/*{self.picture_suffix}"
            raise LayoutError(f"Expected pictures at {root / where}, but there are none.")
        _check_files("picture", [sample.picture for sample in found])
        _check_files("label map", [sample.label_map for sample in found])
        return found

    def missing(self, root: Path) -> list[str]:
        """Return the folders and files of the layout that `root` lacks."""
        folders = [name for name in (self.pictures, self.maps) if not (root / name).is_dir()]
        listing = [self.listing] if self.listing and not (root / self.listing).is_file() else []
        return [*(f"{name}/" for name in folders), *listing]

    def _check_folders(self, root: Path) -> None:
        missing = self.missing(root)
        if not missing:
            return
        if not root.is_dir():
            raise LayoutError(f"Expected a folder at {root}, but there is none.")
        raise LayoutError(
            f"Expected {root} to hold {', '.join(self._wanted)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there; it holds {_inside(root)}."
            f"{self._hint(root)}"
        )

    @property
    def _wanted(self) -> list[str]:
        return [f"{self.pictures}/", f"{self.maps}/", *([self.listing] if self.listing else [])]

    def _hint(self, root: Path) -> str:
        """Return a hint at a folder below `root` that fits the layout, or ""."""
        below = sorted(path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_dir())
        fitting = next((path for path in below if not self.missing(path)), None)
        return f" Did you mean {fitting}?" if fitting else ""

    def _listed(self, root: Path) -> list[str]:
        assert self.listing is not None
        lines = (root / self.listing).read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
        if len(set(names)) != len(names):
            raise LayoutError(f"Expected {root / self.listing} to list each picture once.")
        return names

    def _found(self, root: Path) -> list[str]:
        pictures = _names(root / self.pictures, self.picture_suffix)
        return sorted(pictures | _names(root / self.maps, self.map_suffix))


def _names(folder: Path, suffix: str) -> set[str]:
    found = (path for path in folder.rglob(f"*{suffix}") if not is_hidden(path, folder))
    paths = (path.relative_to(folder).as_posix() for path in found)
    names = (path.removesuffix(suffix) for path in paths)
    return {name for name in names if not name.endswith(_DERIVED)}  # beside the published ones


def _check_files(kind: str, paths: list[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return
    names = ", ".join(str(path) for path in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    raise LayoutError(
        f"Expected {len(paths)} {kind}s, but {len(missing)} are not there: {names}{more}."
        f"{_hint_of_suffix(missing[0])}"
    )


def _hint_of_suffix(missing: Path) -> str:
    """Return a hint at files with another suffix beside a missing file, or ""."""
    stem = missing.name.split(".")[0].split("_labelTrainIds")[0].split("_instanceTrainIds")[0]
    others = sorted(path.name for path in missing.parent.glob(f"{stem}*"))
    return f" There is {_some(others)}." if others else ""


def _inside(root: Path) -> str:
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())
    return _some(names) if names else "nothing"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - 2 * _SHOWN} more" if len(every) > 2 * _SHOWN else ""
    return ", ".join(every[: 2 * _SHOWN]) + more
