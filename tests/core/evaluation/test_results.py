"""Results and checkpoints as files; settings tell runs apart."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clearclip_core.evaluation import results
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.evaluation.results import RunConfig, RunResult, Tally, checkpoint_path, versions
from clearclip_core.images.preprocessing import Preprocessing
from tests.core.evaluation.factories import CONFIG


def result(seed: int) -> RunResult:
    counts = np.random.default_rng(seed).integers(0, 10**12, (20, 20))
    counts[7] = counts[:, 7] = 0  # no cat anywhere
    return RunResult.of(CONFIG, Tally(ConfusionMatrix(counts), 3, 1.5 * seed), "a card")


def test_a_file_holds_measures_settings_and_versions(tmp_path: Path) -> None:
    written = result(2)
    written.write(tmp_path / "r.json")
    read = RunResult.read(tmp_path / "r.json")
    assert msgspec.to_builtins(read) == msgspec.to_builtins(written)
    assert (read.settings, read.versions, read.hardware) == (CONFIG, versions(), "a card")
    content = json.loads((tmp_path / "r.json").read_text())
    counts = np.array(content["confusion"])
    ship = counts[3, 3] / (counts[3].sum() + counts[:, 3].sum() - counts[3, 3])
    assert content["iou"]["ship"] == pytest.approx(ship)
    assert content["iou"]["cat"] is None
    assert content["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    known = [value for value in content["iou"].values() if value is not None]
    assert content["miou"] == pytest.approx(sum(known) / 19)
    assert content["seconds_per_picture"] == 1.0
    assert {"python", "torch", "open_clip_torch", "numpy"} <= set(content["versions"])


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in (b"", b"[]", b"{}", b'{"confusion": [[1, 2]]}', b"\xff", b"[" * 10**5):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="to be written by `clearclip eval`, but it is not"):
            RunResult.read(path)
    content = msgspec.to_builtins(result(1))
    for counts in ([[1, 2], [3, 4]], [[1], [2, 3]]):
        path.write_bytes(msgspec.json.encode(content | {"confusion": counts}))
        with pytest.raises(ValueError, match=f"Expected {path}"):
            RunResult.read(path)


def test_settings_and_versions_tell_runs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    other = msgspec.structs.replace(CONFIG, sizes=Preprocessing())
    key = other.key
    assert key != CONFIG.key
    assert "sizes" in CONFIG.differences(other)
    again = msgspec.json.decode(msgspec.json.encode(other), type=RunConfig)
    assert (again, again.key, other.differences(again)) == (other, key, "")
    monkeypatch.setattr(results, "versions", lambda: {"torch": "0"})
    assert other.key != key
    paths = {checkpoint_path(Path("r.json"), each) for each in (key, other.key)}
    assert len(paths) == 2
