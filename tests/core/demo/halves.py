"""A folder of pictures whose upper half is one label and whose lower half is another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_folder(
    root: Path, part: str, size_hw: tuple[int, int] = (56, 84), pictures: int = 2
) -> tuple[Path, Path]:
    """Write pictures, label maps and the file of names; return the folder and that file.

    Value 1 is the sky, reddish and above; value 2 the pavement, bluish and below; the tenth of the
    columns on the right has value 0, which is no label.
    """
    height, width = size_hw
    rng = np.random.default_rng(0)
    for number in range(pictures):
        image = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        image[: height // 2, :, 0] += 150
        image[height // 2 :, :, 2] += 150
        values = np.ones((height, width), np.uint8)
        values[height // 2 :] = 2
        values[:, width - width // 10 :] = 0
        for kind, array in (("images", image), ("masks", values)):
            path = root / kind / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    names = root / "names.txt"
    names.write_text("-\nsky\npavement, sidewalk\n", encoding="utf-8")
    return root, names
