"""Groups of near-duplicates among training examples."""

from __future__ import annotations

import numpy as np
import pytest

from backend.feedback.learning import duplicates
from backend.feedback.learning.duplicates import duplicate_groups
from backend.feedback.learning.versions import TrainingExample


def test_annotations_whose_pictures_are_alike_share_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of annotation 4, one picture is like that of 1 and another like that of 7: all are one."""
    monkeypatch.setattr(duplicates.Example, "from_bytes", lambda data: data)
    monkeypatch.setattr(
        duplicates, "cluster", lambda pictures: np.array([int(p) for p in pictures])
    )
    stored = [
        TrainingExample("d", content, "{}", annotation=annotation)
        for annotation, content in ((1, b"0"), (4, b"0"), (4, b"2"), (7, b"2"), (9, b"1"))
    ]
    groups = duplicate_groups(stored)
    assert groups.keys() == {1, 4, 7, 9}
    assert groups[1] == groups[4] == groups[7] != groups[9]
    assert duplicate_groups([]) == {}
