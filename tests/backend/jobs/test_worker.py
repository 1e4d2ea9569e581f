"""The background threads of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.jobs.job_store import JobStore
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.jobs.served_backend import Backend, wait_for


def test_a_round_that_crashes_is_told_and_the_next_one_works(
    make_backend: Callable[..., Backend],
    studio: FakeStudio,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = make_backend()
    crashes = [ZeroDivisionError("a secret")]
    lease = JobStore.lease_job

    def crash(*arguments: Any, **named: Any) -> Any:
        if crashes:
            raise crashes.pop()
        return lease(*arguments, **named)

    monkeypatch.setattr(JobStore, "lease_job", crash)
    backend.worker.start()
    job = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(job.id).over)
    assert "The background has failed" in caplog.text
