"""Images that commands read: from files, or drawn scenes in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from PIL import Image

from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import HELD_OUT_SEEDS
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import RGBArray, to_rgb


class ImageFileError(ValueError):
    """A file that cannot be read as an image; the message names the file and the reason."""


def read_image(path: Path) -> RGBArray:
    """Read an image file into (H, W, 3) uint8 RGB.

    Raises:
        ImageFileError: the file cannot be read, or is larger than Pillow's limit.
    """
    try:
        with open_image(path) as image:
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path}: {error}") from error


class ImageSource:
    """Images of files, then drawn scenes; can be iterated several times.

    A file that cannot be read is left out; its error is printed once.

    Args:
        paths: the files.
        scenes: number of scenes that are drawn after them.

    Attributes:
        failed: files that could not be read so far.
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
                image = read_image(path)
            except ImageFileError as error:
                self._note_failure(path, error)
                continue
            yield image
        for seed in self._seeds:
            yield render_scene(seed).image

    @property
    def names(self) -> list[str]:
        """Names of the images that could be read, in order."""
        files = [str(path) for path in self._paths if path not in self.failed]
        return files + [f"drawn scene {seed}" for seed in self._seeds]

    def _note_failure(self, path: Path, error: ImageFileError) -> None:
        if path not in self.failed:
            click.echo(str(error), err=True)
        self.failed.add(path)
