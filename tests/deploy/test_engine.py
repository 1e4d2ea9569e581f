"""What the walk through Compose does on the machine, as far as no engine is needed."""

from __future__ import annotations

from pathlib import Path

from backend.database.database import Database
from tests.deploy.engine import make_old_database


def test_the_old_database_of_the_walk_can_be_upgraded(tmp_path: Path) -> None:
    file = tmp_path / "clearclip.db"
    make_old_database(file)
    database = Database(f"sqlite:///{file}")
    assert database.revision() is None
    database.check()
    assert database.revision() is not None
