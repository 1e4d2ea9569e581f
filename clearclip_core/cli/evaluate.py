"""`clearclip eval`, `merge` and `prepare`: measure models on benchmarks and on own pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource
from tqdm import tqdm

from clearclip_core.cli.data_options import DataOptions, optional_data_options, save_option
from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.evaluate_folder import FolderOptions, folder_options
from clearclip_core.cli.options import ModelOptions, several_model_options
from clearclip_core.clip.device_info import device_name
from clearclip_core.clip.methods import resolve_method
from clearclip_core.evaluation.checkpoint import Checkpoint
from clearclip_core.evaluation.datasets.preparation import RECODINGS, prepare
from clearclip_core.evaluation.datasets.protocols import method_for
from clearclip_core.evaluation.results import (
    Result,
    Shard,
    as_text,
    merge,
    other_versions,
    versions,
)
from clearclip_core.evaluation.run_config import RunConfig, digest_of
from clearclip_core.evaluation.runner import predictor, run_through
from clearclip_core.evaluation.task import result_path


@click.command("eval")
@optional_data_options
@folder_options
@several_model_options
@click.option(
    "--shard",
    default="0/1",
    show_default=True,
    metavar="I/N",
    callback=lambda _context, _option, text: parse_shard(text),
    help="Measure the I-th of N shares of the pictures (I from 0); see `merge`.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Result file; by default results/BENCHMARK.MODEL.METHOD.json, none of pictures.",
)
@save_option
def evaluate(
    options: tuple[ModelOptions, ...],
    data: DataOptions,
    folder: FolderOptions,
    shard: Shard,
    out: Path | None,
    save_every_s: float,
) -> None:
    """Measure on your own labelled pictures as the backend predicts, or mIoU on a benchmark.

    --images, --masks and --names measure on your pictures: mIoU, boundary IoU, saved paint and
    accepted masks of each model, method and file of prompts. A mask is a PNG of label values with
    the path of its picture.

    --benchmark measures as the paper does, and later methods as their authors did: short side,
    windows, scale and thresholds are theirs, unless --short-side is given. The result is a JSON
    file. Start an interrupted run again with equal options to resume it; the result of a finished
    run is only printed. With --shard, several processes or GPUs share the work, and `clearclip
    merge` merges their results.
    """
    if folder.images is not None:
        if data.benchmark or data.data or shard.of > 1:
            raise click.UsageError("--images goes without --benchmark, --data and --shard.")
        folder.measure(options, data.names, data.limit, out)
    elif data.benchmark is None:
        raise click.UsageError("name a --benchmark, or --images with --masks and --names.")
    elif len(options) > 1 or folder != FolderOptions():
        raise click.UsageError(
            "--benchmark takes one --model and one --method, and no option of --images."
        )
    else:
        _evaluate_benchmark(options[0], data, shard, out, save_every_s)


def _evaluate_benchmark(
    options: ModelOptions, data: DataOptions, shard: Shard, out: Path | None, save_every_s: float
) -> None:
    with click_errors():
        method = resolve_method(options.method)
    source = click.get_current_context().get_parameter_source("short_side_px")
    chosen = None if source is ParameterSource.DEFAULT else options.short_side_px
    task = data.find(chosen, method)
    called, method = str(method), method_for(task.benchmark.name, method)
    model = options.load_model()
    with click_errors():
        config = task.run_config(model, method, called)
    path = out or result_path(config, shard)
    result = existing_result(path, config, shard)
    if result is None:
        segmenter = task.segmenter(model, method, options.model_dir)
        predict = predictor(segmenter, task.benchmark, task.labels)
        samples, classes = task.samples[shard.slice], len(task.benchmark.classes)
        checkpoint = Checkpoint.beside(path, digest_of([config.key, str(shard)]))
        with click_errors():
            (tally,) = run_through(predict, samples, classes, checkpoint, 1, save_every_s)
            hardware = device_name(segmenter.encoder.device)
            result = Result(config, shard, tally, versions(), hardware)
            result.write(path)
        checkpoint.remove()
    else:
        warn_of_versions(path, result.versions)
    click.echo(as_text(result))
    click.echo(f"\n{path}")


@click.command("merge")
@click.argument(
    "results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Result file; by default the file that one process would write.",
)
def merge_shards(results: tuple[Path, ...], out: Path | None) -> None:
    """Merge the shards of one run, exactly as if one process had counted it.

    RESULTS are the JSON files of all shards, in any order.
    """
    with click_errors():
        whole = merge([Result.read(path) for path in results])
        path = out or result_path(whole.config, Shard(), results[0].parent)
        existing_result(path, whole.config, Shard())  # another result is not overwritten
        whole.write(path)
    click.echo(as_text(whole))
    click.echo(f"\n{path}")


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

    coco_stuff and coco_object: from COCO-Stuff's annotations/val2017/*.png (coco_object also from
    *_labelTrainIds.png); cityscapes: from gtFine's *_labelIds.png. Existing files stay.
    """
    with click_errors():
        written = sum(1 for _ in tqdm(prepare(benchmark, data), unit="map"))
    click.echo(f"{written} label maps written, for {benchmark}.")


def existing_result(path: Path, config: RunConfig, shard: Shard) -> Result | None:
    """Read the result of an earlier run of one configuration; None where there is no file.

    Raises:
        click.ClickException: the file holds another result, or cannot be read.
    """
    if not path.exists():
        return None
    with click_errors():
        result = Result.read(path)
    differences = config.differences(result.config)
    if str(shard) != str(result.shard):
        differences = ", ".join(filter(None, [differences, f"shard {shard} and {result.shard}"]))
    if differences:
        raise click.ClickException(
            f"{path} holds a result of other settings ({differences}). Name another file with "
            "--out, or move that one away."
        )
    return result


def warn_of_versions(path: Path, measured: Mapping[str, str]) -> None:
    """Print the versions of an earlier result that differ from the installed ones."""
    others = other_versions(measured)
    if others:
        click.echo(f"{path} was measured with other versions: {others}.", err=True)


def parse_shard(text: str) -> Shard:
    """Parse a shard of a command line.

    Raises:
        click.BadParameter: the text is not two numbers I/N with I below N.

    >>> parse_shard("3/4")
    Shard(index=3, of=4)
    """
    index, _, of = text.partition("/")
    try:
        return Shard(int(index), int(of))
    except ValueError as error:
        raise click.BadParameter(f"expected I/N with I from 0 to N-1, but got {text!r}.") from error
