"""Name the features of a model, and say whether its method can learn from corrections."""

from __future__ import annotations

import hashlib
import json

from backend.settings import Settings
from clearclip_core import resolve_method


def model_key(settings: Settings, model_id: str) -> str:
    """Return the key of what can be learned from together: weights, method, sizes, templates.

    >>> one, other = (model_key(Settings(method=m), "w1") for m in ("clearclip", "clip"))
    >>> one == other, one == model_key(Settings(method="clearclip"), "w1")
    (False, True)
    """
    parts = [model_id, settings.method, settings.short_side_px, settings.templates]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def can_learn(settings: Settings) -> bool:
    """Whether the method's scores can follow corrections: not where all classes weigh each other.

    >>> can_learn(Settings(method="clearclip")), can_learn(Settings(method="clipsurgery"))
    (True, False)
    """
    return not resolve_method(settings.method).remove_redundancy
