"""The settings as people read them: in a terminal, on a page, in `.env.example`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli.settings import in_two_groups, list_settings
from backend.settings import Settings

ROOT = Path(__file__).parents[3]


def settings(*arguments: str, status: int = 0) -> Result:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(list_settings, arguments)
    assert result.exit_code == status, result.output
    return result


def test_every_setting_is_in_one_group() -> None:
    grouped = [field for fields in in_two_groups().values() for field in fields]
    assert sorted(grouped) == sorted(Settings.model_fields)


def test_the_example_is_what_the_settings_are() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert settings("--format", "env").output == example, "make settings writes it"
    assert max(map(len, example.splitlines())) <= 100


def test_nothing_that_is_set_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://studio:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "s3cret")
    monkeypatch.setenv("PORT", "none")  # a value that cannot be is no reason to say nothing
    for form in ("markdown", "env"):
        output = settings("--format", form).output
        assert "s3cret" not in output
        assert "http://studio" not in output


def test_a_page_keeps_what_stands_around_the_table(tmp_path: Path) -> None:
    page = tmp_path / "settings.md"
    page.write_text("# Settings\n<!-- settings:begin -->\nold\n<!-- settings:end -->\nMore.\n")
    for _ in range(2):
        settings("--format", "markdown", "--into", str(page))
        table = settings("--format", "markdown").output
        begin, end = "<!-- settings:begin -->", "<!-- settings:end -->"
        assert page.read_text() == f"# Settings\n{begin}\n{table}{end}\nMore.\n"
