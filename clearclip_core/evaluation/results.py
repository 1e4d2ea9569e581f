"""Results of runs as JSON files, and the checkpoint from which an interrupted run goes on."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from clearclip_core.evaluation.benchmarks import BENCHMARKS, SHORT_SIDE_PX, Benchmark, json_digest
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.images.files import write_whole
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.quantities import quantity


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a result depends on, except the machine and the versions of packages."""

    benchmark: str
    pictures: int
    limit: int | None  #: limit of the number of images; None without a limit
    pictures_digest: str  #: digest of the images' names and files, wherever these lie
    own_names: bool  #: whether the class names come from a file of the user
    queries_digest: str
    model: str
    weights: str  #: id of the model's weights, see `weights_id`
    method: str
    precision: str
    device: str
    sizes: Preprocessing
    threshold: float  #: this and the next two: see `Benchmark`
    temperature: float
    least_share: float

    @property
    def key(self) -> str:
        """Hex digest of the configuration and of the versions that are installed."""
        return json_digest([msgspec.to_builtins(self), versions()])

    def differences(self, other: RunConfig) -> str:
        """Describe the values that differ; "" where all are equal."""
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
    """Counts of the images so far."""

    confusion: ConfusionMatrix
    pictures: int = 0
    seconds: float = 0.0  # time from the images in memory to their label maps


class RunResult(msgspec.Struct, frozen=True, eq=False):
    """A finished run."""

    settings: RunConfig
    pictures: int
    seconds: float  # time from the images in memory to their label maps
    versions: dict[str, str]  # versions of Python and of the packages that may change a result
    hardware: str
    confusion: list[list[int]]  # pixels by true class (rows) and predicted class

    @classmethod
    def of(cls, settings: RunConfig, tally: Tally, hardware: str) -> RunResult:
        """Make the result of a tally, with the versions that are installed."""
        counts = tally.confusion.counts.tolist()
        return cls(settings, tally.pictures, tally.seconds, versions(), hardware, counts)

    @property
    def benchmark(self) -> Benchmark:
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
        lines = (b'"%s": %s' % (n.encode(), msgspec.json.encode(v)) for n, v in content.items())
        write_whole(path, b"{" + b",\n".join(lines) + b"}\n")  # nan becomes null

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """Read a JSON file.

        Raises:
            ValueError: the file is not a result of `clearclip eval`.
            OSError: the file cannot be read.
        """
        try:
            result = msgspec.json.decode(path.read_bytes(), type=cls)
            classes = len(result.benchmark.classes)
            fits = result.matrix.counts.shape == (classes, classes)
        except (KeyError, ValueError, RecursionError) as error:
            raise ValueError(
                f"Expected {path} to be written by `clearclip eval`, but it is not: {error}."
            ) from error
        if not fits:
            raise ValueError(f"Expected {path} to hold the classes of its benchmark.")
        return result


def result_table(result: RunResult) -> str:
    """Format a result for the terminal: the classes, then the means."""
    matrix, config = result.matrix, result.settings
    lines = [f"{config.benchmark}, {config.model}, {config.method}, {config.precision}", ""]
    for name, iou in zip(result.benchmark.classes, matrix.iou, strict=True):
        lines.append(f"{name[:20]:20} {format_percent(iou):>5}")

    seconds = result.seconds / max(result.pictures, 1)
    means = [
        f"mIoU {format_percent(matrix.mean_iou)}",
        f"pixel accuracy {format_percent(matrix.pixel_accuracy)}",
        quantity(result.pictures, "picture"),
        f"{seconds:.3f} s a picture on {result.hardware}",
    ]
    return "\n".join([*lines, "", ", ".join(means)])


def format_percent(share: float | None) -> str:
    """Format a share in percent; a dash for nan and None.

    >>> format_percent(0.8091), format_percent(float("nan")), format_percent(None)
    ('80.9', '-', '-')
    """
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that may change a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def checkpoint_path(result: Path, key: str) -> Path:
    """Return the file from which an interrupted pass is resumed: one for each configuration.

    It holds the tallies of all methods and is written as a whole, so no image is counted twice.
    """
    return result.with_name(f"{result.name}.{key[:12]}.partial")


def save_tallies(path: Path, tallies: Sequence[Tally]) -> None:
    stored = [(each.pictures, each.seconds, each.confusion.counts.tolist()) for each in tallies]
    write_whole(path, msgspec.json.encode(stored))


def load_tallies(path: Path) -> tuple[Tally, ...]:
    """Read a checkpoint; empty where there is none."""
    if not path.exists():
        return ()
    stored = msgspec.json.decode(path.read_bytes(), type=list[tuple[int, float, list[list[int]]]])
    return tuple(
        Tally(ConfusionMatrix(np.array(counts, np.int64)), pictures, seconds)
        for pictures, seconds, counts in stored
    )


def markdown(head: Sequence[str], *rows: Sequence[str]) -> str:
    """Format a Markdown table with aligned columns.

    >>> print(markdown(["a", "bc"], ["123", "4"]))
    | a   | bc |
    | --- | -- |
    | 123 | 4  |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def result_path(config: RunConfig, folder: Path = Path("results")) -> Path:
    """Return the default path of a run's result file in a folder."""
    model, short_side_px = re.sub(r"[^\w.-]+", "-", config.model), config.sizes.short_side_px
    parts = [config.benchmark, model.strip("-"), config.method]
    if short_side_px != SHORT_SIDE_PX:
        parts.append(f"{short_side_px}px")
    return folder / f"{'.'.join(parts)}.json"
