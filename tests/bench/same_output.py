"""Print a hash of each output on 40 pictures, to compare two heads of the code byte for byte.

    python -m tests.bench.same_output [--pictures FOLDER] [--labels FILE.npz] > after.txt
    diff before.txt after.txt

Half of the pictures are photographs of the folder; without one all are drawn. Label maps are kept
in ``--labels``; where that file exists, the number of pixels that differ from it is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import clearclip_core as core
from backend.dataset.tasks import TaskRecord
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from tests.bench.test_dataset import Drawn, brush_regions, export

COUNT = 40
SIZES_HW = ((96, 128), (333, 500), (700, 512), (1200, 1600), (64, 700))
CLICKS = ((0.3, 0.6, True), (0.8, 0.2, False))
Arrays = Mapping[str, npt.NDArray[Any]]


def pictures(folder: Path | None) -> Iterator[tuple[str, core.RGBArray]]:
    """Yield names and pictures: drawn scenes, and photographs at equal distances in a folder."""
    files = sorted(folder.rglob("*.jpg")) if folder else []
    photographs = files[:: max(1, len(files) // (COUNT // 2))][: COUNT // 2]
    for number in range(COUNT - len(photographs)):
        size_hw = SIZES_HW[number % len(SIZES_HW)]
        yield f"scene-{number:02}", core.render_scene(10_000_000 + number, size_hw=size_hw).image
    for path in photographs:
        yield path.stem, core.to_rgb(Image.open(path))


def outputs(segmenter: core.Segmenter, image: core.RGBArray) -> Arrays:
    """Compute label maps and probabilities, plain and refined, and masks of clicks and a box."""
    features = segmenter.encode(image, with_cls=True)
    few = segmenter.score(features, core.SCENE_LABELS)
    scores = segmenter.score(features, core.SCENE_LABELS, contrast=True)
    many = segmenter.score(features, [*core.SCENE_LABELS, *(f"thing {n}" for n in range(60))])
    made = {
        "few": segmenter.decide(few),
        "plain": segmenter.decide(scores, 0.3),
        "refined": segmenter.decide(scores, 0.3, image, refine=True),
        "refined-few": segmenter.decide(few, 0.0, image, refine=True),
        "many": segmenter.decide(many),
        "refined-many": segmenter.decide(many, 0.1, image, refine=True),
        "propagated": segmenter.decide(few, 0.0, image, refine=True, propagate=True),
    }
    found = {f"{name} labels": each.label_map for name, each in made.items()}
    found |= {f"{name} scores": each.confidence for name, each in made.items()}
    figures = core.Uncertainty.of(scores, 0.3)
    found["uncertainty"] = np.array([figures.uncertainty, figures.effort])
    masks = made["refined"].masks(min_island_px=40, min_hole_px=40)
    found |= {f"mask {name}": mask for name, mask in masks.items()}
    height, width = image.shape[:2]
    points = [core.Point(x * width, y * height, positive) for x, y, positive in CLICKS]
    clicked = core.segment_points(features, scores, 1, points, image)
    box = (0.2 * width, 0.3 * height, 0.7 * width, 0.9 * height)
    boxed = core.segment_box(features, scores, 2, box, image)
    for name, prompted in (("clicks", clicked), ("box", boxed)):
        found |= {name: prompted.mask, f"{name} scores": prompted.confidence}
    return found


class Pictures(Drawn):
    """Tasks of different pictures, with a brush region for each mask."""

    def __init__(self, found: list[tuple[core.RGBArray, Arrays]]) -> None:
        self.total, self.found = len(found), found

    def read_file(self, source: str, task: Task) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.found[task.id - 1][0]).save(file, "PNG")
        return file.getvalue()

    def _read(self, number: int) -> TaskRecord:
        masks = self.found[number - 1][1]
        task = Task(number, 7, {"image": f"/data/upload/7/{number}.png"})
        return TaskRecord(task, (Annotation(number, number, 7, brush_regions(masks)),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--pictures", "--labels"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    segmenter = core.Segmenter.load("demo", device="cpu", precision="fp32")
    kept: dict[str, npt.NDArray[Any]] = {}
    found = []
    for name, image in pictures(options.pictures):
        arrays = outputs(segmenter, image)
        for key, array in arrays.items():
            print(hashlib.sha256(array.tobytes()).hexdigest()[:16], name, key, flush=True)
        kept |= {f"{name} {key}": each for key, each in arrays.items() if key.endswith("labels")}
        masks = {key[5:]: mask for key, mask in arrays.items() if key.startswith("mask ")}
        found.append((image, masks))
    with tempfile.TemporaryDirectory() as folder:
        export(Pictures(found), Path(folder) / "out")
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            print(digest, "export", path.relative_to(folder))
    if options.labels and options.labels.exists():
        before = np.load(options.labels)
        different = sum(int(np.sum(before[key] != each)) for key, each in kept.items())
        print(f"# {different} of {sum(each.size for each in kept.values())} pixels differ")
    elif options.labels:
        np.savez_compressed(options.labels, **kept)


if __name__ == "__main__":
    main()
