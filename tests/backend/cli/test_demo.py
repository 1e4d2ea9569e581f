"""The command `clearclip-backend demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.cli.demo import run_demo
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
