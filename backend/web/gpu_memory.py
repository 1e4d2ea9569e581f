"""Measure the GPU memory that this process uses."""

from __future__ import annotations

import torch


def gpu_memory_bytes() -> dict[str, dict[str, int]]:
    """Return memory by CUDA device that this process uses: allocated, reserved, free and total.

    The result is empty where torch has not begun to use CUDA; asking does not initialize CUDA.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    return {f"cuda:{i}": _memory(i) for i in range(torch.cuda.device_count()) if _is_used(i)}


def _is_used(device: int) -> bool:
    """Tell whether torch has taken memory there: `mem_get_info` would make an idle device busy."""
    return bool(torch.cuda.memory_allocated(device) or torch.cuda.memory_reserved(device))


def _memory(device: int) -> dict[str, int]:
    free, total = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "free": free,
        "total": total,
    }
