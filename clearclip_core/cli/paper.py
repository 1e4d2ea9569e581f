"""`clearclip ablate`, `tables` and `statistics`: the paper's tables and figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace
from tqdm import tqdm

from clearclip_core.cli.evaluate import measure_missing
from clearclip_core.cli.options import (
    DataOptions,
    ImageSource,
    ModelOptions,
    click_errors,
    data_options,
    device_option,
    many_method_options,
    model_dir_option,
    short_side_option,
)
from clearclip_core.cli.segment import parse_labels
from clearclip_core.clip.methods import METHODS, Method
from clearclip_core.clip.weights import check_weights
from clearclip_core.demo.render import SCENE_LABELS
from clearclip_core.evaluation.benchmarks import SHORT_SIDE_PX
from clearclip_core.evaluation.results import RunConfig, RunResult, result_path
from clearclip_core.images.files import find_images, write_whole
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.paper.tables import STUDIES, methods_of, own_rows, paper_table, table_1
from clearclip_core.quantities import quantity
from clearclip_core.vocabulary import Label

if TYPE_CHECKING:  # torch takes seconds, which no help needs
    from clearclip_core.paper.feature_statistics import ImageTower, MapStatistics

_ALL = "all"


@click.command("ablate")
@data_options(required=True)
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
def ablate(options: ModelOptions, data: DataOptions, study: str, out: Path) -> None:
    """Repeat Tab. 1 and Figs. 5-6 of the paper on a benchmark.

    Writes a result as `eval` does for each method, figure5.png and figure6.png, and prints Tab. 1
    beside the paper's figures. The blocks before the last run once a picture for all methods. Only
    missing results are measured, and an interrupted run is resumed.
    """
    from clearclip_core.paper.figures import require_matplotlib, save_ablations  # torch, seconds

    with click_errors():
        require_matplotlib()
    task = data.find(options.short_side_px)
    model = options.load_model()
    with click_errors():
        config = task.run_config(model, METHODS["clearclip"])
    runs: dict[Path, tuple[Method, RunConfig]] = {}
    for method in methods_of(STUDIES if study == _ALL else [study]):
        settings = replace(config, method=str(method))
        runs[result_path(settings, out)] = method, settings
    measure_missing(task, model, runs, out / "ablation")
    with click_errors():
        found = [RunResult.read(path) for path in result_files([out])]
        click.echo(f"mIoU in % (Tab. 1)\n\n{table_1(found)}\n")
        for path in save_ablations(found, out):
            click.echo(path)
    click.echo(f"{quantity(len(found), 'result')} in {out}")


@click.command("tables")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path, exists=True))
def tables(results: tuple[Path, ...]) -> None:
    """Print Tabs. 2 and 3 of the paper, and your own results beside them.

    RESULTS are files of `clearclip eval`, or folders of them. Each row names its source: measured
    by the paper's authors, cited by them, published by a later paper, or yours.
    """
    with click_errors():
        own = [RunResult.read(path) for path in result_files(results)]
        rows = own_rows(own)
        two, three = paper_table(2, rows), paper_table(3, rows)
    click.echo(f"mIoU in %, benchmarks without a background class (Tab. 2)\n\n{two}")
    click.echo(f"\nmIoU in %, benchmarks with a background class (Tab. 3)\n\n{three}")


def result_files(paths: Iterable[Path]) -> list[Path]:
    """Return the given files, and the JSON files of the given folders."""
    return [
        file
        for path in paths
        for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]


@click.command()
@click.argument("pictures", nargs=-1)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("ViT-B-16/openai", "ViT-L-14/openai"),
    show_default=True,
    help="A model to describe, see `models`; may be given several times.",
)
@click.option(
    "--dino",
    type=click.Path(path_type=Path),
    help="Weights of a DINO ViT to compare with: timm's vit_base_patch16_224.dino as a file.",
)
@click.option(
    "--labels", help="Labels for an example, the first picture; by default what drawn scenes show."
)
@click.option(
    "--scenes",
    default=50,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many scenes are drawn where no PICTURES are given.",
)
@short_side_option
@device_option
@model_dir_option
@click.option(
    "-o",
    "--out",
    default="statistics",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results.",
)
def statistics(
    *,
    pictures: tuple[str, ...],
    models: tuple[str, ...],
    dino: Path | None,
    labels: str | None,
    scenes: int,
    short_side_px: int | None,
    device: str,
    model_dir: Path | None,
    out: Path,
) -> None:
    """Describe the feature maps of each layer, as Figs. 2 to 4 of the paper do.

    PICTURES are files, folders or globs; without any, scenes are drawn. The results are
    statistics.json, norms.png (Fig. 2) and layers.png (Fig. 4), and where --labels is given, or
    scenes are drawn, maps.png (Fig. 3) of the first picture. statistics.json is written after
    each model.
    """
    from clearclip_core.paper import feature_statistics as features  # torch, for seconds
    from clearclip_core.paper.figures import require_matplotlib, save_figures

    words: tuple[str | Label, ...] = () if pictures else SCENE_LABELS
    if labels is not None:
        words = parse_labels(labels)
    source = ImageSource(find_images(pictures), 0 if pictures else scenes)

    table = out / "statistics.json"
    short_side_px = short_side_px or SHORT_SIDE_PX
    found: list[features.MapStatistics] = []
    examples: list[features.MapExample] = []
    with click_errors():
        require_matplotlib()
        for name in models:
            check_weights(name, model_dir)

        for tower in _towers(models, dino, device, model_dir):
            sizes = Preprocessing.of_short_side(tower.mean, tower.std, short_side_px)
            bar = tqdm(source, desc=tower.name, unit="picture")
            found.append(features.map_statistics(tower.maps, tower.name, bar, sizes))
            _write_statistics(table, found, source.names, short_side_px)  # a later one may fail
            click.echo(f"\n{features.as_table(found[-1])}\n")

            if tower.model is not None and words:
                first = next(iter(source))
                examples.append(features.MapExample.of(tower.model, first, words, sizes))

    click.echo("\n".join(map(str, [table, *save_figures(found, examples, out)])))
    if source.failed:
        raise SystemExit(1)


def _towers(
    models: Sequence[str], dino: Path | None, device: str, model_dir: Path | None
) -> Iterator[ImageTower]:
    """Load each encoder when it is its turn, DINO's first."""
    from clearclip_core.paper.feature_statistics import ImageTower

    if dino is not None:
        yield ImageTower.of_dino(dino, device)
    for name in models:
        yield ImageTower.of_model(name, device, model_dir)


def _write_statistics(
    table: Path, found: Sequence[MapStatistics], pictures: Sequence[str], short_side_px: int
) -> None:
    """Write the statistics of all encoders so far as JSON."""
    import torch

    from clearclip_core.paper.feature_statistics import as_lists

    content = {
        "pictures": pictures,
        "short_side_px": short_side_px,
        "torch": torch.__version__,
        "towers": [as_lists(each) for each in found],
    }
    write_whole(table, f"{json.dumps(content)}\n".encode())
