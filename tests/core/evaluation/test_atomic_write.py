"""Whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clearclip_core.evaluation.atomic_write import remove_whole, write_whole


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.json"
    write_whole(path, b"one")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_goes_with_the_file(tmp_path: Path) -> None:
    path, other = tmp_path / "b.json", tmp_path / "other.json"
    write_whole(other, b"stays")
    write_whole(path, b"one")
    (tmp_path / ".b.json.0123.tmp").write_bytes(b"ha")
    remove_whole(path)
    remove_whole(path)
    assert list(tmp_path.iterdir()) == [other]
