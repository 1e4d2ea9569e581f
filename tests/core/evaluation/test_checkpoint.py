"""The file from which a pass goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clearclip_core.evaluation.metrics import Confusion
from clearclip_core.evaluation.results import Checkpoint, Tally


def start() -> tuple[Tally, ...]:
    return (Tally(Confusion.empty(3)),) * 2


def test_what_was_counted_comes_back(tmp_path: Path) -> None:
    counts = np.arange(9).reshape(3, 3) * 10**12
    tallies = [Tally(Confusion(counts), 7, 1.25), Tally(Confusion(counts.T.copy()), 7, 0.1)]
    checkpoint = Checkpoint(tmp_path / "a" / "partial", "key")
    checkpoint.save(tallies)
    kept = checkpoint.load(2)
    assert kept is not None
    for before, after in zip(tallies, kept, strict=True):
        assert after.confusion.counts.tolist() == before.confusion.counts.tolist()
        assert (after.pictures, after.seconds) == (before.pictures, before.seconds)


def test_a_bookmark_of_other_settings_or_no_bookmark_is_not_taken_up(tmp_path: Path) -> None:
    checkpoint = Checkpoint.beside(tmp_path / "r.json", "key")
    assert checkpoint.load(2) is None
    checkpoint.save(start())
    assert checkpoint.load(2) is not None
    assert Checkpoint(checkpoint.path, "other").load(2) is None
    assert checkpoint.load(3) is None
    for text in ("", "[]", '{"key": "key"}', '{"key": "key", "pictures": 1, "confusion 0": [1]}'):
        checkpoint.path.write_text(text)
        assert checkpoint.load(2) is None
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
