"""Images for the commands."""

from pathlib import Path

import pytest

from tests.core.cli.clearclip import draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images in a folder, one of them in a folder below, and a text file."""
    folder = tmp_path / "photos"
    draw(folder / "one.jpg")
    draw(folder / "two.png", (40, 90))
    draw(folder / "trip" / "Three.JPG", (90, 40))
    (folder / "notes.txt").write_text("no picture")
    return folder
