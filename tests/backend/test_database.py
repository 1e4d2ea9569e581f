"""The database that backends share, as SQLite and as a real PostgreSQL."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from backend.database import Database
from backend.settings import Settings


def test_a_new_file_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    """SQLite tells who comes while another makes it that it is locked, and lets nobody wait."""
    file = tmp_path / "clearclip.db"
    opened = threading.Event()

    def open_it() -> None:
        Database(f"sqlite:///{file}").check()
        opened.set()

    with FileLock(f"{file}.lock"):
        others = [threading.Thread(target=open_it) for _ in range(4)]
        for other in others:
            other.start()
        assert not opened.wait(0.5)
        assert not file.exists()
    for other in others:
        other.join()
    assert opened.is_set()


def test_the_settings_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    settings = Settings(model_dir=tmp_path / "models")
    Database.from_settings(settings).check()
    assert (tmp_path / "models" / "clearclip.db").exists()
    other = f"sqlite:///{tmp_path}/other.db"
    Database.from_settings(Settings(database_url=other)).check()  # type: ignore[arg-type]
    assert (tmp_path / "other.db").exists()


def test_the_password_of_a_database_is_never_shown() -> None:
    url = "postgresql+psycopg://ann:secret@host/name"
    settings = Settings(database_url=url)  # type: ignore[arg-type]
    assert "secret" not in repr(settings)
    assert "secret" not in repr(vars(Database.from_settings(settings)))


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////proc/none/jobs.db",
        "postgresql+psycopg://ann:secret@127.0.0.1:9/name",
        "postgresql+psycopg://127.0.0.1:9/name?password=secret",
    ],
)
def test_a_database_that_cannot_be_had_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="set DATABASE_URL") as caught:
        Database(url).check()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_that_can_be_had_is_checked_without_a_word(url: str) -> None:
    Database(url).check()
