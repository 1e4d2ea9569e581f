"""What a second thread of the encoder costs: CPU time of one and of two, with waiting ones asleep.

The backend gives its encoder all CPUs, see `clearclip_core.thread_pools`. The speed of ViT-B/16
does not depend on its weights, so they are random.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.bench.conftest import Report

ENCODE = """
import json, sys, time
from clearclip_core import Segmenter, render_scene
from clearclip_core.thread_pools import set_pool_threads

name, threads, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
set_pool_threads(threads, 1)
segmenter = Segmenter.load(name, device="cpu")
images = [segmenter.prepare(render_scene(seed, size_hw=(384, 512)).image) for seed in range(count)]
segmenter.encode_batch(images[:1])  # the first is slow
rounds = []
for _ in range(5):
    cpu, wall = time.process_time(), time.perf_counter()
    for image in images:
        segmenter.encode_batch([image])
    rounds.append([time.process_time() - cpu, time.perf_counter() - wall])
print(json.dumps([1000 * min(times) / count for times in zip(*rounds)]))
"""


def encode_ms(model: str, threads: int, count: int) -> tuple[float, float]:
    """Return the least milliseconds of CPU and of the clock that a picture takes."""
    command = [sys.executable, "-c", ENCODE, model, str(threads), str(count)]
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
    cpu_ms, wall_ms = json.loads(subprocess.check_output(command, env=env, text=True))
    return cpu_ms, wall_ms


@pytest.mark.parametrize(("model", "count"), [("demo", 10), ("ViT-B-16/random", 3)])
def test_a_second_thread(report: Report, model: str, count: int) -> None:
    one, two = (encode_ms(model, threads, count) for threads in (1, 2))
    report.add(
        f"CPU time of a picture of 384 x 512 px on two encoder threads, {model}",
        "<= +15 %",
        f"{100 * (two[0] / one[0] - 1):+.0f} %",
        f"of {one[0]:.0f} ms on one thread; by the clock {one[1]:.0f} and {two[1]:.0f} ms",
    )
    assert two[0] <= 1.3 * one[0]
