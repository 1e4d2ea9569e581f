"""The candidates that ``clearclip-backend run eval`` compares on a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from backend.errors import LabelConfigError
from backend.label_studio.annotations import AnnotatedProject
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import (
    LabelConfig,
    adapt_mode,
    least_thresholds,
    prediction_rule,
    score_options,
)
from backend.label_studio.label_config_parser import parse_label_config
from backend.services import Services
from backend.settings import Settings
from clearclip_core import (
    BEST_TEMPLATES,
    TEMPLATES,
    Label,
    LoadedModel,
    ScoreOptions,
    Segmenter,
    WeightsNotFoundError,
    set_pool_threads,
    usable_cpus,
)
from clearclip_core.cli.parameters import ThresholdOption, thresholds_by_label
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.clip.loading import load_model
from clearclip_core.evaluation.comparison import AS_PAPER, Candidate, PredictionRule
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.quantities import quantity

#: Name of the words of the label config, in tables.
OWN_WORDS = "label config"


@dataclass(frozen=True, eq=False)
class Plan:
    """What is compared on a project.

    Attributes:
        words: name in tables -> the labels with the words that are compared.
    """

    settings: Settings
    project: AnnotatedProject
    words: Mapping[str, tuple[Label, ...]]
    given: tuple[ThresholdOption, ...] = ()
    learned: bool = False
    as_paper: bool = False

    def candidates(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Candidate]:
        """Load the models and yield a candidate for each model, method and words.

        Raises:
            ValueError: a model or a method does not exist, or the project has learned nothing.
            click.ClickException: weights are not there.
        """
        rule = self._rule(self.project.config)
        set_pool_threads(usable_cpus(), 1)
        models = {name: self._load(name) for name, _ in pairs}
        for name, method in pairs:
            segmenter = self._segmenter(models[name], method)
            for words, labels in self.words.items():
                options = self._options(method)
                yield Candidate(segmenter, labels, name, words, rule, options=options)
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
        best = self.settings.templates == len(BEST_TEMPLATES) and not self.as_paper
        templates = BEST_TEMPLATES if best else TEMPLATES
        return Segmenter(model, method, sizes, store=store, templates=templates)

    def _options(self, method: str) -> ScoreOptions:
        """Return what counts in the backend's scores with a method beside the words."""
        if self.as_paper:
            return ScoreOptions()
        settings = self.settings.model_copy(update={"method": method})
        return score_options(settings, self.project.config)

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
        return prediction_rule(self.settings, thresholds)

    def _learned(self, segmenter: Segmenter, model: str, method: str) -> Candidate:
        """Return the candidate of what the project has learned with a model and a method.

        Raises:
            ValueError: it has learned nothing.
        """
        settings = self.settings.model_copy(update={"model": model, "method": method})
        config, project = self.project.config, self.project.project
        active = Services(settings).versions.active(project, adapt_mode(settings, config))
        if active is None:
            raise ValueError(
                f"Project {project} uses nothing that was learned with {model} and {method}: see "
                f"clearclip-backend adapt status --project {project}."
            )
        click.echo(
            f"The row of what was learned from {quantity(active.annotations, 'annotation')} "
            "flatters where these are among the pictures.",
            err=True,
        )
        words = (self.project.labels, model, f"{OWN_WORDS}, learned")
        rule, options = self._rule(config), self._options(method)
        return Candidate(segmenter, *words, rule, active.adaptation, options)


def find_project(
    client: LabelStudioClient, services: Services, project: int, image: str | None
) -> AnnotatedProject:
    """Return the annotated tasks of a project.

    Args:
        image: name of the image tag; None: the only one.

    Raises:
        LabelConfigError: there is no such tag, or several and no name.
    """
    config = parse_label_config(client.label_config(project))
    found = [tag for tag in config.images if image in (None, tag.name)]
    if len(found) != 1:
        names = ", ".join(tag.name for tag in config.images)
        raise LabelConfigError(
            f"Expected --image to name one <Image> of the label config, which has: {names}."
        )
    return AnnotatedProject(client, services.images.read, project, config, found[0])
