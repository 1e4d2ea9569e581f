"""Remember what a folder of a data set was made of, so that a later run does only what is new.

A small SQLite file in the folder. A picture is in it when all of its own files are written.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from backend.dataset.picture_file import folded
from backend.errors import DatasetError

#: Name of the file, and the version of its tables.
FILE_NAME: Final = ".clearclip-dataset.sqlite3"
_VERSION: Final = "1"

_LOCK_NAME: Final = ".clearclip-dataset.lock"

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
  task INTEGER PRIMARY KEY, stamp TEXT NOT NULL, skipped TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
  id INTEGER PRIMARY KEY, task INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  folded TEXT NOT NULL UNIQUE, suffix TEXT NOT NULL, height INTEGER NOT NULL,
  width INTEGER NOT NULL, digest TEXT NOT NULL, feature BLOB, source TEXT NOT NULL,
  regions TEXT NOT NULL, coco TEXT NOT NULL, files TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS pictures_of_task ON pictures (task);
"""


@dataclass(frozen=True)
class PictureRow:
    """A picture of a data set whose own files are written.

    Attributes:
        task: id of its task.
        key: text that tells it from all other pictures of the project.
        name: its name in the data set, without suffix.
        suffix: of its file.
        size_hw: height and width in px.
        digest: of its file.
        source: its address in Label Studio; "data:" where the address is the picture itself.
        regions: what is known of each region; see `backend.dataset.labelled_image.Provenance`.
        coco: annotations in COCO's format, without ids; empty where they were not asked for.
        files: paths of its own files below the folder.
        feature: (D,) float16 of unit length, by which near-duplicates are found; as bytes.
        id: number of the row; 0 before it is written.
    """

    task: int
    key: str
    name: str
    suffix: str
    size_hw: tuple[int, int]
    digest: str
    source: str = ""
    regions: Sequence[Mapping[str, Any]] = ()
    coco: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    files: Sequence[str] = ()
    feature: bytes | None = field(default=None, repr=False)
    id: int = 0

    @property
    def file_name(self) -> str:
        """Name with the suffix of the picture's file."""
        return self.name + self.suffix


