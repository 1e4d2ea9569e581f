"""What a run measured, under which settings: JSON files that can be merged exactly."""

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

#: Packages whose versions may change what comes out.
_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "numpy",
    "pillow",
    "opencv-python-headless",
)


@dataclass(frozen=True)
class Shard:
    """A share of a data set: every `of`-th picture from `index` on.

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
        """Which pictures are its own."""
        return slice(self.index, None, self.of)


@dataclass(frozen=True, eq=False)
class Tally:
    """What has been counted so far.

    Attributes:
        confusion: of the pictures that are through.
        pictures: how many those are.
        seconds: the time that they took, from a picture in memory to its label map.
    """

    confusion: Confusion
    pictures: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run, or a finished shard of one.

    Attributes:
        settings: under which it ran.
        shard: which share of the pictures it took.
        tally: what it counted.
        versions: of Python and of the packages that matter.
        hardware: name of the graphics card or CPU.
    """

    config: RunConfig
    shard: Shard
    tally: Tally
    versions: Mapping[str, str]
    hardware: str

    @property
    def benchmark(self) -> Benchmark:
        """The row of the table of benchmarks."""
        return BENCHMARKS[self.config.benchmark]

    @property
    def is_whole(self) -> bool:
        """Whether every picture of the run is counted."""
        return self.shard.of == 1

    def as_json(self) -> dict[str, Any]:
        """Measures first, then all that they came from; None for a class without one."""
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
        """Write the JSON file, whole or not at all."""
        write_whole(path, dump(self.as_json()))

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a JSON file; its measures follow from its confusion matrix.

        Raises:
            ValueError: no such result.
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Expected {path} to be a result of `clearclip eval`, but it is not: {error!r}."
            ) from error
        if not fits:
            raise ValueError(f"Expected {path} to hold all classes of {config.benchmark}.")
        return result


def merge(parts: Sequence[Result]) -> Result:
    """All shards of one run, in any order -> the run, exactly as one process counts it.

    Raises:
        ValueError: none; shards of different runs or versions; one that is missing or there twice.
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
    """The result as a person likes to read it: classes in two columns, then the means."""
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
            f"{tally.pictures} pictures{part}, "
            f"{tally.seconds / max(tally.pictures, 1):.3f} s a picture on {result.hardware}",
        ]
    )


def percent(share: float) -> str:
    """A share in percent, in five characters; a dash where there is none.

    >>> percent(0.8091), percent(float("nan"))
    (' 80.9', '    -')
    """
    return "    -" if math.isnan(share) else f"{100 * share:5.1f}"


def versions() -> dict[str, str]:
    """Of Python and of the packages that may change what comes out."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def other_versions(measured: Mapping[str, str]) -> str:
    """What is not of the version of now, as a person reads it; empty where nothing is.

    Args:
        measured: the versions of a measurement.
    """
    now = versions()
    return ", ".join(
        f"{name} {measured.get(name)}, now {now[name]}"
        for name in now
        if measured.get(name) != now[name]
    )


def dump(content: Mapping[str, Any]) -> bytes:
    """JSON that a person can read: one line a fact, and a matrix one line a row."""
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
    """JSON has no nan."""
    return None if math.isnan(value) else float(value)
