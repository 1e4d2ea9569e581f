"""Threads of BLAS, OpenCV and torch, as threadpoolctl and the libraries themselves tell them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import scipy.linalg  # noqa: F401 -- loads a BLAS beside that of NumPy
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from clearclip_core.thread_pools import one_blas_thread, one_thread


def blas_threads() -> set[int]:
    pools = threadpool_info()
    return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        yield


def test_every_blas_has_one_thread_inside_and_its_own_number_after() -> None:
    before = blas_threads()
    assert 2 in before
    with one_blas_thread():
        assert blas_threads() == {1}
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_torch_has_one_thread_inside_and_elsewhere_as_many_as_before() -> None:
    seen: list[int] = []

    def look(inside: bool) -> None:
        with one_thread() if inside else nullcontext():
            seen.append(torch.get_num_threads())
            if inside:
                look_elsewhere(inside=False)
        seen.append(torch.get_num_threads())

    def look_elsewhere(inside: bool) -> None:
        other = threading.Thread(target=look, args=(inside,))
        other.start()
        other.join()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        look_elsewhere(inside=True)
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2, 2, 2]


RESERVED = """
import os, threading, torch
from clearclip_core.thread_pools import reserve_torch_threads, set_pool_threads

set_pool_threads(8, 1)
reserve_torch_threads()
numbers = torch.ones(1 << 20)
computed, over = threading.Barrier(11), threading.Event()

def compute():
    numbers.exp().sum()
    computed.wait()
    over.wait()

before = len(os.listdir("/proc/self/task"))
threads = [threading.Thread(target=compute) for _ in range(10)]
for thread in threads:
    thread.start()
computed.wait()
print(len(os.listdir("/proc/self/task")) - before, torch.get_num_threads())
over.set()
"""


def test_threads_that_compute_start_no_others() -> None:
    made = subprocess.run([sys.executable, "-c", RESERVED], capture_output=True, text=True)
    assert made.stdout == "10 8\n", made.stderr


SET = """
import cv2, numpy, torch
from threadpoolctl import threadpool_info
from clearclip_core.thread_pools import set_pool_threads

set_pool_threads(3, 2)
blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
print(torch.get_num_threads(), cv2.getNumThreads(), blas)
"""


def test_a_program_sets_all_pools() -> None:
    command = [sys.executable, "-c", SET]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == "3 2 {1}\n"


#: One thread looks for pools, as a model that loads does; another loads a library, as imports do.
LOADED_BESIDE = """
import threading
from _ctypes import dlclose, dlopen
from importlib.util import find_spec

from clearclip_core import thread_pools

path = find_spec("PIL._imagingmath").origin
over = threading.Event()

def load_libraries():
    while not over.is_set():
        dlclose(dlopen(path, 1))

threading.Thread(target=load_libraries, daemon=True).start()
for _ in range(20):
    thread_pools._blas_pools.cache_clear()
    thread_pools._blas_pools(False)
over.set()
print("found")
"""


def test_pools_are_found_while_another_thread_imports() -> None:
    command = [sys.executable, "-c", LOADED_BESIDE]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout == "found\n"
