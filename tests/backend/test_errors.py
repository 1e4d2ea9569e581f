"""The tree of errors, as drawn in the module's docstring, is the tree of classes."""

from __future__ import annotations

import inspect
import re

from backend import errors


def _all_errors() -> dict[str, type[errors.BackendError]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: cls for name, cls in classes if issubclass(cls, errors.BackendError)}


def test_docstring_draws_every_error_with_its_status() -> None:
    drawn = re.findall(r"^[ │├└─]*(\w+) +(\d{3})\b", errors.__doc__ or "", re.M)
    assert {name: int(status) for name, status in drawn} == {
        name: cls.http_status for name, cls in _all_errors().items()
    }


def test_docstring_draws_the_parents() -> None:
    parents: list[tuple[int, str]] = []
    for indent, name in re.findall(r"^([ │├└─]*)(\w+) +\d{3}\b", errors.__doc__ or "", re.M):
        parents = [(width, parent) for width, parent in parents if width < len(indent)]
        if parents:
            assert _all_errors()[name].__base__ is _all_errors()[parents[-1][1]]
        parents.append((len(indent), name))


def test_only_our_own_fault_is_a_server_error() -> None:
    ours = {name for name, cls in _all_errors().items() if cls.http_status >= 500}
    assert ours == {"BackendError", "ModelUnavailable", "DatabaseAway"}
