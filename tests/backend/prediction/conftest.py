"""Fixtures for prompts."""

import pytest

from tests.backend.prediction.annotator import Annotator


@pytest.fixture
def annotator() -> Annotator:
    return Annotator()
