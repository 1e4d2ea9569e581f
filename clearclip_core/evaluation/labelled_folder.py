"""Anybody's labelled pictures: a folder of images, one of label maps, and a file of names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from clearclip_core.evaluation.runner import Readable
from clearclip_core.images.label_maps import (
    LayoutError,
    PictureFiles,
    Truth,
    class_indices,
    pair_files,
)
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.vocabulary import Label, MapNames


@dataclass(frozen=True)
class LabelledPicture:
    """An image with its ground truth, read on demand.

    Attributes:
        files: paths of the image and of its label map.
        names: what the values of the label map stand for.
    """

    files: PictureFiles
    names: MapNames

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.files.name

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 label indices.

        254 stands for pixels without a label, 255 for pixels that are not counted.

        Raises:
            LayoutError: a file cannot be read, they differ in size, or a value has no name.
        """
        rgb, values = self.files.read()
        try:
            return rgb, class_indices(values, self.names.indices)
        except ValueError as error:
            raise LayoutError(f"{self.files.label_map}: {error}") from error


@dataclass(frozen=True)
class LabelledFolder:
    """Labelled pictures with their labels.

    Attributes:
        pictures: the pictures, by name.
        labels: the labels.
    """

    pictures: tuple[Readable, ...]
    labels: tuple[Label, ...]

    @classmethod
    def find(
        cls, images: Path, masks: Path, names: Path, limit: int | None = None
    ) -> LabelledFolder:
        """Find the pictures and read the names; the first picture is read.

        Args:
            images: folder of images, see `pair_files`.
            masks: folder of label maps.
            names: file of names, see `MapNames.read`.
            limit: limit of the number of pictures, which are taken evenly from all.

        Raises:
            ValueError: the folders or the file do not fit.
            OSError: the file of names cannot be read.
        """
        values = MapNames.read(names)
        files = pair_files(images, masks)
        if limit is not None and limit < len(files):
            files = [files[index * len(files) // limit] for index in range(limit)]
        pictures = tuple(LabelledPicture(each, values) for each in files)
        pictures[0].read()
        return cls(pictures, values.labels)

    def with_prompts(self, path: Path) -> tuple[Label, ...]:
        """Return the labels with the words of another file of names as their prompts.

        Raises:
            ValueError: the file cannot be read, or has not as many labels.
            OSError: the file cannot be read.
        """
        words = MapNames.read(path).labels
        if len(words) != len(self.labels):
            raise ValueError(
                f"Expected {path} to have words for {len(self.labels)} labels, one a line, but got "
                f"{len(words)}."
            )
        pairs = zip(self.labels, words, strict=True)
        return tuple(replace(label, prompts=other.prompts) for label, other in pairs)
