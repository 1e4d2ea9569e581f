"""Fixtures of the tests of telemetry."""

from tests.backend.telemetry.logged import logged

__all__ = ["logged"]
