"""The command `clearclip-backend demo`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.cli.demo import report_demo, run_demo
from backend.cli.demo_servers import DemoError


@pytest.mark.parametrize("options", [{"labels": ["sky"]}, {"images": Path()}])
def test_pictures_and_labels_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(DemoError, match="give both, or none"):
        run_demo(**options)


def test_a_folder_without_pictures_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "._hidden.jpg").touch()  # macOS's, beside a photo
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DemoError, match=r"There is no picture \(.*\.png.*\) in "):
        run_demo(images=tmp_path, labels=["sky"], label_studio_command="nowhere")


def test_the_report_tells_how_to_click_where_a_region_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing = SimpleNamespace(list=lambda project: [])
    client = SimpleNamespace(tasks=nothing, predictions=nothing)
    studio: Any = SimpleNamespace(client=client, url="http://s", username="u", password="p")
    assert report_demo(studio, 1, floor=None) == []
    said = " ".join(capsys.readouterr().out.split())
    assert "on a spot that any region covers asks nothing: Label Studio selects the region." in said
    assert "Ctrl+click works (Ctrl+Alt+click for a negative point)." in said
