"""Results of runs as JSON files, and the exact merge of shards."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.confusion_matrix import Confusion
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS, Benchmark
from clearclip_core.evaluation.run_config import RunConfig
from clearclip_core.quantities import quantity

#: Packages whose versions may change a result.
_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "numpy",
    "pillow",
    "opencv-python-headless",
)

#: Errors of a file whose content is not what was expected.
NOT_A_RESULT = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)

#: Limit of the characters of an error that quotes a file's content.
_QUOTED = 100


@dataclass(frozen=True)
class Shard:
    """A share of a data set: every `of`-th image, starting at `index`.

    Raises:
        ValueError: an index that is not in 0 to `of` - 1.

    >>> list(range(10))[Shard(1, 4).slice]
    [1, 5, 9]
    """

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise ValueError(
                f"Expected a shard from 0/{self.of} to {self.of - 1}/{self.of}, but got {self}."
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def slice(self) -> slice:
        """Slice of the samples that belong to the shard."""
        return slice(self.index, None, self.of)


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of the images so far.

    Attributes:
        confusion: confusion matrix of the images.
        pictures: number of images.
        seconds: time from the images in memory to their label maps.
    """

    confusion: Confusion
    pictures: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run, or a finished shard of one.

    Attributes:
        config: configuration of the run.
        shard: the share of the images.
        tally: the counts.
        versions: versions of Python and of the packages that may change a result.
        hardware: name of the graphics card or CPU.
    """

    config: RunConfig
    shard: Shard
    tally: Tally
    versions: Mapping[str, str]
    hardware: str

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark of the run."""
        return BENCHMARKS[self.config.benchmark]

    @property
    def is_whole(self) -> bool:
        """Whether all images of the run are counted."""
        return self.shard.of == 1

    def as_json(self) -> dict[str, Any]:
        """Return measures, configuration and counts; the IoU of a class without one is None."""
        tally = self.tally
        iou = dict(zip(self.benchmark.classes, map(_number, tally.confusion.iou), strict=True))
        return {
            "miou": _number(tally.confusion.mean_iou),
            "pixel_accuracy": _number(tally.confusion.pixel_accuracy),
            "pictures": tally.pictures,
            "seconds_per_picture": tally.seconds / max(tally.pictures, 1),
            "seconds": tally.seconds,
            "shard": str(self.shard),
            "settings": self.config.to_json(),
            "versions": dict(self.versions),
            "hardware": self.hardware,
            "iou": iou,
            "confusion": tally.confusion.counts.tolist(),
        }

    def write(self, path: Path) -> None:
        """Write the JSON file atomically."""
        write_whole(path, dump(self.as_json()))

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a JSON file; the measures are computed from its confusion matrix.

        Raises:
            ValueError: the file is not a result of `clearclip eval`.
            OSError: the file cannot be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            confusion = Confusion(np.array(content["confusion"], np.int64))
            tally = Tally(confusion, int(content["pictures"]), float(content["seconds"]))
            index, of = map(int, content["shard"].split("/"))
            config = RunConfig.from_json(content["settings"])
            result = cls(config, Shard(index, of), tally, content["versions"], content["hardware"])
            fits = len(confusion.counts) == len(result.benchmark.classes)
        except NOT_A_RESULT as error:
            raise ValueError(
                f"Expected {path} to be a result of `clearclip eval`, but it is not: "
                f"{why_not(error)}."
            ) from error
        if not fits:
            raise ValueError(f"Expected {path} to hold all classes of {config.benchmark}.")
        return result


def merge(parts: Sequence[Result]) -> Result:
    """Merge all shards of one run, in any order, exactly as if one process had counted it.

    Raises:
        ValueError: no shards, shards of different runs or versions, a missing or a repeated shard.
    """
    if not parts:
        raise ValueError("Expected the shards of a run, but got none.")
    first = parts[0]
    for part in parts[1:]:
        differences = first.config.differences(part.config)
        if differences:
            raise ValueError(f"Expected shards of one run, but they differ in {differences}.")
        if part.versions != first.versions:
            raise ValueError(
                f"Expected shards of the same versions, but got {dict(first.versions)} and "
                f"{dict(part.versions)}."
            )
    shards = sorted((part.shard.of, part.shard.index) for part in parts)
    if shards != [(first.shard.of, index) for index in range(first.shard.of)]:
        names = ", ".join(str(part.shard) for part in parts)
        raise ValueError(f"Expected each of {first.shard.of} shards once, but got {names}.")
    tally = Tally(
        Confusion.sum([part.tally.confusion for part in parts]),
        sum(part.tally.pictures for part in parts),
        sum(part.tally.seconds for part in parts),
    )
    hardware = ", ".join(dict.fromkeys(part.hardware for part in parts))
    return Result(first.config, Shard(), tally, first.versions, hardware)


def as_text(result: Result) -> str:
    """Format a result for the terminal: classes in two columns, then the means."""
    classes, iou = result.benchmark.classes, result.tally.confusion.iou
    cells = [f"{name[:20]:20} {percent(value)}" for name, value in zip(classes, iou, strict=True)]
    half = -(-len(cells) // 2)
    left, right = cells[:half], [*cells[half:], *[""] * (len(cells) % 2)]
    rows = [f"{a}    {b}".rstrip() for a, b in zip(left, right, strict=True)]
    config, tally = result.config, result.tally
    part = "" if result.is_whole else f", shard {result.shard} only"
    return "\n".join(
        [
            f"{config.benchmark}, {config.model}, {config.method}, {config.precision}",
            "",
            *rows,
            "",
            f"mIoU {percent(tally.confusion.mean_iou).strip()}, "
            f"pixel accuracy {percent(tally.confusion.pixel_accuracy).strip()}, "
            f"{quantity(tally.pictures, 'picture')}{part}, "
            f"{tally.seconds / max(tally.pictures, 1):.3f} s a picture on {result.hardware}",
        ]
    )


def percent(share: float) -> str:
    """Format a share in percent, in five characters; a dash for nan.

    >>> percent(0.8091), percent(float("nan"))
    (' 80.9', '    -')
    """
    return "    -" if math.isnan(share) else f"{100 * share:5.1f}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that may change a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def other_versions(measured: Mapping[str, str]) -> str:
    """Describe the versions that differ from the installed ones; "" where none differs.

    Args:
        measured: versions of a measurement.
    """
    now = versions()
    return ", ".join(
        f"{name} {measured.get(name)}, now {now[name]}"
        for name in now
        if measured.get(name) != now[name]
    )


def why_not(error: Exception) -> str:
    """Describe one of `NOT_A_RESULT` in a line; an error may hold the whole file.

    >>> why_not(KeyError("x" * 10_000))[-8:]
    'xxxx ...'
    """
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON ({error})"
    described = f"{error!r}"
    return described if len(described) <= _QUOTED else f"{described[:_QUOTED]} ..."


def dump(content: Mapping[str, Any]) -> bytes:
    """Encode JSON with one line a value, and one line a row of a matrix."""
    lines = []
    for name, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], list):
            rows = ",\n    ".join(json.dumps(row) for row in value)
            lines.append(f"  {json.dumps(name)}: [\n    {rows}\n  ]")
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n  ")
            lines.append(f"  {json.dumps(name)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _number(value: float) -> float | None:
    """Return None for nan, which JSON lacks."""
    return None if math.isnan(value) else float(value)
