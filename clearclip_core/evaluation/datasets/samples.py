"""Samples of a benchmark: images with their ground truth, read on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import HELD_OUT_SEEDS
from clearclip_core.evaluation.datasets.benchmarks import Benchmark
from clearclip_core.evaluation.run_config import digest_of
from clearclip_core.images.label_maps import LayoutError, PictureFiles, Truth
from clearclip_core.images.preprocessing import RGBArray

#: Number of drawn scenes of the benchmark `demo`.
SCENES = 500


class Sample(Protocol):
    """One image of a benchmark with its ground truth."""

    @property
    def name(self) -> str:
        """Name of the sample, unique in the benchmark and equal in every process."""

    @property
    def digest(self) -> str:
        """Hex digest of the name and the files.

        Raises:
            LayoutError: the files cannot be read.
        """

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 class indices; 255 is not counted.

        Raises:
            LayoutError: the files cannot be read, differ in size, or do not fit the benchmark.
        """


@dataclass(frozen=True)
class FileSample:
    """A sample of a data set."""

    files: PictureFiles
    benchmark: Benchmark

    @property
    def name(self) -> str:
        """See `Sample`."""
        return self.files.name

    @property
    def digest(self) -> str:
        """Hex digest of the name, the size of the image file and the content of the label map."""
        try:
            size = self.files.picture.stat().st_size
            label_map = hashlib.sha256(self.files.label_map.read_bytes()).hexdigest()
        except OSError as error:
            raise LayoutError(f"{self.name} cannot be read: {error}") from error
        return digest_of([self.name, size, label_map])

    def read(self) -> tuple[RGBArray, Truth]:
        """See `Sample`."""
        rgb, label_map = self.files.read()
        try:
            return rgb, self.benchmark.truth(label_map)
        except ValueError as error:
            raise LayoutError(f"{self.files.label_map}: {error}") from error


@dataclass(frozen=True)
class SceneSample:
    """A drawn scene that is not used for training."""

    seed: int

    @property
    def name(self) -> str:
        """See `Sample`."""
        return f"scene {self.seed}"

    @property
    def digest(self) -> str:
        """See `Sample`."""
        return digest_of([self.name])

    def read(self) -> tuple[RGBArray, Truth]:
        """See `Sample`."""
        scene = render_scene(self.seed)
        return scene.image, scene.label_map.astype(np.uint8)


def find_samples(benchmark: Benchmark, root: Path | None) -> Sequence[Sample]:
    """Find all samples of a benchmark.

    All files are checked to exist, and the first sample is read.

    Args:
        benchmark: the benchmark.
        root: folder of the data set; None for the drawn scenes.

    Raises:
        LayoutError: the folder does not fit the benchmark, or is not given.
    """
    if benchmark.layout is None:
        return [SceneSample(seed) for seed in HELD_OUT_SEEDS[:SCENES]]
    if root is None:
        raise LayoutError(f"Benchmark {benchmark.name} needs the folder of its data (--data).")
    samples = [FileSample(files, benchmark) for files in benchmark.layout.find(root)]
    samples[0].read()
    return samples
