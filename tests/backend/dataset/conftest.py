"""A folder for data sets of exported tasks."""

from pathlib import Path

import pytest

from tests.backend.dataset.drawn_tasks import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
