"""Sink channels are found once and kept; then `rfclip` runs with these weights."""

from __future__ import annotations

from pathlib import Path

from clearclip_core.clip.sink_channels import sink_channels
from tests.core.cli.clearclip import clearclip


def test_rfclip_runs_once_channels_are_found(photos: Path, tmp_path: Path) -> None:
    model = ("--model", "demo", "--device", "cpu", "--model-dir", str(tmp_path))
    segment = ("segment", str(photos), "--labels", "sky,grass", "--method", "rfclip", *model)
    refused = clearclip(*segment, "-o", str(tmp_path / "out"))
    assert refused.exit_code == 1
    assert "find them once with `clearclip sinks --model MODEL PICTURES`" in refused.output
    found = clearclip("sinks", str(photos), *model)
    assert found.exit_code == 0, found.output
    assert "sink channels: " in found.output
    assert sink_channels("demo", tmp_path) is not None
    assert clearclip(*segment, "-o", str(tmp_path / "out")).exit_code == 0
