"""Make the archives that people have asked for, one after the other, and delete old ones."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from backend.database.leases import LeaseLost
from backend.dataset.archives.archive_store import ArchiveStore
from backend.dataset.archives.dataset_archive import DatasetArchive
from backend.dataset.archives.zip_file import move_into_zip
from backend.dataset.exporter import DatasetExporter, DatasetReport, Describer
from backend.dataset.task_images import ReadFile, parse_project_labels
from backend.dataset.tasks import ProjectTasks
from backend.errors import (
    BackendError,
    DatasetError,
    LabelConfigError,
    ModelUnavailable,
    StudioRefused,
)
from backend.label_studio.client import LabelStudioClient
from backend.settings import Settings

log = logging.getLogger(__name__)

#: Time between two notes of the progress, in seconds.
_NOTE_INTERVAL_S: Final = 1.0

#: Time between two looks for old archives, in seconds.
_SWEEP_INTERVAL_S: Final = 600.0

_DAY_S: Final = 86_400.0


class ArchiveFiles:
    """The files of archives on this machine.

    Args:
        settings: the folder, and how much and how long archives are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self.root = settings.model_dir / "datasets"

    def path(self, archive: DatasetArchive) -> Path:
        """Return the path of an archive's file, which may be on another machine."""
        return self.root / archive.folder / "dataset.zip"

    def work_folder(self, archive: DatasetArchive) -> Path:
        """Return the folder in which an archive is made."""
        return self.root / archive.folder / "set"

    def remove(self, archive: DatasetArchive) -> None:
        """Remove all files of an archive."""
        shutil.rmtree(self.root / archive.folder, ignore_errors=True)

    def remove_forgotten(self, before: float) -> None:
        """Remove folders that nobody has changed since a time: of archives that are no more."""
        for folder in self.root.glob("*"):
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)


class ArchiveMaker:
    """Leases archives and makes them.

    Args:
        store: the archives.
        files: their files.
        client: Label Studio.
        read_file: reads the file of a picture.
        describer: computes the features by which near-duplicates are found.
        settings: the limits.
        owner: the owner of the leases.
        stopping: once it is set, an archive is released for another backend or for later.
    """

    def __init__(
        self,
        store: ArchiveStore,
        files: ArchiveFiles,
        client: LabelStudioClient,
        read_file: ReadFile,
        describer: Describer,
        settings: Settings,
        owner: str,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._files = files
        self._client = client
        self._read_file = read_file
        self._describer = describer
        self._settings = settings
        self._owner = owner
        self._stopping = stopping
        self._next_sweep = 0.0
        self._making: int | None = None

    def make_next(self) -> bool:
        """Make the next archive as far as it goes; return whether there was one.

        Raises:
            BackendError: Label Studio does not answer; the archive is released.
        """
        self._sweep()
        archive = self._store.lease(self._owner)
        if archive is None:
            return False
        self._making = archive.id
        try:
            self._make(archive)
        except LeaseLost as error:
            log.info("%s", error)
            self._files.remove(archive)
        finally:
            self._making = None  # a lease that could not be ended ends by itself
        return True

    def renew(self) -> None:
        """Renew the lease of the archive that is being made."""
        archive = self._making
        if archive is not None:
            self._store.renew(archive, self._owner)

    def _make(self, archive: DatasetArchive) -> None:
        try:
            report = self._export(archive)
            if report is None:
                self._store.release(archive.id, self._owner)
                return
            size_bytes = move_into_zip(self._files.work_folder(archive), self._files.path(archive))
            shutil.rmtree(self._files.work_folder(archive), ignore_errors=True)
            self._store.finish(
                archive.id, self._owner, report=msgspec.to_builtins(report), size_bytes=size_bytes
            )
        except (DatasetError, LabelConfigError, StudioRefused, OSError) as error:
            self._fail(archive, _sentence(error))
        except ModelUnavailable as error:
            if self._stopping.is_set():  # the engine stops with the backend
                self._store.release(archive.id, self._owner)
            else:
                self._fail(archive, f"Near-duplicates need the model. {error}")
        except BackendError:
            self._store.release(archive.id, self._owner)
            raise
        except (LeaseLost, SQLAlchemyError):
            raise
        except Exception:  # made again, it would fail again, and no other had its turn
            log.exception("Data set %d has failed", archive.id)
            self._fail(
                archive, "An unexpected error has ended it; the log of the backend has more."
            )

    def _fail(self, archive: DatasetArchive, reason: str) -> None:
        self._files.remove(archive)
        self._store.finish(archive.id, self._owner, reason=reason)

    def _export(self, archive: DatasetArchive) -> DatasetReport | None:
        request = archive.request
        source = ProjectTasks(self._client, request.project, request.view, request.with_predictions)
        exporter = DatasetExporter(
            self._files.work_folder(archive),
            parse_project_labels(self._client.label_config(request.project)),
            request.options,
            self._read_file,
            max_megapixels=self._settings.max_image_megapixels,
            max_mb=self._settings.dataset_mb,
            describer=None if request.least_cosine is None else self._describer,
        )
        total = source.count()
        next_note = 0.0

        def watch(done: int) -> None:
            nonlocal next_note
            if time.monotonic() >= next_note:
                self._store.advance(archive.id, self._owner, done, total)
                next_note = time.monotonic() + _NOTE_INTERVAL_S

        report = exporter.run(source, self._stopping, watch)
        if report is not None:
            self._store.advance(archive.id, self._owner, total or archive.done, total)
        return report

    def _sweep(self) -> None:
        """Delete archives that are too old or too many."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + _SWEEP_INTERVAL_S
        before = self._store.database.clock() - self._settings.dataset_days * _DAY_S
        for archive in self._store.take_old(before, self._settings.dataset_mb << 20):
            self._files.remove(archive)
        self._files.remove_forgotten(before - _DAY_S)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"The archive cannot be written: {error.strerror or error}."
    return str(error)
