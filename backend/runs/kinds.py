"""All kinds of runs."""

from __future__ import annotations

from typing import Any, Final

from backend.runs.agreement import AGREEMENT
from backend.runs.dataset import DATASETS
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run import RunKind
from backend.runs.words import WORDS

KINDS: Final[tuple[RunKind[Any, Any], ...]] = (LABEL_ERRORS, AGREEMENT, WORDS, DATASETS)
