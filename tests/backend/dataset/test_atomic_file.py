"""Files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.dataset.atomic_file import link_file, replaced, write_file


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a/b.txt"
    write_file(file, b"old")

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
    link_file(link, target)
    link_file(link, target)
    assert link.read_bytes() == b"mine"
    write_file(link, b"new")
    assert target.read_bytes() == b"mine"
