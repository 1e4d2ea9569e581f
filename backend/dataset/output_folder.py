"""A folder that is written beside its place, and takes it when it is whole."""

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from filelock import FileLock, Timeout

from backend.errors import DatasetError

#: File by which a folder is known as a data set; it holds the name of what it was made of.
MARKER: Final = ".clearclip-dataset"
#: File in a folder that a run writes.
LOCK: Final = ".clearclip-dataset.lock"

#: File with a line for each picture, which later runs and imports read.
IMAGES_FILE: Final = "pictures.jsonl"
REPORT_FILE: Final = "report.json"

#: What stands in a data set, whatever its formats.
_OURS: Final = frozenset((MARKER, IMAGES_FILE, REPORT_FILE, "classes.json", "images"))

PARTS: Final = ".parts"  # folder of what is removed at the end
_LEFT_FREE: Final = 256 << 20  # bytes that are left free on the disk


class OutputFolder:
    """Writes a data set into ``NAME.partial`` and renames it to ``NAME`` at the end.

    Use it as a context manager: without `finish` it leaves what was there before. A killed run
    leaves ``NAME.partial``, which the next one removes that writes beside it. One run works on a
    folder at a time: a new or empty one, or a data set of the same source. `ours` are names of what
    formats write into it: nothing else is ever removed.
    """

    def __init__(
        self, folder: Path, source: str, max_mb: int | None = None, *, ours: Collection[str] = ()
    ) -> None:
        self.target = folder.resolve()
        self.path = self.target.with_name(f"{self.target.name}.partial")
        self._replaced = self.target.with_name(f"{self.target.name}.partial-replaced")
        self._source = source
        self._max_mb = max_mb
        self._ours = _OURS.union(ours)
        self._bytes = 0
        self._made: set[Path] = set()
        self._lock = FileLock(self.path / LOCK)

    def __enter__(self) -> "OutputFolder":
        """Begin with an empty folder; raise a `DatasetError` where the target is something else."""
        is_ours = any((self.path / name).exists() for name in (LOCK, MARKER))
        if not is_ours and self.path.exists() and any(self.path.iterdir()):
            raise DatasetError(f"{self.path} is in the way: move it, or name another folder.")

        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            told = f"Another run works on {self.target}: wait for it, or name another folder."
            raise DatasetError(told) from None

        try:
            self._put_back()
            self._check_target()
            self._sweep()
            self._empty()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._lock.is_locked:
            self._discard()

    def write(self, name: str, content: bytes) -> None:
        self.take(len(content))
        self.place(name).write_bytes(content)

    def place(self, name: str) -> Path:
        """Return the path of a file in a folder that is there; its bytes are for `take`."""
        path = self.path / name
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        return path

    def take(self, size_bytes: int) -> None:
        """Count bytes before they are written; raise a `DatasetError` where they are too many."""
        self._bytes += size_bytes
        if self._max_mb is not None and self._bytes > self._max_mb << 20:
            raise DatasetError(
                f"The data set takes more than DATASET_MB={self._max_mb}. Leave the pictures out, "
                "choose a view with fewer tasks, or write it into a folder with clearclip-backend "
                "dataset."
            )
        if shutil.disk_usage(self.path).free - size_bytes < _LEFT_FREE:
            raise DatasetError(
                f"The disk of {self.target} has less than {_LEFT_FREE >> 20} MB left: make room, "
                "or name a folder on another disk."
            )

    def finish(self) -> None:
        """Put the folder without its `PARTS` in the place of the target, which is removed."""
        shutil.rmtree(self.path / PARTS)
        (self.path / MARKER).write_text(self._source, encoding="utf-8", errors="replace")
        self._lock.release()
        (self.path / LOCK).unlink(missing_ok=True)
        if self.target.exists():
            self.target.rename(self._replaced)
        self.path.rename(self.target)
        shutil.rmtree(self._replaced, ignore_errors=True)

    def _put_back(self) -> None:
        if self._replaced.exists():
            if self.target.exists():
                shutil.rmtree(self._replaced)
            else:
                self._replaced.rename(self.target)

    def _sweep(self) -> None:
        """Remove what killed runs have left of other folders beside this one."""
        for path in self.target.parent.glob("*.partial"):
            if path != self.path and (path / LOCK).exists():
                with suppress(Timeout), FileLock(path / LOCK, timeout=0):
                    shutil.rmtree(path)

    def _empty(self) -> None:
        """Remove all but the lock."""
        for each in self.path.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            elif each.name != LOCK:
                each.unlink()

    def _check_target(self) -> None:
        if self.target.is_mount():
            raise DatasetError(f"{self.target} is a disk of its own: name a folder in it.")

        if not self.target.exists():
            return

        found = {each.name for each in self.target.iterdir()}
        if not found:
            return

        if MARKER not in found:
            raise DatasetError(
                f"{self.target} has files already, and none of them is of a data set: name an "
                "empty or a new folder."
            )

        owner = (self.target / MARKER).read_text(encoding="utf-8", errors="replace")
        if owner != self._source:
            told = f"{self.target} is the data set of {owner[:500]}, not of {self._source}"
            raise DatasetError(f"{told}: name another folder.")

        others = sorted(each for each in found - set(self._ours) if not each.endswith(".cache"))
        if others:
            raise DatasetError(
                f'{self.target} has "{others[0]}", which is not of the data set and would be '
                "removed with it: move it, or name another folder."
            )

    def _discard(self) -> None:
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)
