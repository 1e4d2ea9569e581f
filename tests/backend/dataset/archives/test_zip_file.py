"""A folder as a ZIP file, read by Python's own reader."""

from __future__ import annotations

import zipfile
from pathlib import Path

from backend.dataset.archives.zip_file import move_into_zip, size_of


def test_visible_files_are_moved_and_read_again(tmp_path: Path) -> None:
    folder, path = tmp_path / "set", tmp_path / "out" / "set.zip"
    contents = {"masks/größe.png": b"\x89" * 50, "classes.json": b"{}" * 500, ".parts/a": b"x"}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    path.parent.mkdir()
    assert size_of(folder) == 1051
    assert move_into_zip(folder, path) == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = {each.filename: each for each in archive.infolist()}
        assert set(found) == {"masks/größe.png", "classes.json"}
        assert archive.read("classes.json") == contents["classes.json"]
        assert found["classes.json"].compress_size < 100
        assert found["masks/größe.png"].compress_type == zipfile.ZIP_STORED
    assert size_of(folder) == 1, "the hidden file"
