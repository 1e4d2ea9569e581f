"""Data sets of two or three small pictures, each in the layout that its benchmark is known by.

Paths are written down here as the data sets' own documents have them, not taken from the table
under test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Miniature:
    """Files of a benchmark; ``{}`` stands for a picture's name."""

    values: range  # what a label map may hold, beside 255
    zero_is_left_out: bool  # whether value 0 is no class
    picture: str
    label_map: str
    names: tuple[str, ...]
    listing: str | None = None
    other: str | None = None  # a picture of another part of the data set
    #: the label map from which the benchmark's own is made, and its values.
    published: tuple[str, tuple[int, ...]] | None = None

    @property
    def classes(self) -> int:
        return len(self.values) - self.zero_is_left_out


_VOC20 = Miniature(
    *(range(21), True, "JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    ("2007_000033", "2011_003256", "2008_000009"),
    listing="ImageSets/Segmentation/val.txt",
    other="JPEGImages/2007_000032.jpg",
)
_CONTEXT59 = Miniature(
    *(range(60), True, "JPEGImages/{}.jpg", "SegmentationClassContext/{}.png"),
    ("2008_000008", "2010_006086"),
    listing="ImageSets/SegmentationContext/val.txt",
    other="JPEGImages/2008_000002.jpg",
)
_STUFF = Miniature(
    *(range(171), False, "images/val2017/{}.jpg", "annotations/val2017/{}_labelTrainIds.png"),
    ("000000000139", "000000581781"),
    published=("annotations/val2017/{}.png", (0, 89, 181)),
)
MINIATURES = {
    "voc20": _VOC20,
    "voc21": replace(_VOC20, zero_is_left_out=False),
    "context59": _CONTEXT59,
    "context60": replace(_CONTEXT59, zero_is_left_out=False),
    "coco_stuff": _STUFF,
    "coco_object": replace(
        _STUFF, values=range(81), label_map="annotations/val2017/{}_instanceTrainIds.png"
    ),
    "cityscapes": Miniature(
        *(range(19), False, "leftImg8bit/val/{}_leftImg8bit.png"),
        "gtFine/val/{}_gtFine_labelTrainIds.png",
        ("frankfurt/frankfurt_000000_000294", "munster/munster_000173_000019"),
        published=("gtFine/val/{}_gtFine_labelIds.png", (7, 33)),
    ),
    "ade20k": Miniature(
        *(range(151), True, "images/validation/{}.jpg", "annotations/validation/{}.png"),
        ("ADE_val_00000001", "ADE_val_00000002"),
        other="images/training/ADE_train_00000001.jpg",
    ),
}


def make(benchmark: str, root: Path) -> list[tuple[Path, Path]]:
    """Write a benchmark's miniature; return its pictures and label maps in the order of reading."""
    each, made = MINIATURES[benchmark], []
    if each.listing:
        (root / each.listing).parent.mkdir(parents=True, exist_ok=True)
        (root / each.listing).write_text("\n".join(each.names) + "\n")
    if each.other:
        draw(root / each.other, 99)
    for seed, name in enumerate(each.names):
        size_wh = (60, 44 + 8 * seed)
        if each.published:
            pattern, values = each.published
            draw_map(root / pattern.format(name), seed, values, size_wh)
        picture = draw(root / each.picture.format(name), seed, size_wh)
        label_map = draw_map(root / each.label_map.format(name), seed, each.values, size_wh)
        made.append((picture, label_map))
    return made


def draw(path: Path, seed: int, size_wh: tuple[int, int] = (60, 44)) -> Path:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks).resize(size_wh, Image.Resampling.NEAREST).save(path)
    return path


def draw_map(path: Path, seed: int, values: Sequence[int], size_wh: tuple[int, int]) -> Path:
    """A label map of blocks, with 255 at some edges; every second one has a palette."""
    rng = np.random.default_rng(1000 + seed)
    blocks = rng.choice(np.array(values), (9, 12)).astype(np.uint8)
    blocks[0, ::3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(blocks).resize(size_wh, Image.Resampling.NEAREST)
    if seed % 2:
        picture = picture.convert("P")
        picture.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    picture.save(path)
    return path
