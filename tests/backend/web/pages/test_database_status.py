"""The status without a database."""

from __future__ import annotations

from pathlib import Path

from backend.database.database import Database
from tests.backend.web.pages.status_scene import Scene


def test_a_database_that_is_gone_hides_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"this is no database" * 100)
    scene = Scene(database=Database(f"sqlite:///{tmp_path}/jobs.db"))
    now = scene.read()
    assert now["jobs"] == []
    assert now["jobs_trouble"] == "The database of jobs cannot be read: DatabaseError."
    assert now["model"]["state"] == "ready"


def test_a_database_that_cannot_be_opened_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").mkdir()
    now = Scene(database=Database(f"sqlite:///{tmp_path}/jobs.db")).read()
    assert now["jobs_trouble"] == "The file of the database cannot be opened."
