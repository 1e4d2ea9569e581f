"""Make label maps of the benchmarks from the published ones."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS
from clearclip_core.evaluation.datasets.layouts import Layout
from clearclip_core.images.label_maps import IGNORE, LayoutError, Truth, read_label_map

#: Values without a class among COCO's 80 things and 91 kinds of stuff. A value is COCO's category
#: id minus one.
_COCO_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_COCO_THINGS = 80
_COCO_VALUES = [value for value in range(182) if value not in _COCO_GAPS]

#: Cityscapes' label ids of the 19 evaluated classes, in the order of their train ids.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class Recoding:
    """The suffix of published label maps, and the classes of their values.

    Attributes:
        suffix: end of the file's name, in place of the benchmark's suffix.
        values: value in the file -> value in the benchmark's label map.
    """

    suffix: str
    values: Mapping[int, int]

    def apply(self, label_map: Truth) -> Truth:
        """Recode every pixel.

        Raises:
            ValueError: the map holds an unknown value.

        >>> Recoding(".png", {0: 1, 7: 255}).apply(np.array([[7, 0]], np.uint8)).tolist()
        [[255, 1]]
        """
        unknown = set(np.unique(label_map).tolist()) - set(self.values)
        if unknown:
            raise ValueError(f"Expected values of {self.suffix} maps, but got {min(unknown)}.")
        table = np.zeros(256, np.uint8)
        for value, becomes in self.values.items():
            table[value] = becomes
        return table[label_map]


def _things_only(train_ids: Mapping[int, int]) -> dict[int, int]:
    """Return COCO-Object's values: things from 1 on, and 0 for stuff and pixels without a label."""
    return {
        value: train_id + 1 if train_id < _COCO_THINGS else 0
        for value, train_id in train_ids.items()
    }


_STUFF = {value: index for index, value in enumerate(_COCO_VALUES)} | {IGNORE: IGNORE}
_STUFF_TRAIN_IDS = {index: index for index in range(len(_COCO_VALUES))} | {IGNORE: IGNORE}
_CITYSCAPES = dict.fromkeys([*range(34), IGNORE], IGNORE) | {
    value: index for index, value in enumerate(_CITYSCAPES_IDS)
}

#: Benchmark -> the published label maps that its own can be made from, best first.
RECODINGS: Mapping[str, tuple[Recoding, ...]] = MappingProxyType(
    {
        "coco_stuff": (Recoding(".png", _STUFF),),
        "coco_object": (
            Recoding(".png", _things_only(_STUFF)),
            Recoding("_labelTrainIds.png", _things_only(_STUFF_TRAIN_IDS)),
        ),
        "cityscapes": (Recoding("_gtFine_labelIds.png", _CITYSCAPES),),
    }
)


def prepare(name: str, root: Path) -> Iterator[Path]:
    """Make the missing label maps of a benchmark.

    All published label maps are found before the first is read.

    Args:
        name: one of `RECODINGS`.
        root: the data set's folder.

    Yields:
        The path of each label map after it is written.

    Raises:
        LayoutError: the folder does not fit, or a published label map is missing or unknown.
        OSError: a label map cannot be written.
    """
    layout = BENCHMARKS[name].layout
    assert layout is not None
    for source, recoding, target in _plan(layout, RECODINGS[name], root):
        try:
            made = recoding.apply(read_label_map(source))
        except ValueError as error:
            raise LayoutError(f"{source}: {error}") from error
        png = io.BytesIO()
        Image.fromarray(made).save(png, "PNG", optimize=True)
        write_whole(target, png.getvalue())
        yield target


def _plan(
    layout: Layout, recodings: tuple[Recoding, ...], root: Path
) -> list[tuple[Path, Recoding, Path]]:
    found = []
    for recoding in recodings:
        published = Layout(layout.pictures, layout.picture_suffix, layout.maps, recoding.suffix)
        try:
            samples = published.find(root)
        except LayoutError:
            if recoding is recodings[-1]:
                raise
            continue
        for sample in samples:
            target = root / layout.maps / f"{sample.name}{layout.map_suffix}"
            if not target.is_file():
                found.append((sample.label_map, recoding, target))
        break
    return found
