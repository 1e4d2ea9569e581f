"""The stores of two backends that share a database."""

from __future__ import annotations

import pytest

from backend.jobs.job_store import JobStore
from tests.backend.fakes.learning_stores import LearningStores


@pytest.fixture
def learning(store: JobStore) -> LearningStores:
    return LearningStores.of(store, "me")


@pytest.fixture
def other(store: JobStore) -> LearningStores:
    return LearningStores.of(store, "other")
