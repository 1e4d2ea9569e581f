"""The commands `clearclip-backend database`, and what other commands say of a newer database."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli import main as cli
from backend.database.database import Database, revisions
from backend.jobs.job_store import JobStore
from tests.backend.fakes.databases import check_filled, execute, fill

NEWEST = revisions()[-1]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.main, arguments)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_status_says_where_a_database_stands_and_makes_nothing(url: str, tmp_path: Path) -> None:
    status = ("database", "status", "--database-url", url)
    result = run(*status)
    assert result.exit_code == 0
    assert f"not there yet; the newest is {NEWEST}" in result.output
    assert not (tmp_path / "store.db").exists()
    assert Database(url).revision() is None
    Database(url).check()
    result = run(*status)
    assert result.exit_code == 0
    assert f"{Database(url).name} is up to date: it is at revision {NEWEST}" in result.output


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "--model", "demo"],
        ["prelabel", "--project", "7", "--model", "demo"],
        ["report", "--project", "7"],
        ["adapt", "status", "--project", "7", "--model", "demo"],
        ["database", "status"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_database_of_a_newer_version_ends_a_command_with_a_sentence(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/newer.db"
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a" * 40)
    fill(url)
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    result = run(*command, "--database-url", url)
    assert result.exit_code == 1
    said = result.output.strip().splitlines()[-1]
    assert said.startswith("Error: The database is from a newer version of the backend")


def test_a_backup_is_restored(tmp_path: Path) -> None:
    place = ("--database-url", f"sqlite:///{tmp_path}/clearclip.db")
    file = str(tmp_path / "monday.db")
    fill(place[1])
    result = run("database", "backup", file, *place)
    assert result.exit_code == 0
    assert f"is copied to {file}" in result.output
    store = JobStore(Database(place[1]))
    store.start_job(70)
    store.database.close()
    result = run("database", "restore", file, *place)
    assert result.exit_code == 0
    kept = [each for each in tmp_path.iterdir() if "before-restore" in each.name]
    assert len(kept) == 1
    assert str(kept[0]) in result.output
    assert execute(f"sqlite:///{kept[0]}", "SELECT max(project) FROM jobs") == [(70,)]
    check_filled(place[1])
    assert run("database", "backup", file, *place).exit_code == 1


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("It is no database, however long it is. " * 100)
    result = run("database", "status", "--database-url", f"sqlite:///{tmp_path}/text.db")
    assert result.exit_code == 1
    assert "cannot be read (file is not a database)" in result.output
