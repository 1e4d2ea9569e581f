"""Results of runs as JSON files, and the checkpoint from which an interrupted run goes on."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.benchmarks import BENCHMARKS, Benchmark, json_digest
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.quantities import quantity


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a result depends on, except the machine and the versions of packages.

    Attributes:
        limit: limit of the number of images; None without a limit.
        pictures_digest: digest of the images' names and files, wherever these lie.
        own_names: whether the class names come from a file of the user.
        weights: id of the model's weights, see `weights_id`.
        precision: fp32, fp16, bf16 or fp64.
        mean: mean of each RGB channel, in units of 0-255.
        std: standard deviation of each RGB channel, in units of 0-255.
        threshold: probability below which a pixel is background.
        temperature: factor on the cosines before the softmax.
        least_share: share of the labelled pixels up to which a label is background.
        text_side: presence, mixed share and distance of the method's text side; None without one.
    """

    benchmark: str
    pictures: int
    limit: int | None
    pictures_digest: str
    own_names: bool
    queries_digest: str
    model: str
    weights: str
    method: str
    precision: str
    device: str
    short_side_px: int
    long_side_px: int
    window_px: int
    stride_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    threshold: float
    temperature: float
    least_share: float
    text_side: tuple[float, float, float] | None

    @property
    def key(self) -> str:
        """Hex digest of the configuration."""
        return json_digest(msgspec.to_builtins(self))

    def differences(self, other: RunConfig) -> str:
        """Describe the values that differ; "" where none differs."""
        return ", ".join(
            f"{name} {getattr(self, name)!r} and {getattr(other, name)!r}"
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(other, name)
        )


#: Packages whose versions may change a result.
_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "numpy",
    "pillow",
    "opencv-python-headless",
)


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of the images so far.

    Attributes:
        seconds: time from the images in memory to their label maps.
    """

    confusion: ConfusionMatrix
    pictures: int = 0
    seconds: float = 0.0


class RunResult(msgspec.Struct, frozen=True, eq=False):
    """A finished run.

    Attributes:
        seconds: time from the images in memory to their label maps.
        versions: versions of Python and of the packages that may change a result.
        confusion: pixels by true class (rows) and predicted class.
    """

    settings: RunConfig
    pictures: int
    seconds: float
    versions: dict[str, str]
    hardware: str
    confusion: list[list[int]]

    @classmethod
    def of(cls, settings: RunConfig, tally: Tally, hardware: str) -> RunResult:
        """Make the result of a tally, with the versions that are installed."""
        counts = tally.confusion.counts.tolist()
        return cls(settings, tally.pictures, tally.seconds, versions(), hardware, counts)

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark of the run."""
        return BENCHMARKS[self.settings.benchmark]

    @property
    def matrix(self) -> ConfusionMatrix:
        """The confusion matrix, from which the measures follow."""
        return ConfusionMatrix(np.array(self.confusion, np.int64))

    def write(self, path: Path) -> None:
        """Write a JSON file: measures and the IoU of each class first, one line a value."""
        matrix = self.matrix
        measures = {
            "miou": matrix.mean_iou,
            "pixel_accuracy": matrix.pixel_accuracy,
            "seconds_per_picture": self.seconds / max(self.pictures, 1),
            "iou": dict(zip(self.benchmark.classes, matrix.iou.tolist(), strict=True)),
        }
        content = measures | msgspec.to_builtins(self)
        lines = (  # nan becomes null
            f"  {json.dumps(name)}: {msgspec.json.encode(value).decode()}"
            for name, value in content.items()
        )
        write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """Read a JSON file.

        Raises:
            ValueError: the file is not a result of `clearclip eval`.
            OSError: the file cannot be read.
        """
        try:
            result = msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(
                f"Expected {path} to be written by `clearclip eval`, but it is not: {error}."
            ) from error
        try:
            fits = len(result.matrix.counts) == len(result.benchmark.classes)
        except (KeyError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"Expected {path} to hold the classes of a benchmark.")
        return result


def result_table(result: RunResult) -> str:
    """Format a result for the terminal: classes in two columns, then the means."""
    classes, matrix = result.benchmark.classes, result.matrix
    cells = [
        f"{name[:20]:20} {format_percent(iou)}"
        for name, iou in zip(classes, matrix.iou, strict=True)
    ]
    half = -(-len(cells) // 2)
    left, right = cells[:half], [*cells[half:], *[""] * (len(cells) % 2)]
    rows = [f"{a}    {b}".rstrip() for a, b in zip(left, right, strict=True)]
    config = result.settings
    return "\n".join(
        [
            f"{config.benchmark}, {config.model}, {config.method}, {config.precision}",
            "",
            *rows,
            "",
            f"mIoU {format_percent(matrix.mean_iou).strip()}, "
            f"pixel accuracy {format_percent(matrix.pixel_accuracy).strip()}, "
            f"{quantity(result.pictures, 'picture')}, "
            f"{result.seconds / max(result.pictures, 1):.3f} s a picture on {result.hardware}",
        ]
    )


def format_percent(share: float) -> str:
    """Format a share in percent, in five characters; a dash for nan.

    >>> format_percent(0.8091), format_percent(float("nan"))
    (' 80.9', '    -')
    """
    return "    -" if math.isnan(share) else f"{100 * share:5.1f}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that may change a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def other_versions(measured: Mapping[str, str]) -> str:
    """Describe how the versions of a measurement differ from the installed ones; "" if not."""
    return ", ".join(
        f"{name} {measured.get(name)}, now {now}"
        for name, now in versions().items()
        if measured.get(name) != now
    )


class _Tallies(msgspec.Struct, frozen=True):
    """A checkpoint as it is stored: seconds and confusion matrix of each method."""

    key: str
    versions: dict[str, str]
    pictures: int
    seconds: list[float]
    confusions: list[list[list[int]]]


@dataclass(frozen=True)
class Checkpoint:
    """The file from which an interrupted pass is resumed.

    One file holds all tallies and the number of images that they count, and is written atomically:
    if the process dies, no image is counted twice.

    Attributes:
        key: digest of the run's configuration; a checkpoint with another key is ignored.
    """

    path: Path
    key: str

    @classmethod
    def beside(cls, result: Path, key: str) -> Checkpoint:
        """Return the checkpoint of a result file; each key has a file of its own."""
        return cls(result.with_name(f"{result.name}.{key[:12]}.partial"), key)

    def save(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies."""
        stored = _Tallies(
            self.key,
            versions(),
            tallies[0].pictures,
            [tally.seconds for tally in tallies],
            [tally.confusion.counts.tolist() for tally in tallies],
        )
        write_whole(self.path, msgspec.json.encode(stored))

    def load(self, methods: int) -> tuple[Tally, ...] | None:
        """Read the tallies of so many methods; None where there is no checkpoint of this key.

        Raises:
            ValueError: the checkpoint was written under other versions.
        """
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Tallies)
            pairs = list(zip(stored.confusions, stored.seconds, strict=True))
            tallies = tuple(
                Tally(ConfusionMatrix(np.array(counts, np.int64)), stored.pictures, seconds)
                for counts, seconds in pairs
            )
        except (OSError, ValueError, RecursionError):
            return None  # no file, or not a checkpoint
        if stored.key != self.key or len(tallies) != methods:
            return None
        if others := other_versions(stored.versions):
            raise ValueError(
                f"{self.path} was counted under other versions ({others}). Go on with those, or "
                "remove it to begin again."
            )
        return tallies

    def remove(self) -> None:
        """Remove the file, as the pass is complete."""
        self.path.unlink(missing_ok=True)
