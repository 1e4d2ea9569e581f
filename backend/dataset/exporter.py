"""Write a data set: the own files of each picture first, then those that are of all pictures.

A run that was interrupted goes on with the next picture, and a later run writes only what has
changed. The files of all pictures are written anew at the end of a run, each as a whole.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from backend.dataset.dataset_report import DatasetReport
from backend.dataset.feature_file import FeatureFile
from backend.dataset.labelled_image import LabelledImage
from backend.dataset.manifest import Manifest, PictureRow
from backend.dataset.options import DatasetOptions
from backend.dataset.picture_file import PictureFile, name_of, read_picture_file
from backend.dataset.shared_files import write_shared_files
from backend.dataset.splits import assign
from backend.dataset.task_images import (
    LoadedImage,
    LoadedTask,
    ProjectLabels,
    ReadFile,
    TaskImage,
    TaskImageReader,
    TaskLoader,
    plain_text,
)
from backend.dataset.tasks import TaskSource
from backend.dataset.writers import coco, index_png, parquet, yolo
from backend.errors import DatasetError, TaskError
from backend.label_studio.image_loader import RGBArray
from clearclip_core.evaluation.atomic_write import link_whole, write_whole


class Describer(Protocol):
    """Computes the features by which near-duplicates are found."""

    @property
    def model(self) -> str:
        """The name of the model, whose features are compared with each other only."""
        ...

    def describe(self, rgb: RGBArray) -> bytes:
        """Return the features of an upright picture, see `PictureRow.feature`."""
        ...


#: Address of a picture -> its file on this machine; None where there is none.
LocalFile = Callable[[str], Path | None]


def _nowhere(source: str) -> Path | None:
    return None


class DatasetExporter:
    """Writes a data set into a folder.

    Args:
        folder: the folder: a new or empty one, or one of the same project.
        labels: the controls and classes of the project.
        options: what is written.
        read_file: reads the file of a picture.
        max_megapixels: limit of a picture's size, in millions of pixels.
        describer: computes the features of pictures; None: only equal files are kept together.
        local_file: finds the file to link to.

    Raises:
        DatasetError: a library that a format needs is not installed.
    """

    def __init__(
        self,
        folder: Path,
        labels: ProjectLabels,
        options: DatasetOptions,
        read_file: ReadFile,
        *,
        max_megapixels: float,
        describer: Describer | None = None,
        local_file: LocalFile = _nowhere,
    ) -> None:
        if "coco" in options.formats:
            coco.check_installed()
        if "parquet" in options.formats:
            parquet.check_installed()
        self._folder = folder
        self._labels = labels
        self._options = options
        self._max_megapixels = max_megapixels
        self._describer = describer
        self._local_file = local_file
        self._reader = TaskImageReader(
            labels,
            options.choice,
            with_predictions=options.with_predictions,
            overlap=options.overlap,
            max_megapixels=max_megapixels,
        )
        self._loader = TaskLoader(self._reader, read_file, options.needs_pictures)

    def run(
        self,
        source: TaskSource,
        stopping: threading.Event,
        watch: Callable[[int], None] = lambda _: None,
    ) -> DatasetReport | None:
        """Write what has changed since the last run.

        Args:
            source: lists and reads tasks.
            stopping: once it is set, no further task is read.
            watch: called with the number of tasks so far.

        Returns:
            The report; None where it was stopped: the same call goes on from there.

        Raises:
            DatasetError: the folder is in use for something else, or cannot be written.
            StudioRefused: the token may not read the project.
            StudioUnreachable: Label Studio does not answer.
        """
        model = self._describer.model if self._describer is not None else ""
        recipe = self._options.recipe(self._labels, model)
        try:
            with closing(Manifest(self._folder, source.name, recipe)) as manifest:
                return self._run(manifest, source, stopping, watch)
        except OSError as error:
            raise DatasetError(f"{self._folder} cannot be written: {error}.") from None

    def _run(
        self,
        manifest: Manifest,
        source: TaskSource,
        stopping: threading.Event,
        watch: Callable[[int], None],
    ) -> DatasetReport | None:
        seen: set[int] = set()
        changed = 0
        with closing(self._loader.load(source.references(), manifest.is_unchanged)) as loading:
            for loaded in loading:
                if stopping.is_set():
                    return None
                seen.add(loaded.reference.id)
                if not loaded.is_unchanged:
                    changed += 1
                    self._write_task(manifest, loaded)
                watch(len(seen))
        for task in manifest.tasks():
            if task not in seen:
                manifest.forget(task)
        return self._finish(manifest, changed)

    def _write_task(self, manifest: Manifest, loaded: LoadedTask) -> None:
        """Write the own files of a task's pictures; skip those that cannot be, with the reason."""
        task = loaded.reference.id
        rows: list[PictureRow] = []
        problems = [loaded.problem] if loaded.problem else []
        several = len(loaded.images) > 1
        taken: set[str] = set()
        for each in loaded.images:
            try:
                if each.problem:
                    raise DatasetError(each.problem)
                row = self._write_picture(manifest, each, taken)
                rows.append(row)
                taken.add(row.name)
            except (DatasetError, TaskError) as error:
                place = f"{each.image.tag} {each.image.item_index}: " if several else ""
                problems.append(f"{place}{error}")
        stamp = "" if problems else loaded.reference.stamp
        manifest.write(task, stamp, rows, " ".join(problems))

    def _write_picture(
        self, manifest: Manifest, loaded: LoadedImage, taken: set[str]
    ) -> PictureRow:
        image, options = loaded.image, self._options
        wanted, suffix = name_of(image.source, f"task-{image.task.id}")
        name = manifest.name_for(wanted, image.key, int(image.task.id or 0), taken)
        file = None
        if loaded.content is not None:
            file = read_picture_file(loaded.content, self._max_megapixels, suffix)
        size_hw = file.size_hw if file is not None else image.drawn_size_hw
        assert size_hw is not None, "a picture without a region is read"
        suffix = file.suffix if file is not None else suffix or ".png"
        labelled = self._reader.label(image, name, suffix, size_hw)
        contents, annotations = self._contents(labelled)
        files = [*contents]
        if file is not None and options.image_folder:
            files.append(f"{options.image_folder}/{labelled.file_name}")
            self._write_image(image, file, self._folder / files[-1])
        for path, content in contents.items():
            write_whole(self._folder / path, content)
        feature = None
        if self._describer is not None and file is not None:
            feature = self._describer.describe(file.rgb)
        return PictureRow(
            task=int(image.task.id or 0),
            key=image.key,
            name=name,
            suffix=suffix,
            size_hw=size_hw,
            digest=file.digest if file is not None else _digest(image.source),
            source="data:" if image.source[:5].lower() == "data:" else plain_text(image.source),
            regions=_told(labelled),
            coco=annotations,
            files=files,
            feature=feature,
        )

    def _contents(
        self, labelled: LabelledImage
    ) -> tuple[dict[str, bytes], list[dict[str, object]]]:
        """Return the own files of a picture, path -> bytes, and its annotations for COCO."""
        options, classes = self._options, self._labels.classes
        owners = labelled.owners(classes, options.overlap)
        contents: dict[str, bytes] = {}
        if options.mask_folder:
            label_map = labelled.label_map_of(owners, classes)
            path = f"{options.mask_folder}/{labelled.name}.png"
            contents[path] = index_png.encode_label_map(label_map, classes)
        if "yolo" in options.formats:
            lines = yolo.yolo_lines(labelled, owners, classes)
            contents[f"{yolo.FOLDER}/{labelled.name}.txt"] = lines.encode()
        annotations = []
        if "coco" in options.formats:
            annotations = coco.coco_annotations(labelled, owners, classes)
        return contents, annotations

    def _write_image(self, image: TaskImage, file: PictureFile, path: Path) -> None:
        if self._options.pictures != "link" or not file.is_original:
            write_whole(path, file.content)
            return
        target = self._local_file(image.source)
        if target is None:
            raise DatasetError(
                "Its picture is no file of this machine to link to: name --picture-folder, or "
                "copy the pictures."
            )
        link_whole(path, target)

    def _finish(self, manifest: Manifest, changed: int) -> DatasetReport:
        """Write the files that are of all pictures, and the report."""
        ids, digests, regions, tasks_with = [], [], 0, set()
        for row in manifest.pictures():
            ids.append(row.id)
            digests.append(row.digest)
            regions += len(row.regions)
            tasks_with.add(row.task)
        split = self._options.split
        with FeatureFile(row.feature for row in manifest.pictures()) as features:
            names = assign(split, digests, features, self._options.least_cosine)
        parts = dict(zip(ids, names, strict=True))
        counts = Counter(parts.values())
        skipped = manifest.skipped()
        without = {task for task, _ in skipped} | tasks_with
        report = DatasetReport(
            parts={name: counts[name] for name in split.names},
            regions=regions,
            changed=changed,
            unlabelled=sum(task not in without for task in manifest.tasks()),
            skipped=skipped,
        )
        write_shared_files(self._folder, manifest, parts, self._labels.classes, self._options)
        text = json.dumps(report.to_json(), ensure_ascii=False, indent=2)
        write_whole(self._folder / "report.json", f"{text}\n".encode())
        return report


def _told(labelled: LabelledImage) -> Sequence[dict[str, object]]:
    return [
        {
            "label": region.label,
            **({} if region.score is None else {"score": region.score}),
            **region.provenance.to_json(),
        }
        for region in labelled.regions
    ]


def _digest(source: str) -> str:
    return hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=16).hexdigest()
