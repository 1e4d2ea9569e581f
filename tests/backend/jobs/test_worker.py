"""Queued jobs, run in the background against a stand-in for Label Studio's API."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from backend.cli.demo_servers import free_port, running
from backend.database.database import Database
from backend.jobs.job_store import JobStore
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.leases import end_leases
from tests.backend.fakes.local_server import LocalServer
from tests.backend.fakes.waiting import wait_for
from tests.backend.jobs.served_backend import Backend, picture


def test_a_backend_that_ends_gives_its_job_to_another(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    ends = make_backend()
    ends.segmenter.gate.clear()
    ends.worker.start()
    job = ends.store.start_job(7)
    assert ends.segmenter.started.acquire(timeout=20)
    threading.Timer(0.1, ends.segmenter.gate.set).start()
    ends.worker.stop()
    wait_for(lambda: ends.store.get_job(job.id).state == "queued")
    other = make_backend()
    other.worker.start()
    wait_for(lambda: ends.store.get_job(job.id).over)
    assert studio.stored() == dict.fromkeys(range(1, 41), 1)


def test_two_processes_share_a_postgresql_and_one_is_killed(
    postgres_url: Callable[[str], str], server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    studio.tasks |= {i: {"image": picture(i)} for i in range(41, 101)}
    url = postgres_url(f"shared-{tmp_path.name}"[:60])
    store = JobStore(Database(url))
    command = [sys.executable, "-m", "tests.e2e.slow_segmenter", "0.1", "serve", "--port"]
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    small = ["--model", "demo", "--short-side-px", "64", "--database-url", url]
    with ExitStack() as stack:
        processes = []
        for number in range(2):
            port = free_port(0)
            running_ = running(
                [*command, str(port), *reach, *small],
                variables={"OMP_WAIT_POLICY": "PASSIVE"},
                health=f"http://127.0.0.1:{port}/health",
                log=tmp_path / f"log-{number}",
                timeout_s=120,
            )
            processes.append(stack.enter_context(running_))
        job = store.start_job(7)
        wait_for(lambda: store.get_job(job.id).done > 0, within_s=120)
        owner = store.get_job(job.id).owner
        group = os.getpgid(int(owner.split(":")[1]))
        assert group in [process.pid for process in processes]
        os.killpg(group, signal.SIGKILL)
        end_leases(store.database, owner)
        wait_for(lambda: store.get_job(job.id).over, within_s=120)
    over = store.get_job(job.id)
    assert over.owner != owner
    assert (over.state, over.done, over.failed) == ("done", 100, 0)
    assert studio.stored() == dict.fromkeys(range(1, 101), 1)
    store.database.close()


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
