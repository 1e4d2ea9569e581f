"""The GPU memory that this process uses."""

from __future__ import annotations

import pytest
import torch

from backend.web.metrics import gpu_memory_bytes
from tests.backend.web.scraped import make_metrics, values


def test_memory_of_a_gpu_is_told_only_where_one_is_used() -> None:
    memory = gpu_memory_bytes()
    found = [name for name in values(make_metrics()) if name.startswith("clearclip_gpu")]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        assert len(found) == 4 * len(memory)
    else:
        assert (memory, found) == ({}, [])


def test_a_gpu_that_is_used_is_told_of_with_all_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as torch tells of them; this process uses the second."""
    used = {0: 0, 1: 300}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: used[index])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 2 * used[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (7000, 8000))
    found = values(make_metrics())
    assert {name: value for name, value in found.items() if name.startswith("clearclip_gpu")} == {
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=allocated}": 300,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=reserved}": 600,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=free}": 7000,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=total}": 8000,
    }
