"""Describe that the process is up, and how far the model is."""

from __future__ import annotations

from typing import Any, Final, get_args

from backend.inference.model_status import ModelState

#: All states of the model.
MODEL_STATES: Final[tuple[str, ...]] = get_args(ModelState)


def describe_health(model: str, state: str) -> dict[str, Any]:
    """Return the answer to ``/health``.

    Args:
        model: name of the model.
        state: of the model, one of `MODEL_STATES`.
    """
    return {"status": "UP", "model": model, "state": state}
