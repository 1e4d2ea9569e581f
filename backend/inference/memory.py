"""Recognize errors of too little memory, and free what torch's allocators keep."""

from __future__ import annotations

import torch

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, of whatever release and on whatever device, ran out of memory.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"))
    True
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in message for sign in _OUT_OF_MEMORY)


def free_memory() -> None:
    """Return the unused memory of torch's allocators to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
