"""Packages of other people, as pip installs them, and those that a guide shows."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

_GUIDE = Path(__file__).parents[1] / "docs/guides/extend.md"


def blocks_of_guide(section: str) -> dict[str, str]:
    """Return the fenced blocks of a section of the guide, by their language."""
    _, _, after = _GUIDE.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    text = re.split(r"^## ", after, maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))


class Packages:
    """A folder of installed packages, whose modules are forgotten after the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def install(self, name: str, code: str, group: str, *points: str) -> None:
        """Put a module and its entry points of a group there, such as ``mine = package:MINE``."""
        self._monkeypatch.setitem(sys.modules, name, ModuleType(name))
        self._monkeypatch.delitem(sys.modules, name)
        (self.folder / f"{name}.py").write_text(code)
        facts = self.folder / f"{name}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("\n".join([f"[{group}]", *points, ""]))
