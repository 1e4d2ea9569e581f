"""Run a notebook's cells, and show it as a page of the docs."""

from __future__ import annotations

import ast
import base64
import json

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


class NotebookParser(MystParser):  # type: ignore[misc]
    """Parse a notebook as the page that `to_markdown` makes of it."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Run the notebook and parse its page; an error in a cell fails the build."""
        super().parse(to_markdown(inputstring), document)


def to_markdown(notebook: str) -> str:
    """Run the cells of a notebook in order, and return them with what they show.

    Args:
        notebook: content of an ``.ipynb`` file, in Python.

    >>> print(to_markdown('{"cells": [{"cell_type": "code", "source": ["1 + 1"]}]}'))
    ```{code-block} python
    1 + 1
    ```
    <BLANKLINE>
    ```text
    2
    ```
    """
    names: dict[str, object] = {}
    parts = []
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts.append(f"```{{code-block}} python\n{source}\n```")
            parts += _shown(_run(source, names))
    return "\n\n".join(parts)


def _run(source: str, names: dict[str, object]) -> object:
    """Run a cell, and return the value of its last line if that is an expression."""
    statements = ast.parse(source).body
    last = statements.pop() if statements and isinstance(statements[-1], ast.Expr) else None
    exec(compile(ast.Module(statements, []), "<cell>", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def _shown(value: object) -> list[str]:
    """Return what a notebook shows of a value: a picture where it has one."""
    if value is None:
        return []
    draw = getattr(value, "_repr_png_", None)
    png = None if draw is None else draw()
    if png is None:
        return [f"```text\n{value!r}\n```"]
    return [f"![what the cell shows](data:image/png;base64,{base64.b64encode(png).decode()})"]


def setup(app: Sphinx) -> None:
    """Let Sphinx read notebooks."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
