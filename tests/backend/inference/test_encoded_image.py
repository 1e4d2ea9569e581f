"""The stream of each thread, with stand-ins for CUDA's streams and events."""

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch

from backend.inference import encoded_image
from backend.inference.encoded_image import MOST_STREAMS, EncodedImage
from tests.backend.fakes.colour_segmenter import colour_engine, flag
from tests.backend.inference.scene import RED

DEVICE = torch.device("cuda:0")

#: The stream of each thread; by default that of the model.
current = threading.local()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Mock]:
    made: list[Mock] = []

    def make(device: torch.device) -> Mock:
        assert device == DEVICE
        made.append(Mock())
        return made[-1]

    @contextmanager
    def use(stream: Mock) -> Iterator[None]:
        current.stream = stream
        yield
        del current.stream

    monkeypatch.setattr(torch.cuda, "Stream", make)
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "current_stream", Mock())
    encoded_image._IDLE_STREAMS.clear()
    return made


def image() -> EncodedImage:
    """Features and scores that say they are on CUDA."""
    features: Any = Mock(cosines=SimpleNamespace(device=DEVICE))
    return EncodedImage.of(features, features)


def test_an_image_is_handed_over_with_the_end_of_its_scores(made: list[Mock]) -> None:
    default: Any = torch.cuda.current_stream()
    handed_over = image()
    assert handed_over.computed is default.record_event.return_value
    waits = call.wait_event(handed_over.computed)
    with handed_over.own_stream():
        assert [current.stream] == made
        assert made[0].method_calls == [waits]  # before anything is computed
    assert made[0].method_calls == [waits, call.synchronize()]
    assert not hasattr(current, "stream")
    assert default.method_calls == [call.record_event()]


def test_three_threads_have_a_stream_each_and_later_ones_take_these(made: list[Mock]) -> None:
    barrier, used = threading.Barrier(3), []

    def work(_: int) -> None:
        for _ in range(20):
            with image().own_stream():
                used.append(current.stream)
                barrier.wait(60)
                assert len({id(stream) for stream in used[-3:]}) == 3
                barrier.wait(60)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, range(3)))
    assert len(used) == 60
    held, may_end = threading.Semaphore(0), threading.Event()

    def hold() -> Mock:
        with image().own_stream():
            held.release()
            may_end.wait(60)
            stream: Mock = current.stream
            return stream

    with ThreadPoolExecutor(4) as threads:
        streams = [threads.submit(hold) for _ in range(4)]
        assert all(held.acquire(timeout=60) for _ in range(3))
        assert not held.acquire(timeout=0.2)  # the fourth waits for one of the three
        may_end.set()
        assert {stream.result(60) for stream in streams} == set(made)
    assert len(made) == 3


def test_an_image_is_held_until_its_stream_is_done_after_an_error_too(made: list[Mock]) -> None:
    alive = []

    def synchronize() -> None:
        gc.collect()
        alive.append(features() is not None)
        assert idle.qsize() == MOST_STREAMS

    stream, idle = Mock(synchronize=synchronize), encoded_image._IDLE_STREAMS[DEVICE]
    idle.put(stream)
    held = image()
    features = weakref.ref(held.features)
    block = held.own_stream()
    del held
    with pytest.raises(ZeroDivisionError), block:
        raise ZeroDivisionError
    assert alive == [True]
    del block
    gc.collect()
    assert features() is None
    with image().own_stream():
        assert current.stream is stream  # it was given back
    assert made == []


def test_on_a_cpu_there_is_none(made: list[Mock]) -> None:
    engine = colour_engine()
    encoded = engine.encode(engine.segmenter().prepare(flag("red")), RED)
    assert encoded.computed is None
    with encoded.own_stream():
        assert not hasattr(current, "stream")
    assert made == []
    engine.stop()
