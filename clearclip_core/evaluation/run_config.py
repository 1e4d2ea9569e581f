"""Everything that a result depends on, machine and versions apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunConfig:
    """All that a result depends on, machine and versions apart.

    Attributes:
        benchmark: its name.
        pictures: how many the whole run takes.
        limit: to how many of the first pictures it was limited, if it was.
        pictures_digest: of their names and files, wherever those lie.
        own_names: whether the words come from a file of one's own.
        queries_digest: of the words that are asked for, class by class.
        model: the model name.
        weights: what tells its weights from others, see `weights_id`.
        method: the method's name, or its parts.
        precision: fp32, fp16 or bf16.
        device: kind of device, cpu, cuda or mps.
        short_side_px: of a resized picture.
        long_side_px: at most, of a resized picture.
        window_px: side of a window.
        stride_px: between windows.
        mean: of colours, 0-255, RGB.
        std: likewise.
        threshold: probability below which a pixel is background.
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

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def key(self) -> str:
        """Hex digest of all settings: other settings, another key."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """All settings under the names that they have in files and in `key`; these stay."""
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
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunConfig:
        """Read what `to_json` made.

        Raises:
            KeyError: a setting is missing.
            ValueError: there are others.
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
        )
        if others := sorted(value.keys() - made.to_json().keys()):
            raise ValueError(f"Expected the settings of an evaluation, but got {others} too.")
        return made

    def differences(self, other: RunConfig) -> str:
        """What differs, as a person reads it; empty where nothing does.

        Args:
            other: settings that were expected to be these.
        """
        own, others = self.to_json(), other.to_json()
        return ", ".join(
            f"{name} {own[name]!r} and {others[name]!r}"
            for name in own
            if own[name] != others[name]
        )


def digest_of(content: object) -> str:
    """Hex digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
