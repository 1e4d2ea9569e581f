"""All kinds of runs."""

from __future__ import annotations

from typing import Any, Final

from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run import RunKind

KINDS: Final[tuple[RunKind[Any, Any], ...]] = (LABEL_ERRORS,)
