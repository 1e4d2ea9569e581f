"""Results and checkpoints as files; settings tell runs apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.evaluation.results import Checkpoint, RunConfig, RunResult, Tally, versions
from tests.core.evaluation.factories import CONFIG


def result(seed: int) -> RunResult:
    counts = np.random.default_rng(seed).integers(0, 10**12, (20, 20))
    counts[7] = counts[:, 7] = 0  # no cat anywhere
    return RunResult.of(CONFIG, Tally(ConfusionMatrix(counts), 3, 1.5 * seed), "a card")


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    written = result(1)
    written.write(tmp_path / "a" / "r.json")
    read = RunResult.read(tmp_path / "a" / "r.json")
    assert msgspec.to_builtins(read) == msgspec.to_builtins(written)
    assert (read.settings, read.versions, read.hardware) == (CONFIG, versions(), "a card")


def test_a_file_holds_measures_settings_and_versions(tmp_path: Path) -> None:
    result(2).write(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    counts = np.array(content["confusion"])
    ship = counts[3, 3] / (counts[3].sum() + counts[:, 3].sum() - counts[3, 3])
    assert content["iou"]["ship"] == pytest.approx(ship)
    assert content["iou"]["cat"] is None
    assert content["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    known = [value for value in content["iou"].values() if value is not None]
    assert content["miou"] == pytest.approx(sum(known) / 19)
    assert content["seconds_per_picture"] == 1.0
    assert content["settings"]["threshold"] == 0
    assert {"python", "torch", "open_clip_torch", "numpy"} <= set(content["versions"])


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in (b"", b"[]", b"{}", b'{"confusion": [[1, 2]]}', b"\xff", b"[" * 10**5):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="to be written by `clearclip eval`, but it is not"):
            RunResult.read(path)
    content = msgspec.to_builtins(result(1))
    for counts in ([[1, 2], [3, 4]], [[1], [2, 3]], [[-1] * 20] * 20):
        path.write_bytes(msgspec.json.encode(content | {"confusion": counts}))
        with pytest.raises(ValueError, match="to hold the classes of a benchmark"):
            RunResult.read(path)


@pytest.mark.parametrize("change", [{"method": "clip"}, {"text_side": (0.1, 0.03, 0.1)}])
def test_settings_tell_runs_apart(change: dict[str, Any]) -> None:
    other = msgspec.structs.replace(CONFIG, **change)
    assert other.key != CONFIG.key
    assert next(iter(change)) in CONFIG.differences(other)
    again = msgspec.json.decode(msgspec.json.encode(other), type=RunConfig)
    assert (again, again.key, other.differences(again)) == (other, other.key, "")


def start() -> tuple[Tally, ...]:
    return (Tally(ConfusionMatrix.empty(3)),) * 2


def test_what_was_counted_comes_back(tmp_path: Path) -> None:
    counts = np.arange(9).reshape(3, 3) * 10**12
    tallies = [
        Tally(ConfusionMatrix(counts), 7, 1.25),
        Tally(ConfusionMatrix(counts.T.copy()), 7, 0.1),
    ]
    checkpoint = Checkpoint(tmp_path / "a" / "partial", "key")
    checkpoint.save(tallies)
    kept = checkpoint.load(2)
    assert kept is not None
    for before, after in zip(tallies, kept, strict=True):
        assert after.confusion.counts.tolist() == before.confusion.counts.tolist()
        assert (after.pictures, after.seconds) == (before.pictures, before.seconds)


def test_a_checkpoint_of_other_settings_or_none_is_not_taken_up(tmp_path: Path) -> None:
    checkpoint = Checkpoint.beside(tmp_path / "r.json", "key")
    assert checkpoint.load(2) is None
    checkpoint.save(start())
    assert checkpoint.load(2) is not None
    assert Checkpoint(checkpoint.path, "other").load(2) is None
    assert checkpoint.load(3) is None
    content = json.loads(checkpoint.path.read_text())
    checkpoint.path.write_text(json.dumps(content | {"versions": {"torch": "0"}}))
    with pytest.raises(ValueError, match="was counted under other versions"):
        checkpoint.load(2)
    for text in ("", "[]", '{"key": "key"}', json.dumps(content | {"confusions": [[[1]], []]})):
        checkpoint.path.write_text(text)
        assert checkpoint.load(2) is None
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
