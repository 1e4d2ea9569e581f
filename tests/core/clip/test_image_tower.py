"""Image towers that cannot be read out densely."""

from __future__ import annotations

import pytest

from clearclip_core import METHODS, DenseEncoder
from tests.core.conftest import make_clip


@pytest.mark.parametrize(
    ("vision", "why"),
    [
        ({"layers": [1, 1, 1, 1], "width": 16}, "another kind"),
        ({"attentional_pool": True}, "pools by attention"),
        ({"final_ln_after_pool": True}, "normalises after pooling"),
        ({"block_type": "custom"}, "attention blocks of another kind"),
    ],
)
def test_towers_that_cannot_be_taken_apart_are_refused(vision: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=f"native Vision Transformers.*{why}"):
        DenseEncoder(make_clip(**vision), METHODS["clearclip"])
