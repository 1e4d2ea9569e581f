"""Choose the device, the number format and the number of CPU threads; measure memory."""

import os
import platform
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Result = TypeVar("_Result")

_CPUINFO = Path("/proc/cpuinfo")


def choose_device(device: str) -> torch.device:
    """Resolve a device by name.

    Args:
        device: a name of torch such as ``cpu``, ``cuda:1`` or ``mps``; ``auto`` is CUDA where
            there is one, otherwise the CPU.

    Raises:
        ValueError: an unknown device, or one that this machine does not have.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        known = where.type in ("cpu", "cuda", "mps")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(
            f"Expected argument `device` to be auto, cpu, cuda or mps, but got {device!r}."
        )
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"Device {device!r} is not there: torch finds no Metal.")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Device {device!r} is not there: {torch.cuda.device_count()} CUDA devices found."
        )
    return where


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Resolve a precision by name.

    Args:
        precision: ``fp32``, ``fp16`` or ``bf16``; ``auto`` is fp16 on CUDA, bf16 on a CPU whose
            flags name bf16 arithmetic, and fp32 otherwise.
        device: where the model is to run.

    Raises:
        ValueError: an unknown precision, fp16 on a CPU, or bf16 on a GPU without bf16
            arithmetic.

    >>> choose_precision("fp32", torch.device("cpu"))
    torch.float32
    """
    if precision == "auto":
        return _fastest_precision(device)

    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in known:
        raise ValueError(
            f"Expected argument `precision` to be auto, {', '.join(known)}, but got {precision!r}."
        )
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("Precision fp16 needs a GPU; on a CPU take bf16, fp32 or auto.")
    if precision == "bf16" and device.type == "cuda" and not _card_has_bf16(device):
        card = torch.cuda.get_device_name(device)
        raise ValueError(f"Precision bf16 needs Ampere or later, but {card} is older: take fp16.")
    return known[precision]


def _fastest_precision(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def _card_has_bf16(device: torch.device) -> bool:
    """Whether the GPU has bf16 arithmetic.

    `torch.cuda.is_bf16_supported` checks the current device only, and accepts slow emulation.
    """
    return torch.cuda.get_device_capability(device)[0] >= 8


def cpu_has_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU's flags name bf16 arithmetic (AMX or AVX-512 on x86, BF16 on Arm)."""
    return any("bf16" in flag for flag in cpu_flags(cpuinfo))


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the CPUs that this process may use by its affinity and its container's quota.

    torch starts a thread for each CPU of the machine, even where a container may use only part of
    their time; then the threads wait for one another. A program passes this number to
    `set_pool_threads` when it starts; the library itself never does.

    Args:
        cgroup: folder of the mounted cgroup files, of version 2 (``cpu.max``) or 1.

    >>> usable_cpus() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return cpus if quota is None else max(1, min(cpus, int(quota + 0.5)))


def _cpu_quota(cgroup: Path) -> float | None:
    """Return the number of CPUs whose time a cgroup may use; None for no limit."""
    v2 = cgroup / "cpu.max"
    v1 = (cgroup / "cpu" / "cpu.cfs_quota_us", cgroup / "cpu" / "cpu.cfs_period_us")
    try:
        fields = v2.read_text().split() if v2.exists() else [path.read_text() for path in v1]
        quota_us, period_us = (float(field) for field in fields)
    except (OSError, ValueError):  # no cgroups, or "max"
        return None
    return quota_us / period_us if quota_us > 0 else None  # version 1 writes -1 for no limit


if sys.platform != "win32":
    import resource

#: Flags of a CPU that decide how fast it multiplies, as Linux names them on x86 and Arm.
_MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


def free_bytes(device: torch.device) -> int:
    """Return the bytes of a CUDA device that tensors could take now, unused ones of torch too."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags(cpuinfo: Path = _CPUINFO) -> tuple[str, ...]:
    """Return the CPU's flags that decide how fast it multiplies; none outside Linux."""
    flags = set((_cpuinfo("flags", cpuinfo) or _cpuinfo("Features", cpuinfo)).split())
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


def _cpuinfo(key: str, path: Path = _CPUINFO) -> str:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def measure_peak_bytes(compute: Callable[[], _Result]) -> tuple[_Result, int]:
    """Compute in this thread, and measure the memory that tensors take at most meanwhile.

    It counts what torch's operators return, on any device, until it is freed; not what an operator
    takes for itself while it runs, and nothing that was there before, such as weights.

    Returns:
        The result, and the bytes.

    >>> measure_peak_bytes(lambda: (torch.zeros(1000) + 1).sum().item())
    (1000.0, 8000)
    """
    with _LiveTensors() as live:
        return compute(), live.peak_bytes


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operators make, and subtracts those that are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = self._bytes = 0
        self._ours: set[int] = set()  # addresses of storages

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = operator(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(made):
            if storage._cdata not in self._ours | given:
                self._add(storage)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._ours.add(address)
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        weakref.finalize(storage, self._drop, address, size)

    def _drop(self, address: int, size: int) -> None:
        self._ours.discard(address)
        self._bytes -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    tensors = (each for each in tree_leaves(values) if isinstance(each, torch.Tensor))
    return [each.untyped_storage() for each in tensors]
