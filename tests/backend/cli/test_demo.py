"""The demo's own parts; all of it with the real Label Studio: `tests/e2e/test_demo.py`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from backend.cli.demo import demo, scene_file, scene_seed
from clearclip_core import render_scene


def test_pictures_without_labels_or_a_folder_without_pictures_start_nothing(tmp_path: Path) -> None:
    (tmp_path / "._hidden.jpg").touch()  # macOS's, beside a photo
    (tmp_path / "notes.txt").write_text("no picture")
    for given, sentence in (
        (["--labels", "sky"], "give both, or none"),
        (["--images", str(tmp_path)], "give both, or none"),
        (["--images", str(tmp_path), "--labels", "sky"], "There is no picture (.bmp, "),
    ):
        result = CliRunner().invoke(demo, [*given, "--label-studio", "nowhere"])
        assert result.exit_code == 1
        assert sentence in result.output


def test_scenes_are_named_after_their_seeds() -> None:
    name, content = scene_file(7)
    assert scene_seed(f"/data/upload/1/0a1b2c3d-{name}") == 7
    assert (np.asarray(Image.open(io.BytesIO(content))) == render_scene(7).image).all()
    with pytest.raises(ValueError, match="name a drawn scene"):
        scene_seed("/data/upload/7/0a1b2c3d-holiday.png")
