"""Results of runs as JSON files, and the exact merge of shards."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from clearclip_core.evaluation.atomic_write import remove_whole, write_whole
from clearclip_core.evaluation.benchmarks import BENCHMARKS, Benchmark, digest_of
from clearclip_core.evaluation.metrics import Confusion
from clearclip_core.quantities import quantity
from clearclip_core.segmentation.scores import TEMPERATURE

#: Letters of a file's name in that of its partial file. A file system allows 255 bytes, and a
#: letter may take four.
_LETTERS: Final = 40


@dataclass(frozen=True)
class RunConfig:
    """Everything that a result depends on, except the machine and the versions of packages.

    Attributes:
        benchmark: name of the benchmark.
        pictures: number of images of the whole run.
        limit: limit of the number of images; None without a limit.
        pictures_digest: digest of the images' names and files, wherever these lie.
        own_names: whether the class names come from a file of the user.
        queries_digest: digest of the queries of each class.
        model: name of the model.
        weights: id of the model's weights, see `weights_id`.
        method: name of the method, or its parts.
        precision: fp32, fp16, bf16 or fp64.
        device: type of the device: cpu, cuda or mps.
        short_side_px: short side of a resized image.
        long_side_px: limit of the long side of a resized image.
        window_px: side of a sliding window.
        stride_px: step between sliding windows.
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
    temperature: float = TEMPERATURE
    least_share: float = 0.0
    text_side: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.text_side is not None:
            object.__setattr__(self, "text_side", tuple(self.text_side))

    @property
    def key(self) -> str:
        """Hex digest of the configuration."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return all values under their names in files, on which `key` depends.

        Temperature, least share and text side are left out where they are the paper's.
        """
        later: dict[str, Any] = {}
        if self.temperature != TEMPERATURE:
            later["temperature"] = self.temperature
        if self.least_share:
            later["least_share"] = self.least_share
        if self.text_side is not None:
            later["text_side"] = list(self.text_side)
        return {
            "benchmark": self.benchmark,
            "pictures": self.pictures,
            "limit": self.limit,
            "pictures_digest": self.pictures_digest,
            "own_names": self.own_names,
            "queries_digest": self.queries_digest,
            "model": self.model,
            "weights": self.weights,
            "method": self.method,
            "precision": self.precision,
            "device": self.device,
            "short_side_px": self.short_side_px,
            "long_side_px": self.long_side_px,
            "window_px": self.window_px,
            "stride_px": self.stride_px,
            "mean": self.mean,
            "std": self.std,
            "threshold": self.threshold,
            **later,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunConfig:
        """Read the value of `to_json`.

        Raises:
            KeyError: a name is missing.
            ValueError: there are unknown names.
        """
        made = cls(
            benchmark=value["benchmark"],
            pictures=value["pictures"],
            limit=value["limit"],
            pictures_digest=value["pictures_digest"],
            own_names=value["own_names"],
            queries_digest=value["queries_digest"],
            model=value["model"],
            weights=value["weights"],
            method=value["method"],
            precision=value["precision"],
            device=value["device"],
            short_side_px=value["short_side_px"],
            long_side_px=value["long_side_px"],
            window_px=value["window_px"],
            stride_px=value["stride_px"],
            mean=value["mean"],
            std=value["std"],
            threshold=value["threshold"],
            temperature=value.get("temperature", TEMPERATURE),
            least_share=value.get("least_share", 0.0),
            text_side=value.get("text_side"),
        )
        if others := sorted(value.keys() - made.to_json().keys()):
            raise ValueError(f"Expected the settings of an evaluation, but got {others} too.")
        return made

    def differences(self, other: RunConfig) -> str:
        """Describe the values that differ; "" where none differs.

        Args:
            other: the configuration to compare with.
        """
        own, others = self.to_json(), other.to_json()
        return ", ".join(
            f"{name} {own.get(name)!r} and {others.get(name)!r}"
            for name in own | others
            if own.get(name) != others.get(name)
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


def result_table(result: Result) -> str:
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


@dataclass(frozen=True)
class Checkpoint:
    """The file from which an interrupted pass is resumed.

    One file holds all tallies and the number of images that they count, and is written atomically:
    if the process dies, no image is counted twice. The file also holds the versions of the
    packages; a pass is not resumed under other versions.

    Attributes:
        path: path of the file.
        key: digest of the run's configuration; a checkpoint with another key is ignored.
    """

    path: Path
    key: str

    @classmethod
    def beside(cls, result: Path, key: str) -> Checkpoint:
        """Return the checkpoint of a result file; each key has a file of its own."""
        return cls(result.with_name(f"{result.name}.{key[:12]}.partial"), key)

    def save(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies.

        Raises:
            OSError: the file cannot be written.
        """
        content: dict[str, Any] = {
            "key": self.key,
            "versions": versions(),
            "pictures": tallies[0].pictures,
        }
        for index, tally in enumerate(tallies):
            content[f"seconds {index}"] = tally.seconds
            content[f"confusion {index}"] = tally.confusion.counts.tolist()
        write_whole(self.path, dump(content))

    def load(self, methods: int) -> tuple[Tally, ...] | None:
        """Read the tallies; None where there is no checkpoint of this key.

        Args:
            methods: number of tallies.

        Raises:
            ValueError: the checkpoint was written under other versions.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["key"] != self.key:
                return None
            others = other_versions(content["versions"])
            tallies = tuple(
                Tally(
                    Confusion(np.array(content[f"confusion {index}"], np.int64)),
                    int(content["pictures"]),
                    float(content[f"seconds {index}"]),
                )
                for index in range(methods)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # no file, or not a checkpoint
        if others:
            raise ValueError(
                f"{self.path} was counted under other versions ({others}). Go on with those, or "
                "remove it to begin anew."
            )
        return tallies

    def remove(self) -> None:
        """Remove the file, as the pass is complete."""
        remove_whole(self.path)
