"""A report of each kind of run, and what it was asked."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from backend.runs.label_errors import LabelErrors, Suspicion
from backend.runs.run import AskedNothing

EVIL: Final = "<script>alert(1)</script>"
PICTURE: Final = "data:image/jpeg;base64,AA"

SUSPICION: Final = Suspicion(
    3, 12, 5.25, None, "label", EVIL, "tree", 2.5, True, f"Painted “{EVIL}”.", PICTURE, "data:b"
)
LABEL_ERRORS: Final = LabelErrors(
    *(40, 13, 9, 30, 75.0),
    (SUSPICION, msgspec.structs.replace(SUSPICION, task=4, annotation=13, set_aside=False)),
    {9: EVIL},
    7,
)

#: Name of a kind -> what is asked for, something else that is, and a report.
SAMPLES: Final[dict[str, tuple[Any, Any, Any]]] = {
    "label-errors": (AskedNothing(), None, LABEL_ERRORS),
}
