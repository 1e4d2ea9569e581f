"""The configuration of an evaluation, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearclip_core.segmentation.scores import TEMPERATURE


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


def digest_of(value: object) -> str:
    """Return a hex digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
