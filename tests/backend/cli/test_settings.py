"""The settings as people read them: on a page, in `.env.example`."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.cli.settings import in_two_groups, write_settings
from backend.settings import Settings

ROOT = Path(__file__).parents[3]


def test_every_setting_is_in_one_group() -> None:
    grouped = [field for fields in in_two_groups().values() for field in fields]
    assert sorted(grouped) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", [".env.example", "docs/reference/settings.md"])
def test_both_files_are_what_the_settings_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing that is set is shown, and what stands around the settings is kept."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "s3cret")
    monkeypatch.setenv("PORT", "none")  # a value that cannot be is no reason to say nothing
    before = (ROOT / name).read_text(encoding="utf-8")
    file = tmp_path / f"example{Path(name).suffix}"
    file.write_text(before.replace("Longest wait", "Shortest wait"), encoding="utf-8")
    write_settings(file)
    assert file.read_text(encoding="utf-8") == before, "make settings writes it"
    assert name.endswith(".md") or max(map(len, before.splitlines())) <= 100


def test_a_file_without_a_place_for_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- settings:end -->\n<!-- settings:begin -->\n")
    with pytest.raises(ValueError, match="needs a line with settings:begin"):
        write_settings(tmp_path / "page.md")
