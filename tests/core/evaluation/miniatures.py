"""Data sets of two or three small pictures, each in the layout that its benchmark is known by.

Paths are written down here as the data sets' own documents have them, not taken from the table
under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

#: Benchmark -> (lowest and highest class in a file, number of classes, whether 0 is left out).
FILE_VALUES = {
    "voc20": (0, 20, 20, True),
    "voc21": (0, 20, 21, False),
    "context59": (0, 59, 59, True),
    "context60": (0, 59, 60, False),
    "coco_stuff": (0, 170, 171, False),
    "coco_object": (0, 80, 81, False),
    "cityscapes": (0, 18, 19, False),
    "ade20k": (0, 150, 150, True),
}


def make(benchmark: str, root: Path) -> list[tuple[Path, Path]]:
    """Write the miniature of a benchmark.

    Returns:
        Path of the picture and of its label map, in the order in which they are to be read.
    """
    return _MAKERS[benchmark](root, benchmark)


def draw(path: Path, seed: int, size_wh: tuple[int, int] = (60, 44)) -> Path:
    """A picture of coloured blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks).resize(size_wh, Image.Resampling.NEAREST).save(path)
    return path


def draw_map(
    path: Path, seed: int, values: Sequence[int], size_wh: tuple[int, int] = (60, 44)
) -> Path:
    """A label map of blocks; a palette picture, with 255 at some edges."""
    rng = np.random.default_rng(1000 + seed)
    blocks = rng.choice(np.array(values), (9, 12)).astype(np.uint8)
    blocks[0, ::3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(blocks).resize(size_wh, Image.Resampling.NEAREST)
    if seed % 2:
        picture = picture.convert("P")
        picture.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    else:
        assert picture.mode == "L"
    picture.save(path)
    return path


def values_of(benchmark: str) -> range:
    """What a file of the benchmark may hold, beside 255."""
    low, high, *_ = FILE_VALUES[benchmark]
    return range(low, high + 1)


def _voc(root: Path, benchmark: str) -> list[tuple[Path, Path]]:
    names = ["2007_000033", "2011_003256", "2008_000009"]
    _list(root / "ImageSets" / "Segmentation" / "val.txt", names)
    draw(root / "JPEGImages" / "2007_000032.jpg", 99)  # of the training set: not listed
    return [
        (
            draw(root / "JPEGImages" / f"{name}.jpg", seed, (60, 44 + 8 * seed)),
            draw_map(
                root / "SegmentationClass" / f"{name}.png",
                seed,
                values_of(benchmark),
                (60, 44 + 8 * seed),
            ),
        )
        for seed, name in enumerate(names)
    ]


def _context(root: Path, benchmark: str) -> list[tuple[Path, Path]]:
    names = ["2008_000008", "2010_006086"]
    _list(root / "ImageSets" / "SegmentationContext" / "val.txt", names)
    draw(root / "JPEGImages" / "2008_000002.jpg", 99)
    return [
        (
            draw(root / "JPEGImages" / f"{name}.jpg", seed),
            draw_map(root / "SegmentationClassContext" / f"{name}.png", seed, values_of(benchmark)),
        )
        for seed, name in enumerate(names)
    ]


def _coco(root: Path, benchmark: str) -> list[tuple[Path, Path]]:
    kind = "label" if benchmark == "coco_stuff" else "instance"
    names = ["000000000139", "000000581781"]
    maps = root / "annotations" / "val2017"
    for name in names:  # the published map lies beside
        draw_map(maps / f"{name}.png", 7, [0, 89, 181])
    return [
        (
            draw(root / "images" / "val2017" / f"{name}.jpg", seed),
            draw_map(maps / f"{name}_{kind}TrainIds.png", seed, values_of(benchmark)),
        )
        for seed, name in enumerate(names)
    ]


def _cityscapes(root: Path, benchmark: str) -> list[tuple[Path, Path]]:
    names = ["frankfurt/frankfurt_000000_000294", "munster/munster_000173_000019"]
    pictures, maps = root / "leftImg8bit" / "val", root / "gtFine" / "val"
    found = []
    for seed, name in enumerate(names):
        draw_map(maps / f"{name}_gtFine_labelIds.png", seed, [7, 33], (96, 48))
        found.append(
            (
                draw(pictures / f"{name}_leftImg8bit.png", seed, (96, 48)),
                draw_map(
                    maps / f"{name}_gtFine_labelTrainIds.png",
                    seed,
                    values_of(benchmark),
                    (96, 48),
                ),
            )
        )
    return found


def _ade20k(root: Path, benchmark: str) -> list[tuple[Path, Path]]:
    draw(root / "images" / "training" / "ADE_train_00000001.jpg", 99)
    return [
        (
            draw(root / "images" / "validation" / f"ADE_val_0000000{seed}.jpg", seed),
            draw_map(
                root / "annotations" / "validation" / f"ADE_val_0000000{seed}.png",
                seed,
                values_of(benchmark),
            ),
        )
        for seed in (1, 2)
    ]


def _list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")


_MAKERS: dict[str, Callable[[Path, str], list[tuple[Path, Path]]]] = {
    "voc20": _voc,
    "voc21": _voc,
    "context59": _context,
    "context60": _context,
    "coco_stuff": _coco,
    "coco_object": _coco,
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
}
