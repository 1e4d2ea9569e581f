"""`clearclip eval` and `prepare`: measure models on benchmarks and on own pictures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from clearclip_core.cli.options import (
    METHOD_HELP,
    DataOptions,
    ModelOptions,
    ThresholdOption,
    as_one,
    click_errors,
    data_options,
    shared_options,
    threshold_option,
    thresholds_by_label,
)
from clearclip_core.clip.methods import Method
from clearclip_core.evaluation.benchmarks import RECODINGS, json_digest, method_for, prepare
from clearclip_core.evaluation.comparison import (
    AS_BACKEND,
    AS_PAPER,
    SHOWN,
    Candidate,
    LabelledFolder,
    PredictionRule,
    compare,
    comparison_json,
    comparison_page,
    comparison_text,
    learn_unlabelled,
)
from clearclip_core.evaluation.results import (
    RunConfig,
    RunResult,
    checkpoint_path,
    result_path,
    result_table,
)
from clearclip_core.images.files import write_whole
from clearclip_core.vocabulary import Label

if TYPE_CHECKING:  # torch and open_clip take seconds, which no help needs
    from clearclip_core.clip.loading import LoadedModel
    from clearclip_core.evaluation.runner import EvaluationTask


@dataclass(frozen=True)
class FolderOptions:
    """Values of the options for own pictures, given as one argument."""

    images: Path | None = None
    masks: Path | None = None
    prompts: tuple[Path, ...] = ()
    as_paper: bool = False
    threshold: tuple[ThresholdOption, ...] = ()
    refine: bool = True
    page: Path | None = None
    unlabelled: Path | None = None


_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)

folder_options = as_one(
    FolderOptions,
    (
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
            help="Words to try in place of those of --names, in a file like it; several are "
            "compared.",
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
        click.option(
            "--page",
            type=click.Path(path_type=Path, dir_okay=False),
            help=f"Write an HTML page with the {SHOWN} worst of your pictures side by side.",
        ),
        click.option(
            "--unlabelled",
            type=_FOLDER,
            help="Add a row for what these pictures teach, which nobody has labelled.",
        ),
    ),
    "folder",
)


@click.command("eval")
@data_options(required=False)
@folder_options
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("ViT-B-16/openai",),
    show_default=True,
    envvar="MODEL",
    show_envvar=True,
    help="See `models`. Several are compared.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=("clearclip",),
    show_default=True,
    help=f"{METHOD_HELP} Several are compared.",
)
@shared_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Result file; by default results/BENCHMARK.MODEL.METHOD.json, none of pictures.",
)
def measure(
    *,
    options: ModelOptions,
    models: tuple[str, ...],
    methods: tuple[str, ...],
    data: DataOptions,
    folder: FolderOptions,
    out: Path | None,
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
    pairs = itertools.product(dict.fromkeys(models), dict.fromkeys(methods))
    several = [replace(options, model=model, method=method) for model, method in pairs]
    if folder.images is not None:
        if data.benchmark or data.data:
            raise click.UsageError("--images goes without --benchmark and --data.")
        _measure_folder(several, folder, data, out)
    elif data.benchmark is None:
        raise click.UsageError("name a --benchmark, or --images with --masks and --names.")
    elif len(several) > 1 or folder != FolderOptions():
        raise click.UsageError(
            "--benchmark takes one --model and one --method, and no option of --images."
        )
    else:
        _measure_benchmark(several[0], data, out)


def _find_folder(
    chosen: FolderOptions, data: DataOptions
) -> tuple[LabelledFolder, dict[str, tuple[Label, ...]]]:
    """Return the pictures, and the labels by the name of each file of words that is tried."""
    if chosen.images is None or chosen.masks is None or data.names is None:
        raise click.UsageError("--images needs --masks and --names.")
    with click_errors():
        folder = LabelledFolder.find(chosen.images, chosen.masks, data.names, data.limit)
        words = {path.name: folder.with_prompts(path) for path in chosen.prompts}
    return folder, words or {data.names.name: folder.labels}


def _measure_folder(
    several: list[ModelOptions], chosen: FolderOptions, data: DataOptions, out: Path | None
) -> None:
    """Compare all models, methods and prompts on a folder of labelled pictures."""
    if chosen.as_paper and (chosen.threshold or not chosen.refine):
        raise click.UsageError("--as-paper goes without --threshold and --no-refine.")

    folder, words = _find_folder(chosen, data)
    with click_errors():
        rule = _rule(chosen, [label.name for label in folder.labels])
    candidates = _candidates(several, words, rule)
    with click_errors():
        if chosen.unlabelled is not None:
            candidates += [_with_unlabelled(each, chosen.unlabelled) for each in candidates]
        comparison = compare(folder, candidates, SHOWN if chosen.page else 0)
        click.echo(comparison_text(comparison))
        for path, content in ((out, comparison_json), (chosen.page, comparison_page)):
            if path is not None:
                write_whole(path, content(comparison))
                click.echo(f"\n{path}")


def _rule(chosen: FolderOptions, labels: Sequence[str]) -> PredictionRule:
    """Return how masks are made of scores.

    Raises:
        ValueError: a threshold is for a label that is not there.
    """
    if chosen.as_paper:
        return AS_PAPER
    thresholds = thresholds_by_label(chosen.threshold, labels)
    return replace(AS_BACKEND, threshold=thresholds, refine=chosen.refine)


def _candidates(
    several: Sequence[ModelOptions],
    words: Mapping[str, tuple[Label, ...]],
    rule: PredictionRule,
) -> list[Candidate]:
    """Return a candidate for each model, method and file of prompts; load each model once."""
    models: dict[str, LoadedModel] = {}
    candidates = []
    for options in several:
        if options.model not in models:
            models[options.model] = options.load_model()
        segmenter = options.segmenter(models[options.model])
        for name, labels in words.items():
            candidates.append(Candidate(segmenter, labels, options.model, name, rule))
    return candidates


def _with_unlabelled(candidate: Candidate, images: Path) -> Candidate:
    """Return a candidate that has learned from images which nobody has labelled."""
    learned = learn_unlabelled(images, candidate)
    return replace(candidate, prompts=f"{candidate.prompts}, unlabelled", learned=learned)


def _measure_benchmark(options: ModelOptions, data: DataOptions, out: Path | None) -> None:
    with click_errors():
        method = Method.of(options.method)
        method.check_second_encoder(is_there=False)
    task = data.find(options.short_side_px, method)
    called, method = str(method), method_for(task.benchmark.name, method)
    model = options.load_model()
    with click_errors():
        config = task.run_config(model, method, called)
    path = out or result_path(config)
    measure_missing(task, model, {path: (method, config)}, path)
    with click_errors():
        click.echo(f"{result_table(RunResult.read(path))}\n\n{path}")


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


def measure_missing(
    task: EvaluationTask,
    model: LoadedModel,
    runs: Mapping[Path, tuple[Method, RunConfig]],
    place: Path,
) -> None:
    """Measure the methods without a result file in one pass, and write their files.

    Args:
        runs: result file -> method and configuration.
        place: path beside which the checkpoint is kept.

    Raises:
        click.ClickException: a file is of another configuration, or the pass failed.
    """
    missing = {path: run for path, run in runs.items() if not _is_measured(path, run[1])}
    if not missing:
        return
    from clearclip_core.devices import device_name
    from clearclip_core.evaluation.runner import run_through

    segmenters = [task.segmenter(model, method) for method, _ in missing.values()]
    key = json_digest([config.key for _, config in missing.values()])
    checkpoint = checkpoint_path(place, key)
    hardware = device_name(segmenters[0].encoder.device)
    with click_errors():
        predict, classes = task.predictor(segmenters), len(task.benchmark.classes)
        tallies = run_through(predict, task.samples, classes, checkpoint, len(missing))
        for (path, (_, config)), tally in zip(missing.items(), tallies, strict=True):
            RunResult.of(config, tally, hardware).write(path)
    checkpoint.unlink(missing_ok=True)


def _is_measured(path: Path, config: RunConfig) -> bool:
    """Whether an earlier run of the same configuration has written the file."""
    if not path.exists():
        return False
    with click_errors():
        found = RunResult.read(path)
    if differences := config.differences(found.settings):
        raise click.ClickException(
            f"{path} holds a result of other settings ({differences}). Name another place with "
            "--out, or move that file away."
        )
    return True
