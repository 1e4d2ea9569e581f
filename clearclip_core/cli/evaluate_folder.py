"""`clearclip eval --images`: compare models, methods and prompts on anybody's labelled pictures."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click

from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.finite_range import FiniteRange
from clearclip_core.cli.options import ModelOptions
from clearclip_core.clip.device_info import device_name
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.candidate import AS_BACKEND, AS_PAPER, Candidate, PredictionRule
from clearclip_core.evaluation.comparison import Comparison, compare
from clearclip_core.evaluation.comparison_page import DEFINITIONS, as_page, cells, title
from clearclip_core.evaluation.labelled_folder import LabelledFolder
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label


@dataclass(frozen=True)
class FolderOptions:
    """Values of the options for own pictures, see `folder_options`."""

    images: Path | None = None
    masks: Path | None = None
    prompts: tuple[Path, ...] = ()
    as_paper: bool = False
    threshold: float = 0.0
    refine: bool = True
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
        rule = self._rule()
        with click_errors():
            folder = LabelledFolder.find(self.images, self.masks, names, limit)
            words = [(path.name, folder.with_prompts(path)) for path in self.prompts]
        candidates = _candidates(options, words or [(names.name, folder.labels)], rule)
        with click_errors():
            comparison = compare(folder, candidates, self.worst if self.page else 0)
            click.echo(as_text(comparison))
            if out is not None:
                write_whole(out, _as_json(comparison, rule))
            if self.page is not None:
                write_whole(self.page, as_page(comparison))
        for path in filter(None, (out, self.page)):
            click.echo(f"\n{path}")

    def _rule(self) -> PredictionRule:
        if not self.as_paper:
            return replace(AS_BACKEND, threshold=self.threshold, refine=self.refine)
        if self.threshold or not self.refine:
            raise click.UsageError("--as-paper goes without --threshold and --no-refine.")
        return AS_PAPER


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
    click.option(
        "--threshold",
        default=0.0,
        show_default=True,
        type=FiniteRange(0, 1),
        help="Pixels of your pictures less likely than this get no label.",
    ),
    click.option(
        "--refine/--no-refine",
        default=True,
        show_default=True,
        help="Let masks follow the edges of your pictures.",
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
        made += [Candidate(segmenter, labels, each.model, name, rule) for name, labels in words]
    return made


def as_text(comparison: Comparison) -> str:
    """Format a comparison for the terminal: the candidates, then the labels of the best."""
    header = ["model", "method", "prompts", *DEFINITIONS, "s a picture"]
    rows = []
    for candidate, figures in zip(comparison.candidates, comparison.figures, strict=True):
        shares = cells(figures.mean_iou, figures.mean_boundary_iou, figures.all)
        called = [candidate.model, candidate.method, candidate.prompts]
        rows.append([*called, *shares, f"{figures.seconds_per_picture:.2f}"])
    best = comparison.best
    labels = []
    for name, each in zip(comparison.labels, comparison.figures[best].labels, strict=True):
        shares = cells(each.overlap.iou, each.overlap.boundary_iou, each)
        labels.append([name, str(each.pictures), *shares])
    device = device_name(comparison.candidates[0].segmenter.encoder.device)
    return "\n".join(
        [
            f"{len(comparison.figures[0].seconds)} pictures, {len(comparison.labels)} labels, in "
            f"percent, on {device}",
            "",
            *_columns([header, *rows], names=3),
            "",
            f"by label: {title(comparison, best)}",
            "",
            *_columns([["label", "pictures", *DEFINITIONS], *labels], names=1),
        ]
    )


def _columns(rows: Sequence[Sequence[str]], names: int) -> list[str]:
    """Align columns: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            text.ljust(width) if place < names else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _as_json(comparison: Comparison, rule: PredictionRule) -> bytes:
    runs = []
    for candidate, figures in zip(comparison.candidates, comparison.figures, strict=True):
        pairs = zip(comparison.labels, figures.labels, strict=True)
        runs.append(
            {
                "model": candidate.model,
                "method": candidate.method,
                "prompts": candidate.prompts,
                "miou": figures.mean_iou,
                "mean_boundary_iou": figures.mean_boundary_iou,
                "saved_paint": figures.all.overlap.saved_paint,
                "accepted_share": figures.all.accepted_share,
                "seconds_per_picture": figures.seconds_per_picture,
                "labels": {name: each.to_json() for name, each in pairs},
            }
        )
    content = {
        "pictures": len(comparison.figures[0].seconds),
        "contrast": rule.contrast,
        "refine": rule.refine,
        "threshold": rule.threshold,
        "runs": runs,
    }
    return json.dumps(content, indent=2).encode() + b"\n"
