"""Threads of a process: torch's, OpenCV's, those of NumPy's BLAS, and such that read ahead.

Each library starts a thread for each CPU. Where several of them compute at once, the threads wait
for one another. NumPy's products here are small, and OpenBLAS's threads spin while they wait: they
take many times the processor time of the products, from whatever runs beside them.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import cv2
from threadpoolctl import ThreadpoolController

#: BLAS libraries whose threads are of one pool for all threads of the process.
_LIBRARIES = ("openblas", "blis", "flexiblas")

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


def read_ahead(
    read: Callable[[_Item], _Read], items: Iterable[_Item], threads: int = 1, ahead: int = 4
) -> Generator[_Read, None, None]:
    """Read items in threads, ahead of the one that is used; iterate in their order.

    >>> list(read_ahead(len, ["a", "bcd"]))
    [1, 3]
    """
    waiting: deque[Future[_Read]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep the BLAS of NumPy and SciPy at one thread; the former number comes back after.

    A BLAS has one number of threads for the whole process. So it may come back while another
    thread is still inside, which costs time and nothing else. torch's products keep their threads.
    """
    # scipy.linalg has a BLAS of its own.
    with _blas_pools("scipy.linalg" in sys.modules).limit(limits=1):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's operators to the thread that calls them, too; other threads' keep their number.

    For many small operators in a row: from 32,768 elements on each of them would wake threads that
    the encoder needs. A torch that was built without OpenMP keeps its threads.

    >>> import torch
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    import torch  # takes seconds, which a command that only shows its help does not need

    torch.get_num_threads()  # a thread that is new to torch sets its number the first time
    with one_blas_thread(), _openmp_pools().limit(limits=1):
        yield


def set_pool_threads(torch_threads: int, opencv_threads: int) -> None:
    """Set the threads of every pool of this process; those of NumPy's BLAS to one.

    For programs, when they start; the library itself never calls it.

    Args:
        torch_threads: threads of torch in one operator. The encoder is all that needs them.
        opencv_threads: threads of OpenCV in one function: 1 where pictures are worked on in
            several threads at once.
    """
    import torch

    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(opencv_threads)
    _blas_pools("scipy.linalg" in sys.modules).limit(limits=1)


def reserve_torch_threads() -> None:
    """Keep torch's threads for the calling thread: threads that use torch later get one each.

    OpenMP keeps a pool of threads for each thread that has ever used several. A program with many
    threads has the pools of all of them, and may be over its container's limit of tasks then.

    >>> import torch
    >>> reserve_torch_threads()
    >>> own = torch.get_num_threads()
    >>> with ThreadPoolExecutor(1) as pool:
    ...     pool.submit(torch.get_num_threads).result()
    1
    >>> torch.get_num_threads() == own
    True
    """
    import torch

    torch.get_num_threads()  # this thread takes its own number now, and keeps it
    other = threading.Thread(target=torch.set_num_threads, args=(1,), name="torch-threads")
    other.start()  # the number that is set is that of the thread which sets it, and of new ones
    other.join()


@lru_cache(maxsize=1)
def _openmp_pools() -> ThreadpoolController:
    """Return the pools of the OpenMP libraries that are loaded: torch's and its BLAS's.

    Each thread of the process has a number of its own.
    """
    return ThreadpoolController().select(user_api="openmp")


@lru_cache(maxsize=2)
def _blas_pools(with_scipy: bool) -> ThreadpoolController:
    """Return the pools of the BLAS libraries that are loaded, without the one in torch's wheels.

    Args:
        with_scipy: whether ``scipy.linalg`` is loaded. Finding the libraries takes milliseconds,
            so it is done once for each answer.
    """
    pools = ThreadpoolController()
    paths = [
        pool.filepath
        for pool in pools.lib_controllers
        if pool.internal_api in _LIBRARIES
        and not {"torch", "torch.libs"} & set(Path(pool.filepath).parts)
    ]
    return pools.select(filepath=paths)
