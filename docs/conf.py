"""Configure Sphinx; `make docs` builds the pages into ``site/`` with warnings as errors."""

project = "ClearCLIP for Label Studio"
author = "the ClearCLIP for Label Studio authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "index"

html_theme = "furo"
html_title = project
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]

myst_heading_anchors = 4

default_role = "code"  # docstrings name things in single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes, ranges and units stand in the docstrings
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, not objects of their own
napoleon_numpy_docstring = False
# The docstrings name types of torch and numpy, whose pages are not reached without network.
nitpick_ignore_regex = [("py:.*", ".*")]
