"""ClearCLIP as a Label Studio ML backend."""

from backend.app import create_app

__all__ = ["create_app"]
