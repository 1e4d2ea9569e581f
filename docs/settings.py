"""``make settings``: write the settings into the docs and the example of Docker Compose.

In both files they stand between a line with the word settings:begin and one with settings:end.
"""

import re
import sys
import textwrap
from pathlib import Path
from typing import Final

from backend.cli.options import MAIN_SETTINGS
from backend.settings import Settings

#: Set by docker-compose.yml itself, addresses in its network and folders in its containers; or
#: among what stands on top of the example.
COMPOSE_OWN: Final = {
    "label_studio_url",
    "label_studio_browser_url",
    "label_studio_api_key",
    "host",
    "port",
    "model_dir",
}

_BETWEEN: Final = re.compile(r"(?ms)(^[^\n]*settings:begin[^\n]*\n)(.*)(^[^\n]*settings:end)")


def write_settings(file: Path) -> None:
    """Write every setting with its default into a Markdown page or an example of variables.

    Raises:
        ValueError: the file lacks one of the lines, or they are in the other order.
    """
    text = file.read_text(encoding="utf-8")
    if not _BETWEEN.search(text):
        raise ValueError(f"{file} needs a line with settings:begin and one with settings:end.")
    written = settings_markdown() if file.suffix == ".md" else settings_variables()
    file.write_text(_BETWEEN.sub(lambda found: found[1] + written + found[3], text), "utf-8")


def in_two_groups() -> dict[str, list[str]]:
    """Return the names of all settings: those that many people need, then those for tuning."""
    tuning = [each for each in Settings.model_fields if each not in MAIN_SETTINGS]
    return {"You may need": [*MAIN_SETTINGS], "Tuning": tuning}


def settings_markdown() -> str:
    """Return every setting as a row of one of two Markdown tables."""
    lines: list[str] = []
    for title, fields in in_two_groups().items():
        lines += ["", f"## {title}", "", "| variable | default | what it does |", "|---|---|---|"]
        for field in fields:
            default = _default(field)
            text = _description(field).replace("|", "\\|")
            lines.append(f"| `{field.upper()}` | {f'`{default}`' if default else ''} | {text} |")
    return "\n".join(lines[1:]) + "\n"


def settings_variables() -> str:
    """Return the settings that docker-compose.yml hands on, each as a comment and a variable."""
    groups = []
    for title, fields in in_two_groups().items():
        entries = [_entry(field) for field in fields if field not in COMPOSE_OWN]
        groups.append(f"# == {title} ==\n\n" + "".join(entries))
    return "\n".join(groups)


def _entry(field: str) -> str:
    comment = textwrap.fill(
        _description(field),
        100,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    default = _default(field)
    return f"{comment}\n{'#' if default else ''}{field.upper()}={default}\n"


def _default(field: str) -> str:
    default = Settings.model_fields[field].default
    return "" if default is None else str(default)


def _description(field: str) -> str:
    return Settings.model_fields[field].description or ""


if __name__ == "__main__":
    for each in sys.argv[1:]:
        write_settings(Path(each))
