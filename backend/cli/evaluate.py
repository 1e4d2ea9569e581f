"""``clearclip-backend run eval``: how well a project's own annotations are predicted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from backend.annotations.annotated_image import LEAVE_OUT
from backend.annotations.annotated_project import AnnotatedProject
from backend.cli.options import (
    IMAGE_SETTINGS,
    MASK_SETTINGS,
    OUTPUT_FILE,
    STUDIO_SETTINGS,
    check_model,
    project_option,
    with_settings,
)
from backend.errors import LabelConfigError
from backend.label_studio.client import LabelStudioClient, required_client
from backend.label_studio.label_config import (
    least_thresholds,
    prediction_rule,
)
from backend.services import Services
from backend.settings import Settings
from clearclip_core.cli.options import ThresholdOption, threshold_option, thresholds_by_label
from clearclip_core.images.files import write_whole

if TYPE_CHECKING:
    from backend.label_studio.image_loader import ImageReader
    from clearclip_core import Label
    from clearclip_core.evaluation.comparison import Candidate, LabelledFolder, PredictionRule

_OWN_WORDS: Final = "labeling config"  # name of the words of the labeling config, in tables
_WORST: Final = 12  # pictures on the page, the worst


@click.command("eval", short_help="Measure predictions on annotated tasks.")
@project_option
@click.option("--image", "image", help="Name of the <Image> to measure, where there are several.")
@click.option("--model", "models", multiple=True, help="Several are compared. [MODEL]")
@click.option("--method", "methods", multiple=True, help="Several are compared. [METHOD]")
@click.option(
    "--second-model",
    "seconds",
    multiple=True,
    help="Several are compared; none: without one. [SECOND_MODEL]",
)
@click.option(
    "--second-short-side-px",
    "second_short_sides",
    multiple=True,
    type=click.IntRange(64, 2048),
    help="Several are compared. [SECOND_SHORT_SIDE_PX]",
)
@click.option(
    "--short-side-px",
    "short_sides",
    multiple=True,
    type=click.IntRange(64, 4096),
    help="Several are compared. [SHORT_SIDE_PX]",
)
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
    help="Add a row for what these annotations would teach, measured on pictures held out.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Measure only this many pictures, spread over all."
)
@click.option(
    "--page",
    type=OUTPUT_FILE,
    help="Write an HTML page with the worst of the pictures side by side.",
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@with_settings(
    *STUDIO_SETTINGS,
    "device",
    "precision",
    *MASK_SETTINGS,
    "click_model",
    "regions",
    "model_dir",
    *IMAGE_SETTINGS,
)
def evaluate_project(
    settings: Settings,
    *,
    project: int,
    image: str | None,
    models: tuple[str, ...],
    methods: tuple[str, ...],
    seconds: tuple[str, ...],
    second_short_sides: tuple[int, ...],
    short_sides: tuple[int, ...],
    prompts: tuple[Path, ...],
    threshold: tuple[ThresholdOption, ...],
    learned: bool,
    limit: int | None,
    page: Path | None,
    json_file: Path | None,
) -> None:
    """Measure how well the annotations of a project are predicted, and write nothing there.

    All annotated tasks are read through Label Studio's API, and predicted with the labels, words
    and thresholds of the project's labeling config. Of each task, the annotation that is marked as
    ground truth counts, else the newest.
    """
    services = Services(settings)
    client = required_client(services.client, "Annotations are read from Label Studio")
    given: dict[str, tuple[Any, ...]] = {
        "model": models,
        "method": methods,
        "second_model": _second_models(seconds),
        "second_short_side_px": second_short_sides,
        "short_side_px": short_sides,
    }
    choices = _with_defaults(settings, given)
    several = _combined(settings, choices)
    for each in several:
        check_model(each)

    # These import torch, which the help does without.
    from clearclip_core.evaluation.comparison import (
        LabelledFolder,
        compare,
        comparison_json,
        comparison_page,
        comparison_text,
    )

    found = _find_project(client, services.images, project, image)
    folder = LabelledFolder(found.pictures(limit), found.labels)
    if not folder.pictures:
        raise click.ClickException(f"Project {project} has no annotated tasks.")

    words = _words(prompts, folder, found)
    rule = _rule(settings, found, threshold)
    candidates: list[Candidate] = []
    chosen: list[Settings] = []
    for each in several:
        made = _candidates(each, found, words, rule)
        made += [_taught(made[0], folder)] if learned else []
        candidates += made
        chosen += [each] * len(made)

    comparison = compare(folder, candidates, _WORST if page else 0, LEAVE_OUT)
    click.echo(comparison_text(comparison))
    if len(several) > 1:
        _print_settings(chosen[comparison.best], choices)
    if json_file is not None:
        _write(json_file, comparison_json(comparison))
    if page is not None:
        _write(page, comparison_page(comparison))


def _words(
    prompts: Sequence[Path], folder: LabelledFolder, project: AnnotatedProject
) -> dict[str, tuple[Label, ...]]:
    """Return the words of each file by its name; without files those of the labeling config."""
    if not prompts:
        return {_OWN_WORDS: project.labels}
    return {path.name: folder.with_prompts(path) for path in prompts}


def _write(file: Path, content: bytes) -> None:
    write_whole(file, content)
    click.echo(f"\n{file}")


def _second_models(names: Iterable[str]) -> tuple[str | None, ...]:
    return tuple(None if each == "none" else each for each in names)


def _with_defaults(
    settings: Settings, given: Mapping[str, tuple[Any, ...]]
) -> dict[str, list[Any]]:
    """Return the choices of each setting, each once; of one that is not given, its value."""
    return {
        name: list(dict.fromkeys(own or (getattr(settings, name),))) for name, own in given.items()
    }


def _print_settings(best: Settings, choices: Mapping[str, Sequence[Any]]) -> None:
    """Print the settings of the best, of those with several choices."""
    click.echo("\nSettings of the best:")
    for name, own in choices.items():
        if len(own) > 1:
            click.echo(f"{name.upper()}={getattr(best, name) or ''}")


def _combined(settings: Settings, choices: Mapping[str, Iterable[Any]]) -> list[Settings]:
    """Combine the choices of each setting; a second encoder's size counts only beside one."""
    combined: list[Settings] = []
    for values in itertools.product(*choices.values()):
        update = dict(zip(choices, values, strict=True))
        if update["second_model"] is None:
            update["second_short_side_px"] = None
        made = settings.model_copy(update=update)
        if made not in combined:
            combined.append(made)
    return combined


