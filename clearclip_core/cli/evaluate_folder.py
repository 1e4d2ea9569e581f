"""`clearclip eval --images`: compare models, methods and prompts on anybody's labelled pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click

from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.finite_range import FiniteRange
from clearclip_core.cli.options import ModelOptions, propagate_option
from clearclip_core.cli.thresholds import ThresholdOption, threshold_option, thresholds_by_label
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.candidate import AS_BACKEND, AS_PAPER, Candidate, PredictionRule
from clearclip_core.evaluation.comparison import compare
from clearclip_core.evaluation.comparison_page import as_page
from clearclip_core.evaluation.comparison_table import as_json, as_text
from clearclip_core.evaluation.labelled_folder import LabelledFolder
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.scores import ScoreOptions
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label


@dataclass(frozen=True)
class FolderOptions:
    """Values of the options for own pictures, see `folder_options`."""

    images: Path | None = None
    masks: Path | None = None
    prompts: tuple[Path, ...] = ()
    as_paper: bool = False
    threshold: tuple[ThresholdOption, ...] = ()
    refine: bool = True
    propagate: bool = False
    presence: float = 0.0
    synonyms: str = "best"
    page: Path | None = None
    worst: int = 12

    def measure(
        self,
        options: Sequence[ModelOptions],
        names: Path | None,
        limit: int | None,
        out: Path | None,
    ) -> None:
        """Compare all models, methods and prompts; print the tables, and write the files.

        Raises:
            click.ClickException: an option is missing, or the pictures or a model cannot be read.
        """
        if self.images is None or self.masks is None or names is None:
            raise click.UsageError("--images needs --masks and --names.")
        scored = self._scored
        changed = self.threshold or not self.refine or self.propagate or scored != ScoreOptions()
        if self.as_paper and changed:
            raise click.UsageError(
                "--as-paper goes without --threshold and --no-refine, and without --propagate, "
                "--presence and --synonyms."
            )
        with click_errors():
            folder = LabelledFolder.find(self.images, self.masks, names, limit)
            rule = self._rule(folder.labels)
            words = [(path.name, folder.with_prompts(path)) for path in self.prompts]
        candidates = _candidates(options, words or [(names.name, folder.labels)], rule, scored)
        with click_errors():
            comparison = compare(folder, candidates, self.worst if self.page else 0)
            click.echo(as_text(comparison))
            if out is not None:
                write_whole(out, as_json(comparison))
            if self.page is not None:
                write_whole(self.page, as_page(comparison))
        for path in filter(None, (out, self.page)):
            click.echo(f"\n{path}")

    @property
    def _scored(self) -> ScoreOptions:
        return ScoreOptions(self.presence, join_synonyms=self.synonyms == "joined")

    def _rule(self, labels: Sequence[Label]) -> PredictionRule:
        if self.as_paper:
            return AS_PAPER
        thresholds = thresholds_by_label(self.threshold, [label.name for label in labels])
        return replace(
            AS_BACKEND, threshold=thresholds, refine=self.refine, propagate=self.propagate
        )


def folder_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for own pictures, as one `FolderOptions` argument."""

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        chosen = {field.name: arguments.pop(field.name) for field in fields(FolderOptions)}
        command(folder=FolderOptions(**chosen), **arguments)

    for option in reversed(_FOLDER_OPTIONS):
        with_options = option(with_options)
    return with_options


_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)

_FOLDER_OPTIONS = (
    click.option("--images", type=_FOLDER, help="Folder of your pictures."),
    click.option(
        "--masks",
        type=_FOLDER,
        help="Folder of their label maps: grey or palette PNGs; 255 is not counted.",
    ),
    click.option(
        "--prompts",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Words to try in place of those of --names, in a file like it; several are compared.",
    ),
    click.option(
        "--as-paper",
        is_flag=True,
        help="Predict as the paper does: no contrast words, no refinement, no islands dropped.",
    ),
    threshold_option,
    click.option(
        "--refine/--no-refine",
        default=True,
        show_default=True,
        help="Let masks follow the edges of your pictures.",
    ),
    propagate_option,
    click.option(
        "--presence",
        default=0.0,
        show_default=True,
        type=FiniteRange(0, 1, max_open=True),
        help="Weight of the presence prior; 0 for none.",
    ),
    click.option(
        "--synonyms",
        default="best",
        show_default=True,
        type=click.Choice(["best", "joined"]),
        help="How several words of a label count.",
    ),
    click.option(
        "--page",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write an HTML page with the worst of your pictures side by side.",
    ),
    click.option(
        "--worst",
        default=12,
        show_default=True,
        type=click.IntRange(min=0),
        help="Pictures on the page.",
    ),
)


def _candidates(
    options: Sequence[ModelOptions],
    words: Sequence[tuple[str, tuple[Label, ...]]],
    rule: PredictionRule,
    scored: ScoreOptions,
) -> list[Candidate]:
    """Load each model once, and combine all methods and prompts with it."""
    models = {name: each.load_model() for name, each in {o.model: o for o in options}.items()}
    made = []
    for each in options:
        model = models[each.model]
        sizes = Preprocessing.of_short_side(model.mean, model.std, each.short_side_px)
        store = EmbeddingStore.of(model, each.model_dir)
        with click_errors():
            segmenter = Segmenter(model, each.method, sizes, store=store)
        made += [
            Candidate(segmenter, labels, each.model, name, rule, options=scored)
            for name, labels in words
        ]
    return made
