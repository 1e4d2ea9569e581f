"""Configure Sphinx; `make docs` builds the pages into ``site/`` with warnings as errors."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

_MARKUP = re.compile(r"\*|(?<=\w)_(?!\w)")
_PATH = re.compile(r"\w*Path\((.*?)\)")

project = "ClearCLIP for Label Studio"
author = "the ClearCLIP for Label Studio authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "docs.notebooks",
]

root_doc = "index"

html_theme = "furo"
html_title = project
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]

myst_heading_anchors = 4

smartquotes = False  # what is copied from a page works
default_role = "code"  # docstrings name things in single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes, ranges and units stand in the docstrings
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, not objects of their own
napoleon_numpy_docstring = False
# The docstrings name types of torch and numpy, whose pages are not reached without network.
nitpick_ignore_regex = [("py:.*", ".*")]


def setup(app: Sphinx) -> None:
    """Show the help of a command as its own text, and a default path as a path."""

    def escape(app: Sphinx, context: object, lines: list[str]) -> None:
        lines[:] = [_PATH.sub(r"\1", _MARKUP.sub(r"\\\g<0>", line)) for line in lines]

    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", escape)
