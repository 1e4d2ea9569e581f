"""Describe that the process is up, and how far the model is."""

from __future__ import annotations

from typing import Any


def describe_health(model: str, state: str) -> dict[str, Any]:
    """Return the answer to ``/health``."""
    return {"status": "UP", "model": model, "state": state}
