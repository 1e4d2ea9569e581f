"""`clearclip sinks`: find the sink channels of weights from pictures."""

from __future__ import annotations

from collections.abc import Iterator

import click
import torch
from tqdm import tqdm

from clearclip_core.cli.errors import click_errors
from clearclip_core.cli.image_source import ImageSource
from clearclip_core.cli.options import ModelOptions, many_method_options
from clearclip_core.clip.batching import batches
from clearclip_core.clip.methods import METHODS
from clearclip_core.clip.sink_channels import find_sink_channels, save_sink_channels
from clearclip_core.images.files import find_images
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmenter import Segmenter


@click.command("sinks", short_help="Find the channels that the method rfclip needs.")
@click.argument("pictures", nargs=-1, required=True)
@many_method_options
def sinks(options: ModelOptions, pictures: tuple[str, ...]) -> None:
    """Find the sink channels of a model's weights, which --method rfclip needs.

    PICTURES are files, folders or globs: a hundred photographs of any kind, without labels. The
    channels are kept in sink-channels/ of the folder of weights. Those of OpenAI's ViT-B/16 and
    ViT-L/14 are known.
    """
    source = ImageSource(find_images(pictures))
    model = options.load_model()
    sizes = Preprocessing.of_short_side(model.mean, model.std, options.short_side_px)
    segmenter = Segmenter(model, METHODS["clearclip"], sizes)
    windows = _windows(segmenter, source)
    with click_errors():
        channels = find_sink_channels(segmenter.encoder, windows)
        path = save_sink_channels(options.model, channels, options.model_dir)
    named = " ".join(map(str, channels)) or "none: rfclip repairs no token of these weights"
    click.echo(f"sink channels: {named}\n{path}")
    if source.failed:
        raise SystemExit(1)


def _windows(segmenter: Segmenter, source: ImageSource) -> Iterator[torch.Tensor]:
    """Yield the windows of each picture in batches (B, 3, h, w)."""
    for rgb in tqdm(source, unit="picture"):
        yield from batches(segmenter.windows([segmenter.prepare(rgb)]), segmenter.windows_at_once)
