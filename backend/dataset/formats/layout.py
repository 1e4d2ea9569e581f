"""A published way to lay out masks in a folder: what it is called, known by, and read with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from backend.dataset.mask_source import Limits, MaskSource
from clearclip_core.images.files import is_hidden

_HEAD_BYTES: Final = 1 << 16
_LOOKED_AT: Final = 20  # files of one suffix whose beginning is read, spread over all

#: Reads masks within limits; a file names the classes where a person has given one.
ReadMasks = Callable[[Limits, Path | None], Iterator[MaskSource]]


class SetFolder:
    """The files of a data set, listed once: those of a folder, or the one that is named.

    Hidden files are passed over, and links that lead out of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path if path.is_dir() else path.parent
        self._heads: dict[str, Mapping[str, bytes]] = {}

    @cached_property
    def files(self) -> Sequence[str]:
        """Paths of the files below `root`, with slashes, in alphabetical order."""
        if self.path != self.root:
            return (self.path.name,)
        return tuple(sorted(_files_below(self.root)))

    def place(self, name: str) -> Path:
        """Return the path of one of the `files`."""
        return self.root / name

    def matches(self, pattern: re.Pattern[str]) -> list[re.Match[str]]:
        """Return the matches of a pattern with the whole of paths."""
        return [match for name in self.files if (match := pattern.fullmatch(name))]

    def find(self, *names: str) -> Path | None:
        """Return the first file of a name that lies least deep, or one folder above `root`."""
        for name in names:
            found = [each for each in self.files if each.rpartition("/")[2] == name]
            if found:
                return self.place(min(found, key=lambda each: each.count("/")))
            if (self.root.parent / name).is_file():
                return self.root.parent / name
        return None

    def heads(self, suffix: str) -> Mapping[str, bytes]:
        """Return the beginnings, up to 64 kB, of some files of a suffix such as ``.json``."""
        if suffix not in self._heads:
            some = [name for name in self.files if name.lower().endswith(suffix)]
            step = max(1, len(some) // _LOOKED_AT)
            self._heads[suffix] = {name: self.head(name) for name in some[::step][:_LOOKED_AT]}
        return self._heads[suffix]

    def head(self, name: str) -> bytes:
        """Return the beginning of a file, up to 64 kB; empty where it cannot be read."""
        try:
            with self.place(name).open("rb") as file:
                return file.read(_HEAD_BYTES)
        except OSError:
            return b""


def _files_below(root: Path) -> Iterator[str]:
    home = root.resolve()
    for place, folders, names in os.walk(root):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for name in names:
            path = Path(place, name)
            if is_hidden(path, root) or not path.is_file():
                continue
            if not path.is_symlink() or path.resolve().is_relative_to(home):
                yield path.relative_to(root).as_posix()


@dataclass(frozen=True)
class FoundMasks:
    """Masks that a layout has found in a folder."""

    layout: str  # its name, such as "Cityscapes"
    read: ReadMasks = field(repr=False, compare=False)
    #: Names of folders with the pictures, where others hold files of the same names.
    image_folders: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """A published way to lay out masks.

    Args:
        name: as people know it, such as "Cityscapes".
        find: returns the masks that a folder has in this layout; None where it has another. Raises
            a `DatasetError` that says what to do, where the layout is not read.
    """

    name: str
    find: Callable[[SetFolder], FoundMasks | None] = field(repr=False)


#: Folder that names start from, its files, limits -> their masks.
ReadFiles = Callable[[Path, Sequence[Path], Limits], Iterator[MaskSource]]


def layout_of_files(
    name: str,
    suffix: str,
    is_one: Callable[[bytes], bool],
    read: ReadFiles,
    image_folders: Sequence[str] = (),
) -> Layout:
    """Return a layout whose masks stand in files of a suffix that are known by their beginnings."""

    def find(folder: SetFolder) -> FoundMasks | None:
        if not any(map(is_one, folder.heads(suffix).values())):
            return None

        def read_all(limits: Limits, names: Path | None) -> Iterator[MaskSource]:
            some = (each for each in folder.files if each.lower().endswith(suffix))
            files = [folder.place(each) for each in some if is_one(folder.head(each))]
            return read(folder.root, files, limits)

        return FoundMasks(name, read_all, image_folders)

    return Layout(name, find)
