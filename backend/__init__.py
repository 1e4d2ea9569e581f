"""ClearCLIP as a Label Studio ML backend."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.web.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """Import `create_app`, and torch with it, on first use: see `backend.__main__`."""
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backend.web.app import create_app

    return create_app