def _find_project(
    client: LabelStudioClient, images: ImageReader, project: int, image: str | None
) -> AnnotatedProject:
    """Return the annotated tasks of a project, of the image tag of that name, or the only one."""
    config = client.config(project)
    found = [tag for tag in config.images if image in (None, tag.name)]
    if len(found) != 1:
        names = ", ".join(tag.name for tag in config.images)
        raise LabelConfigError(
            f"Expected --image to name one <Image> of the labeling config, which has: {names}."
        )
    return AnnotatedProject(client, images.read, project, config, found[0])


def _rule(
    settings: Settings, project: AnnotatedProject, given: Sequence[ThresholdOption]
) -> PredictionRule:
    """Return the rule by which the backend draws masks of the project."""
    drawn = [each for each in project.config.controls_of(project.tag.name) if each.is_predicted]
    masks = [control for control in drawn if control.kind != "rectanglelabels"]
    names = [label.name for label in project.labels]
    least = least_thresholds(masks, project.labels)
    return prediction_rule(settings, thresholds_by_label(given, names, least))


def _candidates(
    settings: Settings,
    project: AnnotatedProject,
    words: Mapping[str, tuple[Label, ...]],
    rule: PredictionRule,
) -> list[Candidate]:
    """Load a model; return a candidate for each of the words, which have a name in tables."""
    from backend.inference.engine import load_segmenter
    from clearclip_core.evaluation.comparison import Candidate

    segmenter = load_segmenter(settings)
    if segmenter.model.notice:
        click.echo(segmenter.model.notice, err=True)
    size = f", {settings.short_side_px} px" if settings.short_side_px else ""
    name = f"{settings.encoders}{size}"
    return [Candidate(segmenter, labels, name, each, rule) for each, labels in words.items()]


def _taught(words: Candidate, folder: LabelledFolder) -> Candidate:
    """Return a candidate that has learned from the folder, each picture held out."""
    from clearclip_core.evaluation.comparison import learn_held_out

    learned = learn_held_out(folder, words, LEAVE_OUT)
    return replace(words, prompts=f"{words.prompts}, learned", learned=learned)
