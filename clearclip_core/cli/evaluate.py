"""`clearclip eval` and `prepare`: measure models on benchmarks and on own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from click.core import ParameterSource
from tqdm import tqdm

from clearclip_core.cli.options import (
    DataOptions,
    ModelOptions,
    as_one,
    data_options,
    propagate_option,
    several_model_options,
)
from clearclip_core.cli.parameters import (
    FiniteRange,
    ThresholdOption,
    click_errors,
    threshold_option,
    thresholds_by_label,
)
from clearclip_core.clip.devices import device_name
from clearclip_core.clip.methods import resolve_method
from clearclip_core.clip.text_encoder import EmbeddingStore
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.benchmarks import RECODINGS, method_for, prepare
from clearclip_core.evaluation.comparison import (
    AS_BACKEND,
    AS_PAPER,
    Candidate,
    LabelledFolder,
    PredictionRule,
    compare,
)
from clearclip_core.evaluation.comparison_report import (
    comparison_json,
    comparison_page,
    comparison_text,
)
from clearclip_core.evaluation.results import (
    Checkpoint,
    RunConfig,
    RunResult,
    other_versions,
    result_table,
)
from clearclip_core.evaluation.runner import predictor, result_path, run_through
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.scores import ScoreOptions
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label


@dataclass(frozen=True)
class FolderOptions:
    """Values of the options for own pictures, given as one argument."""

    images: Path | None = None
    masks: Path | None = None
    prompts: tuple[Path, ...] = ()
    as_paper: bool = False
    threshold: tuple[ThresholdOption, ...] = ()
    refine: bool = True
    propagate: bool = False
    presence: float = 0.0
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
                "--as-paper goes without --threshold and --no-refine, and without --propagate and "
                "--presence."
            )
        with click_errors():
            folder = LabelledFolder.find(self.images, self.masks, names, limit)
            rule = self._rule(folder.labels)
            words = [(path.name, folder.with_prompts(path)) for path in self.prompts]
        candidates = _candidates(options, words or [(names.name, folder.labels)], rule, scored)
        with click_errors():
            comparison = compare(folder, candidates, self.worst if self.page else 0)
            click.echo(comparison_text(comparison))
            if out is not None:
                write_whole(out, comparison_json(comparison))
            if self.page is not None:
                write_whole(self.page, comparison_page(comparison))
        for path in filter(None, (out, self.page)):
            click.echo(f"\n{path}")

    @property
    def _scored(self) -> ScoreOptions:
        return ScoreOptions(self.presence)

    def _rule(self, labels: Sequence[Label]) -> PredictionRule:
        if self.as_paper:
            return AS_PAPER
        thresholds = thresholds_by_label(self.threshold, [label.name for label in labels])
        return replace(
            AS_BACKEND, threshold=thresholds, refine=self.refine, propagate=self.propagate
        )


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


folder_options = as_one(FolderOptions, _FOLDER_OPTIONS, "folder")


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


@click.command("eval")
@data_options(required=False)
@folder_options
@several_model_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Result file; by default results/BENCHMARK.MODEL.METHOD.json, none of pictures.",
)
def measure(
    options: tuple[ModelOptions, ...], data: DataOptions, folder: FolderOptions, out: Path | None
) -> None:
    """Measure on your own labelled pictures as the backend predicts, or mIoU on a benchmark.

    --images, --masks and --names measure on your pictures: mIoU, boundary IoU, saved paint and the
    masks with an IoU of at least 0.9, for each model, method and file of prompts. A mask is a PNG
    of label values with the path of its picture.

    --benchmark measures as the paper does, and later methods as their authors did: short side,
    windows, scale and thresholds are theirs, unless --short-side is given. The result is a JSON
    file. Start an interrupted run again with equal options to resume it; the result of a finished
    run is only printed.
    """
    if folder.images is not None:
        if data.benchmark or data.data:
            raise click.UsageError("--images goes without --benchmark and --data.")
        folder.measure(options, data.names, data.limit, out)
    elif data.benchmark is None:
        raise click.UsageError("name a --benchmark, or --images with --masks and --names.")
    elif len(options) > 1 or folder != FolderOptions():
        raise click.UsageError(
            "--benchmark takes one --model and one --method, and no option of --images."
        )
    else:
        _measure_benchmark(options[0], data, out)


def _measure_benchmark(options: ModelOptions, data: DataOptions, out: Path | None) -> None:
    with click_errors():
        method = resolve_method(options.method)
    source = click.get_current_context().get_parameter_source("short_side_px")
    chosen = None if source is ParameterSource.DEFAULT else options.short_side_px
    task = data.find(chosen, method)
    called, method = str(method), method_for(task.benchmark.name, method)
    model = options.load_model()
    with click_errors():
        config = task.run_config(model, method, called)
    path = out or result_path(config)
    result = earlier_result(path, config)
    if result is None:
        segmenter = task.segmenter(model, method, options.model_dir)
        predict = predictor(segmenter, task.benchmark, task.labels)
        checkpoint = Checkpoint.beside(path, config.key)
        with click_errors():
            (tally,) = run_through(predict, task.samples, len(task.benchmark.classes), checkpoint)
            result = RunResult.of(config, tally, device_name(segmenter.encoder.device))
            result.write(path)
        checkpoint.remove()
    click.echo(f"{result_table(result)}\n\n{path}")


@click.command("prepare")
@click.argument("benchmark", type=click.Choice(list(RECODINGS)))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the data set, laid out as for MMSegmentation.",
)
def prepare_maps(benchmark: str, data: Path) -> None:
    """Make a benchmark's label maps from the published ones, beside them.

    coco_stuff and coco_object: from COCO-Stuff's annotations/val2017/*.png; cityscapes: from
    gtFine's *_labelIds.png. Existing files stay.
    """
    with click_errors():
        written = sum(1 for _ in tqdm(prepare(benchmark, data), unit="map"))
    click.echo(f"{written} label maps written, for {benchmark}.")


def earlier_result(path: Path, config: RunConfig) -> RunResult | None:
    """Read what an earlier run of one configuration has written; None where there is no file.

    Other versions than the installed ones are printed.

    Raises:
        click.ClickException: the file is of another configuration, or cannot be read.
    """
    if not path.exists():
        return None
    with click_errors():
        found = RunResult.read(path)
    if differences := config.differences(found.settings):
        raise click.ClickException(
            f"{path} holds a result of other settings ({differences}). Name another place with "
            "--out, or move that file away."
        )
    if others := other_versions(found.versions):
        click.echo(f"{path} was measured with other versions: {others}.", err=True)
    return found
