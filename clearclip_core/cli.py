"""``clearclip``: segment pictures, list and fetch models."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import click
from PIL import Image
from tqdm import tqdm

from clearclip_core.methods import METHODS
from clearclip_core.pictures import to_rgb
from clearclip_core.render import label_map_image, overlay
from clearclip_core.segmenter import Segmenter
from clearclip_core.text import Label
from clearclip_core.weights import WeightsNotFoundError, download_weights, known_models

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


@click.group()
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """Open-vocabulary segmentation with CLIP, training-free (ClearCLIP)."""


@main.command()
@click.argument("pictures", nargs=-1, required=True)
@click.option(
    "--labels",
    required=True,
    help='What to look for: "sky,tree,horse"; prompts of a label: "sofa=sofa|couch,cat".',
)
@click.option("--model", default="ViT-B-16/openai", show_default=True, help="See `models`.")
@click.option("--method", default="clearclip", show_default=True, type=click.Choice(list(METHODS)))
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, fp16, bf16.")
@click.option(
    "--short-side",
    "short_side_px",
    default=448,
    show_default=True,
    help="Resize the short side to this many px; more sees smaller things and takes longer.",
)
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
@click.option("--model-dir", type=click.Path(path_type=Path), help="Folder of fetched weights.")
@click.option("-o", "--out", default="out", show_default=True, type=click.Path(path_type=Path))
def segment(
    pictures: tuple[str, ...],
    labels: str,
    model: str,
    method: str,
    device: str,
    precision: str,
    short_side_px: int,
    contrast: bool,
    threshold: float,
    model_dir: Path | None,
    out: Path,
) -> None:
    """Write a label map and an overlay of each picture.

    PICTURES are files, folders or globs. Of photo.jpg come photo.labels.png, a palette image
    whose values are label indices and 255 for none, and photo.overlay.png.
    """
    vocabulary = parse_labels(labels)
    paths = find_pictures(pictures)
    segmenter = load_segmenter(model, method, device, precision, short_side_px, model_dir)
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in tqdm(paths, unit="picture", disable=len(paths) == 1):
        try:
            with Image.open(path) as picture:
                rgb = to_rgb(picture)
        except (OSError, ValueError, SyntaxError) as error:
            click.echo(f"{path}: {error}", err=True)
            failed += 1
            continue
        result = segmenter.segment(rgb, vocabulary, contrast, threshold)
        target = out / path.name
        label_map_image(result.label_map, len(vocabulary)).save(
            target.with_suffix(".labels.png"), optimize=True
        )
        overlay(rgb, result.label_map, result.labels).save(target.with_suffix(".overlay.png"))
    click.echo(f"{len(paths) - failed} pictures segmented into {out}, {failed} failed.")
    if failed:
        raise SystemExit(1)


@main.command()
@click.option("--download", metavar="NAME", help="Fetch these weights, such as ViT-B-16/openai.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder to fetch them to.")
@click.option("--model-dir", type=click.Path(path_type=Path), help="Folder of fetched weights.")
def models(download: str | None, folder: Path | None, model_dir: Path | None) -> None:
    """List models, their licences and what is on disk; or fetch one for another machine."""
    if download is not None:
        if folder is None:
            raise click.UsageError("--download needs --to FOLDER.")
        try:
            click.echo(download_weights(download, folder))
        except (ValueError, WeightsNotFoundError) as error:
            raise click.ClickException(str(error)) from error
        return
    for model in known_models(model_dir):
        where = str(model.path) if model.path else "-"
        needs = f"  needs [{model.needs}]" if model.needs else ""
        click.echo(f"{model.name:48} {model.licence:18} {where}{needs}")


def parse_labels(text: str) -> tuple[Label, ...]:
    """Read labels as they are written on a command line.

    Raises:
        click.BadParameter: no label, or one that stands twice.

    >>> [label.prompts for label in parse_labels("sofa=sofa|couch, cat")]
    [('sofa', 'couch'), ('cat',)]
    """
    labels = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, prompts = (piece.strip() for piece in part.partition("="))
        words = tuple(filter(None, (prompt.strip() for prompt in prompts.split("|"))))
        labels.append(Label(name, words))
    names = [label.name for label in labels]
    if not names or len(set(names)) != len(names):
        raise click.BadParameter(f"expected one or more different labels, but got {text!r}.")
    return tuple(labels)


def find_pictures(patterns: Iterable[str]) -> list[Path]:
    """Files, folders and globs -> picture files, sorted, each once.

    Raises:
        click.BadParameter: a pattern that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        else:
            paths = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207 -- Path.glob takes no absolute pattern
        if not paths:
            raise click.BadParameter(f"no pictures at {pattern!r}.")
        found.update(dict.fromkeys(paths))
    return list(found)


def load_segmenter(
    model: str,
    method: str,
    device: str,
    precision: str,
    short_side_px: int,
    model_dir: Path | None,
) -> Segmenter:
    """Load a segmenter for a command line, its errors as one sentence.

    Raises:
        click.ClickException: what `Segmenter.load` raises.
    """
    try:
        segmenter = Segmenter.load(model, method, device, precision, short_side_px, model_dir)
    except (ValueError, WeightsNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    if segmenter.model.notice:
        click.echo(segmenter.model.notice, err=True)
    return segmenter


if __name__ == "__main__":
    main()
