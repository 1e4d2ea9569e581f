"""``clearclip``: segment pictures, list and fetch models, measure this machine.

The paper's benchmarks, tables and figures are in `clearclip_core.evaluation`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import click
import torch
from PIL import Image
from tqdm import tqdm

from clearclip_core.cli.evaluate import COMMANDS
from clearclip_core.cli.options import MODEL_DIR_HELP, ModelOptions, model_options
from clearclip_core.cli.paper import PAPER_COMMANDS
from clearclip_core.clip.weights import download_weights, known_models, require_weights
from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import HELD_OUT_SEEDS, SCENE_LABELS
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.speed import MAX_LABELS, as_json, as_text, measure
from clearclip_core.images.files import RESULT_SUFFIXES, find_pictures, output_names
from clearclip_core.images.preprocessing import Preprocessing, RGBArray, to_rgb
from clearclip_core.images.visualization import NONE_VALUE, label_map_image, overlay
from clearclip_core.paper.feature_figures import require_matplotlib, save_examples, save_figures
from clearclip_core.paper.feature_statistics import (
    ImageTower,
    MapExample,
    as_lists,
    as_table,
    map_statistics,
)
from clearclip_core.vocabulary import Label


@click.group()
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """Open-vocabulary segmentation with CLIP, training-free (ClearCLIP)."""


for command in (*COMMANDS, *PAPER_COMMANDS):
    main.add_command(command)


@main.command()
@click.argument("pictures", nargs=-1, required=True)
@click.option(
    "--labels",
    required=True,
    help='What to look for: "sky,tree,horse"; prompts of a label: "sofa=sofa|couch,cat".',
)
@model_options
@click.option(
    "--contrast/--no-contrast",
    default=False,
    show_default=True,
    help="Let generic words compete, so that pixels that no label fits get none.",
)
@click.option(
    "--threshold",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Pixels less likely than this get no label.",
)
@click.option(
    "--refine/--no-refine",
    default=True,
    show_default=True,
    help="Let masks follow the picture's edges; without, they are the paper's.",
)
@click.option(
    "-o",
    "--out",
    default="out",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results.",
)
def segment(
    options: ModelOptions,
    pictures: tuple[str, ...],
    labels: str,
    contrast: bool,
    threshold: float,
    refine: bool,
    out: Path,
) -> None:
    """Write a label map and an overlay of each picture.

    PICTURES are files, folders or globs. Of photo.jpg come photo.labels.png, a palette image
    whose values are label indices and 255 for none, and photo.overlay.png; where two pictures
    would meet there, all keep their folders and suffixes: a/photo.jpg.labels.png.
    """
    vocabulary = parse_labels(labels)
    paths = find_pictures(pictures)
    segmenter = options.load()
    named = list(zip(paths, output_names(paths), strict=True))
    failed = 0
    for path, name in tqdm(named, unit="picture", disable=len(paths) == 1):
        try:
            with Image.open(path) as picture:
                rgb = to_rgb(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            click.echo(f"{path}: {error}", err=True)
            failed += 1
            continue
        result = segmenter.segment(rgb, vocabulary, contrast, threshold, refine)
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        label_map_image(result.label_map, len(vocabulary)).save(
            f"{target}{RESULT_SUFFIXES[0]}", optimize=True
        )
        overlay(rgb, result.label_map, result.labels).save(f"{target}{RESULT_SUFFIXES[1]}")
    click.echo(f"{len(paths) - failed} pictures segmented into {out}, {failed} failed.")
    if failed:
        raise SystemExit(1)


@main.command()
@click.option("--download", metavar="NAME", help="Fetch these weights, such as ViT-B-16/openai.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder to fetch them to.")
@click.option("--model-dir", type=click.Path(path_type=Path), help=MODEL_DIR_HELP)
def models(download: str | None, folder: Path | None, model_dir: Path | None) -> None:
    """List models, their licences and what is on disk; or fetch one for another machine."""
    if download is not None:
        if folder is None:
            raise click.UsageError("--download needs --to FOLDER.")
        try:
            click.echo(download_weights(download, folder))
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error
        return
    for model in known_models(model_dir):
        where = str(model.path) if model.path else "-"
        needs = f"  needs [{model.needs}]" if model.needs else ""
        click.echo(f"{model.name:48} {model.licence:18} {where}{needs}")


@main.command()
@model_options
@click.option(
    "--size",
    "size_wh",
    default="2048x1367",
    show_default=True,
    callback=lambda _context, _option, text: parse_size(text),
    help="Width and height of the picture in px.",
)
@click.option(
    "--labels",
    default=150,
    show_default=True,
    type=click.IntRange(1, MAX_LABELS),
    help="How many labels compete.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Windows encoded at once, instead of the default."
)
@click.option(
    "--seconds",
    "budget_s",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long to repeat; loading and embedding the labels come on top.",
)
@click.option(
    "--json",
    "json_file",
    type=click.File("w", encoding="utf-8", lazy=False, atomic=True),
    help="Write the figures to this file as well.",
)
def bench(
    options: ModelOptions,
    size_wh: tuple[int, int],
    labels: int,
    batch: int | None,
    budget_s: float,
    json_file: IO[str] | None,
) -> None:
    """Measure how fast this machine segments, with a drawn picture and a model of your choice.

    ARCH/random, such as ViT-L-14/random, measures a model whose weights are not here.
    """
    segmenter = options.load()
    segmenter.windows_at_once = batch or segmenter.windows_at_once
    click.echo(f"Embedding {labels} labels, then measuring for {budget_s:g} s ...", err=True)
    measured = measure(segmenter, size_wh, labels, budget_s)
    click.echo(as_text(measured))
    if json_file is not None:
        json_file.write(json.dumps(as_json(measured), indent=2) + "\n")


@main.command(short_help="Describe the feature maps of each layer: Figures 2 to 4.")
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

    PICTURES are files, folders or globs; without any, scenes are drawn. Written are
    statistics.json, norms.png (Fig. 2), layers.png (Fig. 4), and of the first picture maps.png
    (Fig. 3), if --labels says what to look for. statistics.json is there as soon as one model is
    through.
    """
    words: tuple[str | Label, ...] = () if pictures else SCENE_LABELS
    if labels is not None:
        words = parse_labels(labels)
    source = Pictures(tuple(find_pictures(pictures)), 0 if pictures else scenes)
    table = out / "statistics.json"
    found, examples = [], []
    try:
        require_matplotlib()
        for name in models:
            require_weights(name, model_dir)
        loaders = [partial(ImageTower.of_model, name, device, model_dir) for name in models]
        if dino is not None:
            loaders.insert(0, partial(ImageTower.of_dino, dino, device))
        for load in loaders:
            tower = load()
            bar = tqdm(source, desc=tower.name, unit="picture")
            sizes = Preprocessing.of_short_side(tower.mean, tower.std, short_side_px)
            found.append(map_statistics(tower.maps, tower.name, bar, sizes))
            facts = {"pictures": source.names, "short_side_px": short_side_px}
            facts |= {"torch": torch.__version__, "towers": [as_lists(each) for each in found]}
            write_whole(table, f"{json.dumps(facts)}\n".encode())  # a later tower may fail
            click.echo(f"\n{as_table(found[-1])}\n")
            if tower.model is not None and words:
                examples.append(MapExample.of(tower.model, next(iter(source)), words, sizes))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    written = [table, *save_figures(found, out)]
    written += [save_examples(examples, out)] if examples else []
    click.echo("\n".join(map(str, written)))
    if source.failed:
        raise SystemExit(1)


