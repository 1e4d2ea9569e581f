"""`clearclip statistics`: describe feature maps as Figs. 2 to 4 of the paper do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import torch
from tqdm import tqdm

from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.image_source import ImageSource
from clearclip_core.cli.options import MODEL_DIR_HELP
from clearclip_core.cli.segment import parse_labels
from clearclip_core.clip.weights import require_weights
from clearclip_core.demo.scenes.scene import SCENE_LABELS
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.images.files import find_images
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.paper.feature_figures import require_matplotlib, save_examples, save_figures
from clearclip_core.paper.feature_statistics import (
    ImageTower,
    MapExample,
    MapStatistics,
    as_lists,
    as_table,
    map_statistics,
)
from clearclip_core.vocabulary import Label


@click.command(short_help="Describe the feature maps of each layer: Figures 2 to 4.")
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
    "--labels",
    help="Labels for an example, the first picture; by default what drawn scenes show.",
)
@click.option(
    "--scenes",
    default=50,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many scenes are drawn where no PICTURES are given.",
)
@click.option(
    "--short-side",
    "short_side_px",
    default=448,
    show_default=True,
    type=click.IntRange(min=1),
    help="Resize the short side to this many px.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--model-dir", type=click.Path(path_type=Path), help=MODEL_DIR_HELP)
@click.option(
    "-o",
    "--out",
    default="statistics",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results.",
)
def statistics(
    pictures: tuple[str, ...],
    models: tuple[str, ...],
    dino: Path | None,
    labels: str | None,
    scenes: int,
    short_side_px: int,
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
    words: tuple[str | Label, ...] = () if pictures else SCENE_LABELS
    if labels is not None:
        words = parse_labels(labels)
    source = ImageSource(find_images(pictures), 0 if pictures else scenes)
    table = out / "statistics.json"
    found, examples = [], []
    with click_errors():
        require_matplotlib()
        for load in _tower_loaders(models, dino, device, model_dir):
            tower = load()
            sizes = Preprocessing.of_short_side(tower.mean, tower.std, short_side_px)
            bar = tqdm(source, desc=tower.name, unit="picture")
            found.append(map_statistics(tower.maps, tower.name, bar, sizes))
            _write_statistics(table, found, source.names, short_side_px)  # a later tower may fail
            click.echo(f"\n{as_table(found[-1])}\n")
            if tower.model is not None and words:
                examples.append(MapExample.of(tower.model, next(iter(source)), words, sizes))
    written = [table, *save_figures(found, out)]
    written += [save_examples(examples, out)] if examples else []
    click.echo("\n".join(map(str, written)))
    if source.failed:
        raise SystemExit(1)


def _tower_loaders(
    models: Sequence[str], dino: Path | None, device: str, model_dir: Path | None
) -> list[Callable[[], ImageTower]]:
    """Return one loader a tower, DINO first.

    Raises:
        WeightsNotFoundError: weights of a CLIP model are not on disk and cannot be fetched.
        ValueError: the name of a model is not of the form ARCH/TAG.
    """
    for name in models:
        require_weights(name, model_dir)
    loaders = [partial(ImageTower.of_model, name, device, model_dir) for name in models]
    dino_loaders = [] if dino is None else [partial(ImageTower.of_dino, dino, device)]
    return [*dino_loaders, *loaders]


def _write_statistics(
    path: Path, found: Sequence[MapStatistics], images: Sequence[str], short_side_px: int
) -> None:
    """Write the statistics of all towers so far as JSON."""
    content = {
        "pictures": images,
        "short_side_px": short_side_px,
        "torch": torch.__version__,
        "towers": [as_lists(each) for each in found],
    }
    write_whole(path, f"{json.dumps(content)}\n".encode())
