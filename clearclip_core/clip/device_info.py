"""Facts about the device: its name, matrix instructions and peak memory."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import torch

if sys.platform != "win32":
    import resource

#: Flags of a CPU that decide how fast it multiplies, as Linux names them on x86 and Arm.
_MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU as far as the system names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Return the CPU's flags that decide how fast it multiplies; none outside Linux."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return tuple(flag for flag in _MATRIX_FLAGS if flag in flags)


def peak_memory_mb() -> float | None:
    """Return the peak memory of this process in MB; None on Windows."""
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_gpu_memory_mb(device: torch.device) -> float | None:
    """Return the peak memory of torch on a CUDA device in MB; None for other devices."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
