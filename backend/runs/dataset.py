"""Data sets: the annotated tasks of a project as a ZIP file to download."""

import hashlib
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from backend.annotations.annotated_image import AnnotationChoice
from backend.annotations.label_map import LATER, MapRule, Overlap
from backend.dataset.dataset_options import ON_THE_PAGE, DatasetOptions
from backend.dataset.dataset_report import Changes, ClassCount, EarlierSet, SetScorer
from backend.dataset.exporter import DatasetExporter
from backend.dataset.formats.writers import find_writers
from backend.dataset.image_file import LocalImages
from backend.dataset.output_folder import IMAGES_FILE, REPORT_FILE
from backend.dataset.splits import Split
from backend.dataset.tasks import ProjectTasks
from backend.errors import BadRequest, DatasetError, ModelUnavailable
from backend.label_studio.label_config_parser import parse_label_config
from backend.learning.predicted_masks import MaskPredictor
from backend.runs.gallery import Gallery, GalleryMaker
from backend.runs.run_store import MOST_LEFT_OUT, Progress, Run, RunKind, RunParts
from backend.settings import Settings
from clearclip_core.images.files import is_hidden, replaced, write_whole

_DAY_S: Final = 86_400.0

DAYS_KEPT: Final = 7  # days after which a file is deleted, once another data set is exported

_FILE: Final = "dataset.zip"

_KNOWN: Final = "known-"  # start of the names of folders that outlive the files

#: Suffixes of files that get smaller; pictures and tables are compressed already.
_TEXTS: Final = (".json", ".jsonl", ".txt", ".yaml", ".md")


class AskedDataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is exported; the choices are those of ``clearclip-backend dataset``."""

    #: number of a view of the data manager, whose tasks are taken; None for all
    view: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)] | None = None
    formats: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)] = ("index-png",)
    pictures: bool = True
    #: the annotations that count: a rule, or the number of an annotator
    annotations: Annotated[str, msgspec.Meta(max_length=20)] = "preferred"
    overlap: Overlap = LATER
    fills_rectangles: bool = False
    split: Annotated[str, msgspec.Meta(max_length=20)] = ""  # such as 80/10/10; empty: one part
    #: correlation of thumbnails from which on pictures are kept in one part; None: equal files
    near_duplicates: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    with_predictions: bool = False  # whether untouched ones count where nothing is annotated
    without_reviewed: bool = False
    background: Annotated[str, msgspec.Meta(max_length=100)] = ""
    min_area: Annotated[int, msgspec.Meta(ge=0, le=999_999_999)] = DatasetOptions.min_area_px
    merge_regions: Literal["", "label"] = ""  # all regions of a label in a picture are one object
    split_by: Annotated[str, msgspec.Meta(max_length=100)] = ""
    resplit: bool = False  # whether pictures may leave the part where an earlier set has put them
    score: bool = False  # whether the live version predicts each picture and is scored on the maps
    #: label of regions -> the label that it is now; empty: they are left out
    renamed: Annotated[dict[str, str], msgspec.Meta(max_length=100)] = {}

    def __post_init__(self) -> None:
        AnnotationChoice.parse(self.annotations)
        try:
            find_writers(self.options.formats)
        except DatasetError as error:
            raise BadRequest(str(error)) from None
        for name in ("near_duplicates", "split_by"):
            if getattr(self, name) and not self.split:
                raise BadRequest(f'Expected "{name}" only together with "split".')

    @property
    def options(self) -> DatasetOptions:
        in_tables_alone = set(self.formats) == {"parquet"}
        return DatasetOptions(
            formats=tuple(dict.fromkeys(self.formats)),
            pictures="copy" if self.pictures and not in_tables_alone else "none",
            choice=replace(
                AnnotationChoice.parse(self.annotations), with_reviewed=not self.without_reviewed
            ),
            overlap=self.overlap,
            fills_rectangles=self.fills_rectangles,
            split=Split.parse(self.split) if self.split else Split(),
            least_correlation=self.near_duplicates,
            background=self.background,
            min_area_px=self.min_area,
            by_label=self.merge_regions == "label",
            split_by=self.split_by,
            resplit=self.resplit,
            renamed=self.renamed,
            names=ON_THE_PAGE,
        )


class DatasetFile(msgspec.Struct, frozen=True):
    """What is in the file."""

    pictures: int
    parts: dict[str, int]
    regions: int
    unlabelled: int
    notes: list[str]
    left_out: dict[int, str]  # task -> why it is not in the data set; of the first tasks only
    left_out_count: int
    size_bytes: int
    asked: dict[str, int] = {}  # percentage of each part that was asked for; empty for one part
    classes: dict[str, dict[str, ClassCount]] = {}
    changes: Changes | None = None
    gallery: Gallery = Gallery()


def folder_of(settings: Settings, run: Run) -> Path:
    """Return the folder of a data set on this machine; databases may share the folder above it."""
    name = f"{run.project}-{run.id}-{round(1000 * run.created)}"
    return settings.model_dir / "datasets" / name


def file_of(settings: Settings, run: Run) -> Path:
    """Return the path of a data set's file, which may be on another machine."""
    return folder_of(settings, run) / _FILE


def file_name(run: Run) -> str:
    """Return the name under which a browser saves a data set."""
    return f"project-{run.project}-{'-'.join(run.asked['formats'])}-{run.id}.zip"


