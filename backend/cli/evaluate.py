"""``clearclip-backend run eval``: how well a project's own annotations are predicted."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from backend.cli.options import OUTPUT_FILE, project_option, with_settings
from backend.label_studio_services import check_token
from backend.settings import Settings
from clearclip_core.cli.parameters import ThresholdOption, threshold_option
from clearclip_core.evaluation.atomic_write import write_whole


@click.command("eval", short_help="Measure predictions on annotated tasks.")
@project_option
@click.option("--image", "image", help="Name of the <Image> to measure, where there are several.")
@click.option("--model", "models", multiple=True, help="Several are compared. [MODEL]")
@click.option("--method", "methods", multiple=True, help="Several are compared. [METHOD]")
@click.option(
    "--prompts",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Words to try in place of those of the labeling config: a file with one line for each "
    "label in its order, words separated by commas; several are compared.",
)
@threshold_option
@click.option(
    "--learned",
    is_flag=True,
    help="Add a row for what the project has learned from its corrections.",
)
@click.option(
    "--as-paper",
    is_flag=True,
    help="Predict as the paper does: no contrast words, thresholds and refinement.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Measure only this many pictures, spread over all.",
)
@click.option(
    "--page",
    type=OUTPUT_FILE,
    help="Write an HTML page with the worst of the pictures side by side.",
)
@click.option(
    "--worst",
    default=12,
    show_default=True,
    type=click.IntRange(min=0),
    help="Pictures on the page.",
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@with_settings(
    *("label_studio_url", "label_studio_api_key", "allowed_hosts", "device", "precision"),
    *("short_side_px", "refine", "propagate", "model_dir", "database_url", "max_image_mb"),
    *("max_image_megapixels", "min_island_share", "adapt", "presence"),
)
def evaluate_project(
    settings: Settings,
    project: int,
    image: str | None,
    models: tuple[str, ...],
    methods: tuple[str, ...],
    prompts: tuple[Path, ...],
    threshold: tuple[ThresholdOption, ...],
    learned: bool,
    as_paper: bool,
    limit: int | None,
    page: Path | None,
    worst: int,
    json_file: Path | None,
) -> None:
    """Measure how well the annotations of a project are predicted, and write nothing there.

    All annotated tasks are read through Label Studio's API, and predicted with the labels, words
    and thresholds of the project's labeling config. Of each task, the annotation that is marked as
    ground truth counts, else the newest.
    """
    if as_paper and (threshold or learned):
        raise click.UsageError("--as-paper goes without --threshold and --learned.")
    check_token(settings, "annotations are read")
    # These import torch, which the help does without.
    from backend.cli.evaluation_plan import OWN_WORDS, Plan, find_project
    from backend.label_studio.annotations import LEAVE_OUT
    from backend.services import Services
    from clearclip_core.evaluation.comparison import LabelledFolder, compare
    from clearclip_core.evaluation.comparison_report import (
        comparison_json,
        comparison_page,
        comparison_text,
    )

    services = Services(settings)
    client = services.required_client("annotations are read")
    found = find_project(client, services, project, image)
    folder = LabelledFolder(found.pictures(limit), found.labels)
    if not folder.pictures:
        raise click.ClickException(f"Project {project} has no annotated tasks.")
    words = {path.name: folder.with_prompts(path) for path in prompts}
    plan = Plan(
        settings=settings,
        project=found,
        words=words or {OWN_WORDS: found.labels},
        given=threshold,
        learned=learned,
        as_paper=as_paper,
    )
    pairs = itertools.product(
        dict.fromkeys(models or (settings.model,)), dict.fromkeys(methods or (settings.method,))
    )
    candidates = list(plan.candidates(tuple(pairs)))
    comparison = compare(folder, candidates, worst if page else 0, LEAVE_OUT)
    click.echo(comparison_text(comparison))
    for file, content in ((json_file, comparison_json), (page, comparison_page)):
        if file is not None:
            write_whole(file, content(comparison))
            click.echo(f"\n{file}")
