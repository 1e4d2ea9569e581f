"""Fixtures for prompts."""

from __future__ import annotations

import pytest

from tests.backend.prediction.annotator import Annotator


@pytest.fixture
def annotator() -> Annotator:
    return Annotator()
