"""``clearclip-backend dataset``: the corrected tasks of a project as files of a training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import click

from backend.annotations.annotated_image import AnnotationChoice
from backend.annotations.label_map import LATER, Overlap
from backend.cli.options import (
    IMAGE_SETTINGS,
    MASK_SETTINGS,
    NUMBER,
    OUTPUT_FOLDER,
    STUDIO_SETTINGS,
    map_option,
    progress_bar,
    read_renamings,
    stopped_by_signals,
    view_option,
    with_settings,
)
from backend.dataset.dataset_options import DatasetOptions, Pictures
from backend.dataset.dataset_report import DatasetReport, EarlierSet, SetScorer
from backend.dataset.exported_tasks import ExportedTasks
from backend.dataset.exporter import DatasetExporter
from backend.dataset.formats.writers import WRITERS
from backend.dataset.image_file import LocalImages
from backend.dataset.splits import Split
from backend.dataset.tasks import ProjectTasks
from backend.label_studio.access import StudioAccess
from backend.label_studio.client import required_client
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.settings import Settings

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--project", type=NUMBER, help="Number of the project.")
@click.option(
    "--export",
    type=_FILE,
    help="In place of a project: a file that Label Studio has exported as JSON. No server is asked "
    "but for pictures that are not in --images.",
)
@click.option(
    "--config",
    type=_FILE,
    help="With --export: the project's labeling config (Settings, Labeling Interface, Code) as a "
    "file; by default it is what the annotations have, labels in alphabetical order.",
)
@click.option("--to", "folder", type=OUTPUT_FOLDER, required=True, help="Folder to write.")
@click.option(
    "--format",
    "chosen",
    type=click.Choice([each for each in WRITERS.names() if each != "overlays"]),
    multiple=True,
    default=("index-png",),
    show_default=True,
    help="What to write; may be given several times.",
)
@click.option("--overlays", is_flag=True, help="Write pictures under their classes' colours, too.")
@click.option(
    "--pictures",
    type=click.Choice(get_args(Pictures)),
    help="Copy the pictures, link to files in --picture-folder, or leave them out; by default "
    "copied, except where parquet alone is written, which holds them.",
)
@click.option(
    "--picture-folder",
    "--images",
    "picture_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of this machine where the pictures are looked for first; with --export by default "
    "that of its file.",
)
@click.option(
    "--annotations",
    default="preferred",
    show_default=True,
    metavar="RULE",
    help="Which count where a task has several: preferred (the ground truth, else the newest), "
    "newest, ground-truth, majority (of the annotators, pixel by pixel), or the number of an "
    "annotator.",
)
@view_option
@click.option(
    "--with-predictions",
    is_flag=True,
    help="Take the newest prediction of tasks that nobody has annotated or skipped.",
)
@click.option(
    "--without-reviewed",
    is_flag=True,
    help="Leave out annotations that were accepted as predicted on the review page.",
)
@click.option(
    "--overlap",
    type=click.Choice(get_args(Overlap)),
    default=LATER,
    show_default=True,
    help="In label maps: which region has the pixels that several cover.",
)
@click.option(
    "--fill-rectangles",
    "fills_rectangles",
    is_flag=True,
    help="In label maps: give pixels that only rectangles cover the class of these; by default "
    "trainers ignore them (255), since a rectangle does not say which of its pixels are its thing.",
)
@click.option(
    "--background",
    metavar="NAME",
    default="",
    help="In label maps: make unpainted pixels a class of this name, with the value 0; by default "
    "trainers ignore them (255).",
)
@click.option(
    "--merge-regions",
    type=click.Choice(("label",)),
    help="In coco and yolo: one object for all regions of a label, not one for each region.",
)
@click.option(
    "--min-area",
    "min_area_px",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="PX",
    help="In yolo: leave islands of fewer pixels out.",
)
@click.option(
    "--split",
    "shares",
    metavar="SHARES",
    help="Percentages for training, validation and test, such as 80/10/10 or 90/10.",
)
@click.option(
    "--split-by",
    default="",
    metavar="FIELD",
    help="With --split: keep pictures of one value in this field of the tasks' data in one part, "
    "such as patient.",
)
@click.option(
    "--resplit",
    is_flag=True,
    help="With --split: divide anew, though pictures leave the parts where the last set has them.",
)
@click.option(
    "--near-duplicates",
    "least_correlation",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="LIKENESS",
    help="With --split: keep pictures in one part whose thumbnails correlate by this much at "
    "least, such as 0.95 for frames of a film.",
)
@click.option(
    "--since",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The data set before, where --to names another folder: its pictures stay in their parts, "
    "and the report says what has changed.",
)
@click.option(
    "--score",
    "with_score",
    is_flag=True,
    help="With --project: report the mean IoU of the live version on these label maps; the model "
    "predicts each picture.",
)
@map_option
@click.option("--dry-run", is_flag=True, help="Read all and count it, and write nothing.")
@with_settings(
    *STUDIO_SETTINGS,
    "model",
    "method",
    "device",
    "precision",
    "short_side_px",
    "model_dir",
    *IMAGE_SETTINGS,
    *MASK_SETTINGS,
    "database_url",
    "adapt",
)
def dataset(
    settings: Settings,
    *,
    project: int | None,
    export: Path | None,
    config: Path | None,
    folder: Path,
    chosen: tuple[str, ...],
    overlays: bool,
    pictures: Pictures | None,
    picture_folder: Path | None,
    annotations: str,
    view: int | None,
    with_predictions: bool,
    without_reviewed: bool,
    merge_regions: str | None,
    shares: str | None,
    since: Path | None,
    with_score: bool,
    renamed: tuple[str, ...],
    **more: Any,
) -> None:
    """Write the annotated pictures of a project, or of its export, as a training set.

    The same command again replaces the folder when the new one is whole; other folders are refused.
    Masks are exact to the pixel. The exit status is 0 when every task with an annotation is in the
    data set, 1 when some were skipped (report.json says why), and 130 after Ctrl-C.
    """
    if (project is None) == (export is None):
        raise click.UsageError("Give either --project or --export.")
    _check_needed("--project", project, {"--view": view, "--score": with_score})
    _check_needed("--export", export, {"--config": config})
    of_parts = {
        "--near-duplicates": more["least_correlation"],
        "--split-by": more["split_by"],
        "--resplit": more["resplit"],
    }
    _check_needed("--split", shares, of_parts)

    choice = replace(AnnotationChoice.parse(annotations), with_reviewed=not without_reviewed)
    split = Split() if shares is None else Split.parse(shares)
    options = DatasetOptions(
        formats=_formats(chosen, overlays=overlays),
        pictures=pictures or _default_pictures(chosen),
        choice=choice,
        by_label=merge_regions == "label",
        split=split,
        renamed=read_renamings(renamed),
        **more,
    )
    studio = StudioAccess(settings)
    number = project or 0
    if export is not None:
        source = _Source.of_export(export, config, picture_folder, with_predictions)
    else:
        source = _Source.of_project(studio, number, view, picture_folder, with_predictions)

    tasks = source.tasks
    config_ = parse_label_config(source.xml, settings, must_draw=False)
    images = LocalImages(
        source.picture_folder, settings.max_image_mb, studio.images.read_file, source.originals
    )
    earlier = EarlierSet.read([since], options.splitting) if since else None
    with _scoring(settings, config_, number) if with_score else nullcontext() as scorer:
        exporter = DatasetExporter(
            folder,
            config_,
            options,
            images,
            max_megapixels=settings.max_image_megapixels,
            scorer=scorer,
            earlier=earlier,
        )
        with stopped_by_signals(studio.stopping), progress_bar("Reading", "task") as show:
            total = tasks.count()
            report = exporter.run(tasks, studio.stopping, lambda number: show(number, total))

    _exit(folder, options, report)


def _exit(folder: Path, options: DatasetOptions, report: DatasetReport | None) -> None:
    """Say what was written, and end the program with its status."""
    if report is None:
        click.echo("Interrupted: nothing was written.")
        raise SystemExit(130)
    click.echo(f"{folder}{' (nothing was written)' if options.dry_run else ''}: {report}")
    raise SystemExit(1 if report.skipped else 0)


@dataclass(frozen=True)
class _Source:
    """What a data set is made of: tasks, their labeling config, and where their pictures are."""

    tasks: ProjectTasks | ExportedTasks
    xml: str
    picture_folder: Path | None
    #: Names that the pictures of an export had before they were uploaded; None: of a project.
    originals: frozenset[str] | None = None

    @classmethod
    def of_export(
        cls, export: Path, config: Path | None, folder: Path | None, with_predictions: bool
    ) -> _Source:
        """Read an export; its pictures are beside it, where no other folder is named."""
        tasks = ExportedTasks(export, with_predictions)
        xml = tasks.label_config() if config is None else config.read_text("utf-8-sig", "replace")
        return cls(tasks, xml, folder or export.parent, tasks.originals)

    @classmethod
    def of_project(
        cls,
        studio: StudioAccess,
        project: int,
        view: int | None,
        folder: Path | None,
        with_predictions: bool,
    ) -> _Source:
        """Read a project, or a view of it, at Label Studio."""
        client = required_client(studio.client, "Annotations are read from Label Studio")
        tasks = ProjectTasks(client, project, view, with_predictions)
        xml = required_client(studio.page_client, "").label_config(project)  # asks once
        return cls(tasks, xml, folder)


def _check_needed(needed: str, given: object, options: Mapping[str, object]) -> None:
    """Refuse options that are given without the one that they need."""
    for option, value in options.items():
        if value and given is None:
            raise click.UsageError(f"Give {option} only together with {needed}.")


def _formats(chosen: tuple[str, ...], *, overlays: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*chosen, "overlays") if overlays else chosen))


def _default_pictures(chosen: tuple[str, ...]) -> Pictures:
    """Return what becomes of pictures where nothing is said: parquet alone holds them itself."""
    return "none" if set(chosen) == {"parquet"} else "copy"


@contextmanager
def _scoring(settings: Settings, config: LabelConfig, project: int) -> Iterator[SetScorer]:
    """Give a scorer with a model that is loaded: the one thing here that needs torch."""
    try:
        from backend.learning.predicted_masks import MaskPredictor
        from backend.services import Services
    except ImportError:
        told = "--score predicts with the model: pip install clearclip-label-studio."
        raise click.ClickException(told) from None

    services = Services(settings)
    with services.engine:
        predictor = MaskPredictor(services.engine, settings, config, project)
        yield SetScorer(predictor, services.learner.versions)