def export_dataset(
    parts: RunParts, run: Run, asked: AskedDataset, progress: Progress
) -> DatasetFile:
    """Export a project; the files of old data sets are removed before.

    Raises:
        DatasetError: the file cannot be written, or is too large; the score needs a model.
    """
    remove_old_datasets(parts.settings)
    try:
        return _export(parts, run, asked, progress)
    except ModelUnavailable as error:
        raise DatasetError(f"The score needs the model. {error}") from None
    except OSError as error:
        raise DatasetError(f"The data set cannot be written: {error.strerror or error}.") from None


def _export(parts: RunParts, run: Run, asked: AskedDataset, progress: Progress) -> DatasetFile:
    client, settings = parts.client, parts.settings
    folder = folder_of(settings, run) / "set"
    xml = client.label_config(run.project)
    config = parse_label_config(xml, settings, must_draw=False)

    source = ProjectTasks(client, run.project, asked.view, asked.with_predictions)
    predictor = MaskPredictor(parts.engine, settings, config, run.project)

    rule = MapRule(asked.overlap, fills_rectangles=True, labels=config.names)
    gallery = GalleryMaker(config, rule)
    images = LocalImages(None, settings.max_image_mb, parts.images.read_file)
    earlier = EarlierSet.read(_earlier(settings, run), asked.options.splitting)
    exporter = DatasetExporter(
        folder,
        config,
        asked.options,
        images,
        max_megapixels=settings.max_image_megapixels,
        max_mb=settings.dataset_mb,
        scorer=SetScorer(predictor, parts.versions) if asked.score else None,
        earlier=earlier,
        look=gallery.add,
    )

    watch = partial(progress, total=source.count())
    report = exporter.run(source, threading.Event(), watch)
    assert report is not None, "what is watched ends it, and not an event"

    _remember(settings, run, asked, folder)
    shown = gallery.finish(report, folder, settings.max_image_megapixels)
    size_bytes = move_into_zip(folder, file_of(settings, run))
    shutil.rmtree(folder, ignore_errors=True)

    score = [str(report.score)] if report.score else []
    return DatasetFile(
        pictures=report.pictures,
        parts=dict(report.parts),
        regions=report.regions,
        unlabelled=report.unlabelled,
        notes=score + report.notes,
        left_out={each.task: each.reason for each in report.skipped[:MOST_LEFT_OUT]},
        left_out_count=len(report.skipped),
        size_bytes=size_bytes,
        asked=report.asked if len(report.parts) > 1 else {},
        classes=_found_classes(report.classes),
        changes=report.changes,
        gallery=shown,
    )


def _found_classes(
    classes: Mapping[str, dict[str, ClassCount]],
) -> dict[str, dict[str, ClassCount]]:
    """Return the classes that an object has."""
    return {
        name: counts
        for name, counts in classes.items()
        if any(each.objects for each in counts.values())
    }


def _earlier(settings: Settings, run: Run) -> Iterator[Path | zipfile.Path]:
    """Iterate over what is kept here of a project's data sets, the newest first."""
    datasets = settings.model_dir / "datasets"
    found = [*datasets.glob(f"{_KNOWN}{run.project}-*"), *datasets.glob(f"{run.project}-*/{_FILE}")]
    for each in sorted(found, key=lambda each: each.stat().st_mtime, reverse=True):
        with suppress(OSError, zipfile.BadZipFile):
            yield each if each.is_dir() else zipfile.Path(each)


def _remember(settings: Settings, run: Run, asked: AskedDataset, folder: Path) -> None:
    """Keep what later data sets need to know when this one is gone: its parts must not move."""
    name = hashlib.blake2b(asked.options.splitting.encode(), digest_size=8).hexdigest()
    known = settings.model_dir / "datasets" / f"{_KNOWN}{run.project}-{name}"
    for file in (IMAGES_FILE, REPORT_FILE):
        write_whole(known / file, (folder / file).read_bytes())


def remove_dataset(settings: Settings, run: Run) -> None:
    """Remove all files of a data set from this machine."""
    shutil.rmtree(folder_of(settings, run), ignore_errors=True)


def remove_old_datasets(settings: Settings) -> None:
    """Remove the files of data sets that are too old, also of ones that another backend deleted."""
    for folder in (settings.model_dir / "datasets").glob("[0-9]*"):
        if folder.stat().st_mtime < time.time() - DAYS_KEPT * _DAY_S:
            shutil.rmtree(folder, ignore_errors=True)


# ---- the file ------------------------------------------------------------------------------------


def move_into_zip(folder: Path, path: Path) -> int:
    """Move the files of a folder, without hidden ones, into a ZIP file; return its bytes.

    Each is removed once it is in there, so that the disk holds them once. The file is at `path`
    when it is complete.
    """
    with replaced(path) as stream, zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        files = (each for each in folder.rglob("*") if each.is_file())
        for file in sorted(each for each in files if not is_hidden(each, folder)):
            kind = zipfile.ZIP_DEFLATED if file.suffix in _TEXTS else zipfile.ZIP_STORED
            archive.write(file, file.relative_to(folder).as_posix(), kind)
            file.unlink()
    return path.stat().st_size


DATASETS: Final = RunKind(
    "datasets",
    "Data sets",
    "A data set is made of what Label Studio has",
    AskedDataset,
    DatasetFile,
    export_dataset,
    forget=remove_dataset,
)
