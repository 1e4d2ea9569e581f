"""``clearclip-backend eval``: how well a project's own annotations are predicted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from backend.cli.options import OUTPUT_FILE, project_option, with_settings
from backend.errors import BadRequest, LabelConfigError, TaskError
from backend.label_studio.annotated_pictures import AnnotatedProject
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import ImageTag, LabelConfig, adapt_mode
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio_services import READ_RETRY_FOR_S
from backend.prediction.image_prediction import least_thresholds
from backend.services import Services
from backend.settings import Settings
from clearclip_core import (
    Label,
    LoadedModel,
    Segmenter,
    WeightsNotFoundError,
    set_pool_threads,
    usable_cpus,
)
from clearclip_core.cli.thresholds import ThresholdOption, threshold_option, thresholds_by_label
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.clip.loading import load_model
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.candidate import AS_PAPER, Candidate, PredictionRule
from clearclip_core.evaluation.comparison import compare
from clearclip_core.evaluation.comparison_page import as_page
from clearclip_core.evaluation.comparison_table import as_json, as_text
from clearclip_core.evaluation.labelled_folder import LabelledFolder
from clearclip_core.images.preprocessing import Preprocessing

#: Errors of one picture, for which it is left out.
_LEAVE_OUT = (TaskError, BadRequest, ValueError)

#: Name of the words of the label config, in tables.
_OWN_WORDS = "label config"


@click.command("eval")
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
    *("max_image_megapixels", "min_island_share", "adapt"),
)
def evaluate(
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
    services = Services(settings)
    client = services.required_client("annotations are read", retry_for_s=READ_RETRY_FOR_S)
    found = _find_project(client, services, project, image)
    folder = LabelledFolder(found.pictures(limit), found.labels)
    if not folder.pictures:
        raise click.ClickException(f"Project {project} has no annotated tasks.")
    words = [Words(path.name, folder.with_prompts(path)) for path in prompts]
    plan = Plan(
        settings=settings,
        project=found,
        words=tuple(words) or (Words(_OWN_WORDS, found.labels),),
        given=threshold,
        learned=learned,
        as_paper=as_paper,
    )
    pairs = itertools.product(
        dict.fromkeys(models or (settings.model,)), dict.fromkeys(methods or (settings.method,))
    )
    candidates = list(plan.candidates(tuple(pairs)))
    comparison = compare(folder, candidates, worst if page else 0, _LEAVE_OUT)
    click.echo(as_text(comparison))
    for file, content in ((json_file, as_json), (page, as_page)):
        if file is not None:
            write_whole(file, content(comparison))
            click.echo(f"\n{file}")


@dataclass(frozen=True)
class Words:
    """The labels with words that are compared, and their name in tables."""

    name: str
    labels: tuple[Label, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is compared on a project.

    Attributes:
        settings: device, sizes and refinement of all candidates.
        project: the project.
        words: words to compare.
        given: thresholds that win over those of the label config.
        learned: what the project has learned is compared too.
        as_paper: predict as the paper does.
    """

    settings: Settings
    project: AnnotatedProject
    words: tuple[Words, ...]
    given: tuple[ThresholdOption, ...] = ()
    learned: bool = False
    as_paper: bool = False

    def candidates(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Candidate]:
        """Load the models and yield a candidate for each model, method and words.

        Args:
            pairs: models and methods.

        Raises:
            ValueError: a model or a method does not exist, or the project has learned nothing.
            click.ClickException: weights are not there.
        """
        rule = self._rule(self.project.config)
        set_pool_threads(usable_cpus(), 1)
        models = {name: self._load(name) for name, _ in pairs}
        for name, method in pairs:
            segmenter = self._segmenter(models[name], method)
            for words in self.words:
                yield Candidate(segmenter, words.labels, name, words.name, rule)
            if self.learned:
                yield self._learned(segmenter, name, method)

    def _load(self, name: str) -> LoadedModel:
        settings = self.settings
        try:
            model = load_model(name, settings.device, settings.precision, settings.model_dir)
        except WeightsNotFoundError as error:
            raise click.ClickException(str(error)) from None
        if model.notice:
            click.echo(model.notice, err=True)
        return model

    def _segmenter(self, model: LoadedModel, method: str) -> Segmenter:
        sizes = Preprocessing.of_short_side(model.mean, model.std, self.settings.short_side_px)
        store = EmbeddingStore.of(model, self.settings.model_dir)
        return Segmenter(model, method, sizes, store=store)

    def _rule(self, config: LabelConfig) -> PredictionRule:
        """Return the rule by which the backend draws masks with a label config."""
        if self.as_paper:
            return AS_PAPER
        labels, tag = self.project.labels, self.project.tag.name
        drawn = [control for control in config.controls_of(tag) if control.is_predicted]
        masks = [control for control in drawn if control.kind != "rectanglelabels"]
        thresholds = thresholds_by_label(
            self.given, [label.name for label in labels], least_thresholds(masks, labels)
        )
        settings = self.settings
        return PredictionRule(
            True,
            settings.refine,
            thresholds,
            min_island_share=settings.min_island_share,
            propagate=settings.propagate,
        )

    def _learned(self, segmenter: Segmenter, model: str, method: str) -> Candidate:
        """Return the candidate of what the project has learned with a model and a method.

        Raises:
            ValueError: it has learned nothing.
        """
        settings = self.settings.model_copy(update={"model": model, "method": method})
        config, project = self.project.config, self.project.project
        active = Services(settings).active_models.get(project, adapt_mode(settings, config))
        if active is None:
            raise ValueError(
                f"Project {project} uses nothing that was learned with {model} and {method}: see "
                f"clearclip-backend adapt status --project {project}."
            )
        click.echo(
            f"The row of what was learned from {active.annotations} annotations flatters where "
            "these are among the pictures.",
            err=True,
        )
        rule = self._rule(config.with_thresholds(active.thresholds))
        name = f"{_OWN_WORDS}, learned"
        return Candidate(segmenter, self.project.labels, model, name, rule, active.adaptation)


def _find_project(
    client: LabelStudioClient, services: Services, project: int, image: str | None
) -> AnnotatedProject:
    config = parse_label_config(client.label_config(project))
    tag = _choose_tag(config, image)
    return AnnotatedProject(client, services.images.read, project, config, tag)


def _choose_tag(config: LabelConfig, name: str | None) -> ImageTag:
    """Return the image tag of that name, or the only one.

    Raises:
        LabelConfigError: there is none, or several and no name.
    """
    found = [tag for tag in config.images if name in (None, tag.name)]
    if len(found) != 1:
        names = ", ".join(tag.name for tag in config.images)
        raise LabelConfigError(
            f"Expected --image to name one <Image> of the label config, which has: {names}."
        )
    return found[0]
