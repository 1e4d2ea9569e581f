"""`clearclip ablate` and `tables`: the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from filelock import FileLock

from clearclip_core.cli.data_options import DataOptions, data_options, save_option
from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.evaluate import warn_of_versions
from clearclip_core.cli.options import ModelOptions, many_method_options
from clearclip_core.clip.device_info import device_name
from clearclip_core.clip.devices import choose_device
from clearclip_core.clip.methods import METHODS
from clearclip_core.evaluation.checkpoint import Checkpoint
from clearclip_core.evaluation.results import Result, Shard, other_versions
from clearclip_core.evaluation.run_config import RunConfig, digest_of
from clearclip_core.evaluation.runner import run_through
from clearclip_core.evaluation.task import result_path
from clearclip_core.paper.ablation import STUDIES, Ablation, methods_of, readouts
from clearclip_core.paper.ablation_figures import draw_figures
from clearclip_core.paper.feature_figures import require_matplotlib
from clearclip_core.paper.tables import demo_table, own_rows, table_1, table_2, table_3

_ALL = "all"


@click.command("ablate", short_help="Repeat Table 1 and Figures 5 and 6 of the paper.")
@data_options
@many_method_options
@click.option(
    "--study",
    default=_ALL,
    show_default=True,
    type=click.Choice([_ALL, *STUDIES]),
    help="table1: residual connection and FFN with q-q attention; figure5: with every attention; "
    "figure6: every attention with every α.",
)
@click.option(
    "-o",
    "--out",
    default=Path("results/ablation"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results; models and benchmarks that are measured into one folder share "
    "its table and figures.",
)
@save_option
def ablate(
    options: ModelOptions, data: DataOptions, study: str, out: Path, save_every_s: float
) -> None:
    """Repeat Tab. 1 and Figs. 5-6 of the paper on a benchmark.

    Writes a JSON file of all readouts, figure5.png and figure6.png, and prints Tab. 1 beside the
    paper's figures. Only missing readouts are measured, and an interrupted run is resumed.
    """
    with click_errors():
        require_matplotlib()
    task = data.find(options.short_side_px)
    model = options.load_model()
    with click_errors():
        config = task.run_config(model, METHODS["clearclip"], called="ablation")
    path = result_path(config, Shard(), out)
    known = existing_ablation(path, config)
    if known:
        warn_of_versions(path, known.versions)
    wanted = methods_of(STUDIES if study == _ALL else [study])
    missing = [method for method in wanted if known is None or method not in known.scores]
    if missing:
        if known and other_versions(known.versions):
            raise click.ClickException(
                f"Readouts of these versions are not added to {path}. Name another folder with "
                "--out, or move that file away."
            )
        checkpoint = Checkpoint.beside(path, digest_of([config.key, *map(str, missing)]))
        predict = readouts(task, model, missing, options.model_dir)
        classes = len(task.benchmark.classes)
        with click_errors():
            tallies = run_through(
                predict, task.samples, classes, checkpoint, len(missing), save_every_s
            )
            made = Ablation.of(config, missing, tallies, device_name(choose_device(options.device)))
            out.mkdir(parents=True, exist_ok=True)
            with FileLock(out / ".lock"):  # another process may have added a study
                known = existing_ablation(path, config)
                (made.with_scores_of(known) if known else made).write(path)
        checkpoint.remove()
    report_ablations(out)


@click.command("tables", short_help="Print Tables 2 and 3 of the paper beside your results.")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path, exists=True))
def tables(results: tuple[Path, ...]) -> None:
    """Print Tabs. 2 and 3 of the paper, and your own results beside them.

    RESULTS are files of `clearclip eval`, or folders of them. Each row names its source: measured
    by the paper's authors, cited by them, published by a later paper, or yours.
    """
    with click_errors():
        own = [Result.read(path) for path in result_files(results)]
        rows = own_rows(own)
        two, three = table_2(rows), table_3(rows)
    click.echo(f"mIoU in %, benchmarks without a background class (Tab. 2)\n\n{two}")
    click.echo(f"\nmIoU in %, benchmarks with a background class (Tab. 3)\n\n{three}")
    if any(result.config.benchmark == "demo" for result in own):
        click.echo(f"\nDrawn scenes, no benchmark of the paper\n\n{demo_table(own)}")


def report_ablations(folder: Path) -> None:
    """Print Tab. 1 and draw the figures of all ablations in a folder.

    Raises:
        click.ClickException: a file cannot be read or written.
    """
    with click_errors():
        found = [Ablation.read(path) for path in sorted(folder.glob("*.json"))]
        click.echo(f"mIoU in % (Tab. 1)\n\n{table_1(found)}\n")
        pictures = draw_figures(found, folder)
    for path in (*sorted(folder.glob("*.json")), *pictures):
        click.echo(path)


def existing_ablation(path: Path, config: RunConfig) -> Ablation | None:
    """Read an earlier ablation of one configuration; None where there is no file.

    Raises:
        click.ClickException: the file holds another ablation, or cannot be read.
    """
    if not path.exists():
        return None
    with click_errors():
        known = Ablation.read(path)
    differences = config.differences(known.config)
    if differences:
        raise click.ClickException(
            f"{path} holds an ablation of other settings ({differences}). Name another folder "
            "with --out, or move that file away."
        )
    return known


def result_files(paths: Iterable[Path]) -> list[Path]:
    """Return the given files, and the JSON files of the given folders."""
    return [
        file
        for path in paths
        for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