class Pictures:
    """Pictures from files, or drawn scenes, as often as they are asked for.

    A file that cannot be read is told of once and left out.

    Args:
        paths: the files.
        scenes: how many scenes are drawn after them.
    """

    def __init__(self, paths: Sequence[Path], scenes: int = 0) -> None:
        self._paths = tuple(paths)
        self._seeds = HELD_OUT_SEEDS[:scenes]
        self.failed: set[Path] = set()

    def __len__(self) -> int:
        return len(self._paths) + len(self._seeds)

    def __iter__(self) -> Iterator[RGBArray]:
        for path in self._paths:
            try:
                with Image.open(path) as picture:
                    rgb = to_rgb(picture)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                if path not in self.failed:
                    click.echo(f"{path}: {error}", err=True)
                self.failed.add(path)
                continue
            yield rgb
        for seed in self._seeds:
            yield render_scene(seed).image

    @property
    def names(self) -> list[str]:
        """Of those that could be read, in their order."""
        files = [str(path) for path in self._paths if path not in self.failed]
        return files + [f"drawn scene {seed}" for seed in self._seeds]


def parse_labels(text: str) -> tuple[Label, ...]:
    """Read labels as they are written on a command line.

    Raises:
        click.BadParameter: no label, one without a name, one that stands twice, or more than a
            label map can hold.

    >>> [label.prompts for label in parse_labels("sofa=sofa|couch, cat")]
    [('sofa', 'couch'), ('cat',)]
    """
    labels = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, prompts = (piece.strip() for piece in part.partition("="))
        words = tuple(filter(None, (prompt.strip() for prompt in prompts.split("|"))))
        try:
            labels.append(Label(name, words))
        except ValueError as error:
            raise click.BadParameter(f"{part!r} names no label.") from error
    names = [label.name for label in labels]
    if not names or len(set(names)) != len(names):
        raise click.BadParameter(f"expected one or more different labels, but got {text!r}.")
    if len(names) > NONE_VALUE:
        raise click.BadParameter(f"expected at most {NONE_VALUE} labels, but got {len(names)}.")
    return tuple(labels)


def parse_size(text: str) -> tuple[int, int]:
    """Read width and height as they are written on a command line.

    Raises:
        click.BadParameter: not two numbers, or a side below 16 px or above 20,000.

    >>> parse_size("2048x1367")
    (2048, 1367)
    """
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip())
    sides = [int(side) for side in match.groups()] if match else []
    if not match or min(sides) < 16 or max(sides) > 20_000:
        raise click.BadParameter(f"expected two sides of 16 to 20000 px as WxH, but got {text!r}.")
    return sides[0], sides[1]


if __name__ == "__main__":
    main()
