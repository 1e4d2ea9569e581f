"""Advice on database files that may not be written; tests may run as root, who may write all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.database.database import Database
from backend.database.permissions import advice, forbidden_path


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Paths that the user may not write; all others may be."""
    paths: set[Path] = set()

    def access(path: Path, mode: int) -> bool:
        assert mode == os.W_OK
        return path not in paths

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    return paths


@pytest.mark.parametrize("name", ["", "clearclip.db", "clearclip.db-wal", "clearclip.db.lock"])
def test_the_folder_or_the_file_is_named_with_the_owner_to_give_it_to(
    name: str, tmp_path: Path, forbidden: set[Path]
) -> None:
    path = tmp_path / name
    if name:
        path.touch()
    forbidden.add(path)
    assert forbidden_path(tmp_path / "clearclip.db") == path
    told = advice(tmp_path / "clearclip.db")
    assert f"user 1000 may not write {path}." in told
    assert "chown -R 1000 FOLDER" in told
    assert "MODELS" in told


def test_of_a_folder_that_is_not_there_the_nearest_one_above_counts(
    tmp_path: Path, forbidden: set[Path]
) -> None:
    forbidden.add(tmp_path)
    assert forbidden_path(tmp_path / "a" / "b" / "clearclip.db") == tmp_path


def test_where_all_may_be_written_another_database_is_the_advice(
    tmp_path: Path, forbidden: set[Path]
) -> None:
    told = advice(tmp_path / "clearclip.db")
    assert "set DATABASE_URL" in told
    assert "MODEL_DIR" in told


def test_no_owner_helps_on_a_file_system_that_is_mounted_read_only(
    tmp_path: Path, forbidden: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly)
    forbidden.add(tmp_path)
    told = advice(tmp_path / "clearclip.db")
    assert "set DATABASE_URL" in told
    assert "MODEL_DIR" in told


def test_the_database_hands_the_advice_on(
    tmp_path: Path, forbidden: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "clearclip.db.lock"))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    forbidden.add(tmp_path)
    with pytest.raises(ValueError, match="chown -R 1000 FOLDER"):
        Database(f"sqlite:///{tmp_path}/clearclip.db").check()


def test_what_goes_while_it_is_looked_at_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clearclip.db"
    file.touch()

    def access(path: Path, mode: int) -> bool:
        if path == file:
            file.unlink()
        return path != file

    monkeypatch.setattr(os, "access", access)
    assert forbidden_path(file) is None
