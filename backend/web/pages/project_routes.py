"""The rule of routes below ``/projects/<id>``."""

from __future__ import annotations

from typing import Final

#: A part of a rule for a number from 1 on that a database can hold.
NUMBER: Final = "int(min=1, max=2147483647)"

#: The start of each rule of a project's pages; routes are given its number as `project`.
PROJECT: Final = f"/projects/<{NUMBER}:project>"
