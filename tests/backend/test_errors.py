"""The errors."""

from __future__ import annotations

import inspect

from backend import errors


def _all_errors() -> dict[str, type[errors.BackendError]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: cls for name, cls in classes if issubclass(cls, errors.BackendError)}


def test_only_our_own_fault_is_a_server_error() -> None:
    ours = {name for name, cls in _all_errors().items() if cls.http_status >= 500}
    assert ours == {"BackendError", "ModelUnavailable", "DatabaseAway"}
