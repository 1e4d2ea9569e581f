"""The conventions of the code that neither ruff nor import-linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_folder_has_a_docstring_and_hands_nothing_on() -> None:
    for package in ("clearclip_core", "backend"):
        for path in (ROOT / package).glob("*/**/__init__.py"):
            (sentence,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(sentence, ast.Expr), path
            assert isinstance(sentence.value, ast.Constant), path
