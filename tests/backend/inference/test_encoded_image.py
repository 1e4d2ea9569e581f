"""The stream of each thread, with stand-ins for CUDA's streams and events."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from backend.inference import encoded_image
from backend.inference.encoded_image import EncodedImage
from tests.backend.fakes.colour_segmenter import colour_engine, flag
from tests.backend.inference.scene import RED

DEVICE = torch.device("cuda:0")


class Stream:
    """A stand-in for a CUDA stream that notes what happens on it."""

    made: ClassVar[list[Stream]] = []

    def __init__(self, device: torch.device | None = None) -> None:
        assert device == DEVICE
        self.log: list[Any] = []
        Stream.made.append(self)

    def record_event(self) -> Any:
        event = object()
        self.log.append(("record", event))
        return event

    def wait_event(self, event: Any) -> None:
        assert current.stream is self
        self.log.append(("wait", event))

    def synchronize(self) -> None:
        self.log.append("synchronize")


#: The stream of each thread.
current = threading.local()


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The default stream; further ones are made on demand."""

    @contextmanager
    def use(stream: Stream) -> Iterator[None]:
        current.stream = stream
        yield
        del current.stream

    default = Stream(DEVICE)
    monkeypatch.setattr(Stream, "made", [])
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: getattr(current, "stream", default)
    )
    encoded_image._IDLE_STREAMS.clear()
    return default


class Features:
    """Features and scores that say they are on CUDA."""

    cosines = SimpleNamespace(device=DEVICE)


def image() -> EncodedImage:
    features: Any = Features()
    return EncodedImage.of(features, features)


def test_an_image_is_handed_over_with_the_end_of_its_scores(default: Stream) -> None:
    made = image()
    assert default.log == [("record", made.computed)]
    with made.own_stream():
        own = current.stream
        assert own is not default
        assert own.log == [("wait", made.computed)]  # before anything is computed
    assert own.log == [("wait", made.computed), "synchronize"]
    assert not hasattr(current, "stream")
    assert default.log == [("record", made.computed)]


def test_threads_at_the_same_time_have_a_stream_each_and_later_ones_take_these(
    default: Stream,
) -> None:
    barrier, used = threading.Barrier(4), []

    def work(_: int) -> None:
        for _ in range(20):
            with image().own_stream():
                used.append(current.stream)
                barrier.wait(20)
                assert len({id(stream) for stream in used[-4:]}) == 4
                barrier.wait(20)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert len(Stream.made) == 4
    assert len(used) == 80
    with image().own_stream():
        assert current.stream in Stream.made
    assert len(Stream.made) == 4


def test_an_image_is_held_until_its_stream_is_done_after_an_error_too(
    default: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = []

    def synchronize(stream: Stream) -> None:
        gc.collect()
        alive.append(features() is not None)

    monkeypatch.setattr(Stream, "synchronize", synchronize)
    made = image()
    features = weakref.ref(made.features)
    block = made.own_stream()
    del made
    with pytest.raises(ZeroDivisionError), block:
        raise ZeroDivisionError
    assert alive == [True]
    del block
    gc.collect()
    assert features() is None
    with image().own_stream():
        assert current.stream is Stream.made[0]  # it was given back
    assert len(Stream.made) == 1


def test_on_a_cpu_there_is_none(default: Stream) -> None:
    engine = colour_engine()
    encoded = engine.encode(engine.segmenter().prepare(flag("red")), RED)
    assert encoded.computed is None
    with encoded.own_stream():
        assert not hasattr(current, "stream")
    assert not Stream.made
    assert not default.log
    engine.stop()