class Manifest:
    """The pictures of a folder. One run works on a folder at a time.

    Args:
        folder: the folder of the data set; it is made where there is none.
        source: what it is made of, such as the address of a project.
        recipe: text of all choices that decide what the files of a picture hold.

    Raises:
        DatasetError: the folder has other files, is made of something else, or another run works
            on it.
    """

    def __init__(self, folder: Path, source: str, recipe: str) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE_NAME
        if not file.exists() and any(folder.iterdir()):
            raise DatasetError(
                f"{folder} has files already, and none of them is of a data set: name an empty or "
                "a new folder."
            )
        self._lock = FileLock(folder / _LOCK_NAME)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DatasetError(
                f"Another run works on {folder}: wait for it, or name another folder."
            ) from None
        self._db = sqlite3.connect(file, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
            self._claim(source, recipe)
        except sqlite3.Error as error:
            self.close()
            raise DatasetError(f"{file} cannot be used ({error}): name a new folder.") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and let other runs work on the folder."""
        self._db.close()
        self._lock.release()

    def is_unchanged(self, task: int, stamp: str) -> bool:
        """Return whether the files of a task stand for it as it is now."""
        row = self._db.execute("SELECT stamp FROM tasks WHERE task = ?", (task,)).fetchone()
        return (
            row is not None
            and row[0] == stamp
            and all((self._folder / f).exists() for row in self.pictures(task) for f in row.files)
        )

    def tasks(self) -> Iterator[int]:
        """Iterate over the ids of all tasks, in ascending order."""
        for row in self._db.execute("SELECT task FROM tasks ORDER BY task").fetchall():
            yield int(row[0])

    def name_for(self, wanted: str, key: str, task: int, taken: Collection[str] = ()) -> str:
        """Choose a name that no other picture has.

        Args:
            wanted: its name by its address.
            key: of the picture; it keeps the name that it has.
            task: id of its task, which makes a name of several pictures unique.
            taken: names that other pictures of the task get.
        """
        candidate, number = wanted, 1
        others = set(map(folded, taken))
        while True:
            row = self._db.execute(
                "SELECT key FROM pictures WHERE folded = ?", (folded(candidate),)
            ).fetchone()
            if (row is None or row[0] == key) and folded(candidate) not in others:
                return candidate
            candidate = f"{wanted}-task{task}" + (f"-{number}" if number > 1 else "")
            number += 1

    def write(self, task: int, stamp: str, rows: Sequence[PictureRow], skipped: str = "") -> None:
        """Replace what is known of a task, and remove files that it has no more.

        Args:
            task: its id.
            stamp: see `TaskReference.stamp`; empty for a task that is to be tried again.
            rows: its pictures.
            skipped: why it has none, or not all.
        """
        before = {file for row in self.pictures(task) for file in row.files}
        with self._transaction():
            self._db.execute("DELETE FROM pictures WHERE task = ?", (task,))
            self._db.execute("REPLACE INTO tasks VALUES (?, ?, ?)", (task, stamp, skipped))
            for row in rows:
                self._insert(row)
        self._remove(before - {file for row in rows for file in row.files})

    def forget(self, task: int) -> None:
        """Remove a task and its files."""
        before = {file for row in self.pictures(task) for file in row.files}
        with self._transaction():
            self._db.execute("DELETE FROM pictures WHERE task = ?", (task,))
            self._db.execute("DELETE FROM tasks WHERE task = ?", (task,))
        self._remove(before)

    def pictures(
        self, task: int | None = None, among: Callable[[int], bool] = lambda _: True
    ) -> Iterator[PictureRow]:
        """Iterate over all pictures, or those of one task, by the ids of tasks.

        They are read in portions, so that other tables may be written meanwhile.

        Args:
            task: id of the task; None for all.
            among: id of a row -> whether it is wanted; the texts of others are not parsed.
        """
        last: tuple[int, int] = (-1, -1)
        while True:
            found = self._db.execute(
                "SELECT * FROM pictures WHERE (task, id) > (?, ?) AND (? IS NULL OR task = ?) "
                "ORDER BY task, id LIMIT 200",
                (*last, task, task),
            ).fetchall()
            if not found:
                return
            yield from (_row(each) for each in found if among(int(each[0])))
            last = int(found[-1][1]), int(found[-1][0])

    def skipped(self) -> list[tuple[int, str]]:
        """List tasks that were skipped, or some of whose pictures were, with the reason."""
        return [
            (int(task), str(reason))
            for task, reason in self._db.execute(
                "SELECT task, skipped FROM tasks WHERE skipped <> '' ORDER BY task"
            )
        ]

    def fact(self, name: str) -> str:
        """Return a text that was kept under a name; empty where there is none."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    def keep_fact(self, name: str, value: str) -> None:
        """Keep a text under a name."""
        self._db.execute("REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _claim(self, source: str, recipe: str) -> None:
        version, owner = self.fact("version"), self.fact("source")
        if version not in ("", _VERSION):
            raise DatasetError(f"{self._folder} was written by another version: name a new folder.")
        if owner not in ("", source):
            raise DatasetError(
                f"{self._folder} is the data set of {owner}, not of {source}: name another folder."
            )
        if self.fact("recipe") != recipe:  # all files of pictures are due again
            self._db.execute("UPDATE tasks SET stamp = ''")
        for name, value in (("version", _VERSION), ("source", source), ("recipe", recipe)):
            self.keep_fact(name, value)

    def _insert(self, row: PictureRow) -> None:
        self._db.execute(
            "INSERT INTO pictures VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(row.task, row.key, row.name, folded(row.name), row.suffix, *row.size_hw),
                *(row.digest, row.feature, row.source, json.dumps(row.regions)),
                *(json.dumps(row.coco), json.dumps(row.files)),
            ),
        )

    def _remove(self, files: set[str]) -> None:
        for file in files:
            (self._folder / file).unlink(missing_ok=True)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """Commit what is written within, or nothing of it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _row(found: Sequence[Any]) -> PictureRow:
    id_, task, key, name, _, suffix, height, width, digest, feature, source, *texts = found
    regions, coco, files = map(json.loads, texts)
    return PictureRow(
        task, key, name, suffix, (height, width), digest, source, regions, coco, files, feature, id_
    )
