"""``clearclip-backend import-masks``: masks that exist already, as predictions or annotations."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any, get_args

import click

from backend.cli.options import (
    IMAGE_SETTINGS,
    NUMBER,
    OUTPUT_FILE,
    STUDIO_SETTINGS,
    progress_bar,
    read_renamings,
    stopped_by_signals,
    with_settings,
    write_json,
)
from backend.dataset.formats.layout import SetFolder
from backend.dataset.formats.layouts import MaskFormat, ReadingOptions, find_masks
from backend.dataset.mask_import import (
    ImportKind,
    ImportOptions,
    ImportReport,
    MaskImporter,
    version_of_masks,
)
from backend.dataset.mask_preview import preview_masks
from backend.dataset.mask_source import Limits
from backend.dataset.matching import read_image_addresses
from backend.label_studio.access import StudioAccess
from backend.label_studio.client import required_client
from backend.settings import Settings

_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import-masks")
@click.argument("folder", type=click.Path(exists=True, path_type=Path), required=False)
@click.option(
    "--project",
    type=NUMBER,
    help="The project's number; without it the masks are only looked at, and no server is asked.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, path_type=Path),
    help="Folder or file with the masks, in place of FOLDER.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(MaskFormat)),
    help="Format of the masks; by default the layout is found out.",
)
@click.option(
    "--names",
    type=_EXISTING_FILE,
    help="What the values of masks stand for: classes.json, or a name a line from 0 on, with - for "
    "nothing; by default a file of these in the folder. Of COCO's results: the COCO file that "
    "lists the images.",
)
@click.option(
    "--colors",
    "colours",
    type=_EXISTING_FILE,
    help="Label maps whose colours say the class: a name and its colour a line, road:128,64,128, "
    "as in CVAT's labelmap.txt; a folder SegmentationClass has PASCAL VOC's by default.",
)
@click.option(
    "--suffix",
    default="",
    metavar="MASK[=PICTURE]",
    help="End of the names of label maps, and that of pictures in its place, such as "
    "_gtFine_labelIds=_leftImg8bit; other files are no masks.",
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(get_args(ImportKind)),
    default="predictions",
    show_default=True,
    help="Predictions are corrected by annotators; annotations count as their work.",
)
@click.option(
    "--map",
    "renamed",
    metavar="CLASS=LABEL",
    multiple=True,
    help="Label of a class that has another name; CLASS= leaves the class out. May be repeated.",
)
@click.option(
    "--control",
    "controls",
    metavar="NAME",
    multiple=True,
    help="Control of the labeling config to draw with; by default the first that has the label, "
    "masks before polygons before rectangles. May be repeated: the first named is preferred.",
)
@click.option(
    "--instances",
    is_flag=True,
    help="One brush or bitmask region for each object, not one for each label; label maps do not "
    "tell objects apart.",
)
@click.option("--version-name", help='Name of this import; else "masks" and the folder\'s name.')
@click.option(
    "--replace",
    is_flag=True,
    help="Replace the predictions that an earlier import of this name stored.",
)
@click.option("--skip-broken", is_flag=True, help="Write the others where some have problems.")
@click.option("--dry-run", is_flag=True, help="Check masks, say what does not fit, write nothing.")
@click.option(
    "--report", "report_file", type=OUTPUT_FILE, help="Write what was done to this file as JSON."
)
@with_settings(*STUDIO_SETTINGS, *IMAGE_SETTINGS)
def import_masks(
    settings: Settings,
    *,
    folder: Path | None,
    source: Path | None,
    project: int | None,
    format_: MaskFormat | None,
    names: Path | None,
    colours: Path | None,
    suffix: str,
    renamed: tuple[str, ...],
    version_name: str | None,
    skip_broken: bool,
    dry_run: bool,
    report_file: Path | None,
    **more: Any,
) -> None:
    """Bring masks that exist already into a project, to be corrected or as annotations.

    Without --project, say what FOLDER has: the layout, the classes, three overlays, and the command
    that goes on from there.

    All masks are read before the first is written. An import that was interrupted continues when
    the same command is given again. The exit status is 0 when all masks are in the project, 1 when
    some are not, and 130 after Ctrl-C.
    """
    place = _place(folder, source)
    reading = ReadingOptions(format_, names, colours, suffix)
    limits = Limits(settings.max_image_mb, settings.max_image_megapixels)
    if project is None:
        _show(place, reading, limits)
        return

    version = version_of_masks(place) if version_name is None else version_name
    options = ImportOptions(
        version=version,
        renamed=read_renamings(renamed),
        addresses=read_image_addresses(place),
        **more,
    )
    studio = StudioAccess(settings)
    client = required_client(studio.client, "Masks are written to Label Studio")
    with stopped_by_signals(studio.stopping):
        importer = MaskImporter(client, studio.images, project, options, studio.stopping)
        found = find_masks(place, reading)
        with progress_bar("Checking", "picture") as progress:
            report = importer.plan(found.read(limits, names), progress)
        click.echo(f"{place} is {found.layout}.")
        click.echo(report.plan())

        broken = bool(report.problems) and not skip_broken
        if not (dry_run or studio.stopping.is_set() or broken):
            with progress_bar("Writing", "task") as progress:
                importer.write(progress)
            click.echo(report.outcome())

    if report_file:
        write_json(report_file, report)
    _exit(report, is_stopped=studio.stopping.is_set(), is_refused=broken and not dry_run)


def _place(folder: Path | None, source: Path | None) -> Path:
    """Return where the masks are, which is said in one of two ways."""
    place = folder or source
    if place is None or (folder and source):
        raise click.UsageError("Give the folder with the masks once, as FOLDER or by --from.")
    return place


def _exit(report: ImportReport, *, is_stopped: bool, is_refused: bool) -> None:
    """End the program with the status of an import."""
    if is_stopped:
        raise SystemExit(130)
    if is_refused:
        raise click.ClickException(
            "Nothing was written. Correct these masks, or write the others by --skip-broken."
        )
    raise SystemExit(1 if report.left_out or report.problems or report.refused else 0)


def _show(place: Path, reading: ReadingOptions, limits: Limits) -> None:
    """Print what a folder has, and the command that compares it with a project."""
    found = find_masks(place, reading)
    to = Path(tempfile.mkdtemp(prefix="clearclip-masks-"))
    preview = preview_masks(found, SetFolder(place), limits, reading.names, to)
    click.echo(preview.describe(place, _command(place, reading)))
    raise SystemExit(1 if preview.problems else 0)


def _command(place: Path, reading: ReadingOptions) -> str:
    """Return the command that says what of a folder fits a project."""
    given = {
        "--format": reading.format,
        "--names": reading.names,
        "--colors": reading.colours,
        "--suffix": reading.suffix,
    }
    options = [word for name, value in given.items() if value for word in (name, str(value))]
    root = click.get_current_context().find_root().command.name
    program = "clearclip-dataset" if root == "clearclip-dataset" else "clearclip-backend"
    words = [program, "import-masks", str(place), *options]
    return f"{shlex.join(words)} --project NUMBER --dry-run"
