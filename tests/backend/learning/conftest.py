"""The stores of two backends that share a database."""

from __future__ import annotations

import pytest

from backend.database.database import Database
from tests.backend.fakes.learning_stores import LearningStores


@pytest.fixture
def learning(database: Database) -> LearningStores:
    return LearningStores.of(database, "me")


@pytest.fixture
def other(database: Database) -> LearningStores:
    return LearningStores.of(database, "other")
