"""A folder for data sets, and projects of exported tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backend.dataset.exported_tasks import Bench, annotation, picture_bytes, task


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def one_task(bench: Bench) -> Callable[..., Bench]:
    """A project of one task with these regions."""

    def make(*regions: dict[str, Any]) -> Bench:
        bench.tasks = [task(1, bench.add("a.png", picture_bytes(1)), [annotation(1, [*regions])])]
        return bench

    return make
