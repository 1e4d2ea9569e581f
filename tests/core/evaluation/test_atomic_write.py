"""Whole files or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearclip_core.evaluation.atomic_write import replaced, write_whole


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a/b.txt"
    write_whole(file, b"old")

    def write_half() -> None:
        with replaced(file) as stream:
            stream.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert file.read_bytes() == b"old"
    assert [path.name for path in file.parent.iterdir()] == ["b.txt"]


def test_a_file_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    link = tmp_path / "set/a"
    link.parent.mkdir()
    link.symlink_to(target)
    write_whole(link, b"new")
    assert target.read_bytes() == b"mine"
