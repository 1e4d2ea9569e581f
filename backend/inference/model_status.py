"""The state of the model, for whoever tells it; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ModelState = Literal["loading", "ready", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """The state of the model, and the reason where it failed to load or has stopped."""

    state: ModelState
    reason: str = ""
