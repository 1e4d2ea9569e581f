"""The README's table of settings is the truth."""

from pathlib import Path

from backend.settings import Settings, variables

README = Path(__file__).parents[2] / "README.md"


def test_the_table_has_every_setting_with_its_default_and_description() -> None:
    lines = README.read_text().splitlines()
    start = lines.index("| variable | default | what it does |") + 2
    rows = lines[start : start + len(Settings.model_fields)]
    for row, (name, field) in zip(rows, Settings.model_fields.items(), strict=True):
        names, default, text = (cell.strip() for cell in row.strip("|").split("|"))
        assert names == " or ".join(f"`{variable}`" for variable in variables(name))
        assert default.strip("`") == ("" if field.default is None else str(field.default))
        assert text == field.description
    assert not lines[start + len(rows)].startswith("|")
