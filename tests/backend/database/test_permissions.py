"""Advice on database files that may not be written; tests may run as root, who may write all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.database.database import Database, file_advice, forbidden_path


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
    told = file_advice(tmp_path / "clearclip.db")
    assert f"user 1000 may not write {path}." in told
    assert "chown -R 1000 FOLDER" in told
    assert "MODELS" in told


def test_where_all_may_be_written_another_database_is_the_advice(
    tmp_path: Path, forbidden: set[Path]
) -> None:
    told = file_advice(tmp_path / "clearclip.db")
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
