"""Loading: who waits for it, and failures."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backend.errors import ModelUnavailable
from backend.inference.engine import Engine
from backend.inference.model_loader import ModelStatus
from tests.backend.fakes.colour_segmenter import ColourSegmenter
from tests.backend.fakes.waiting import wait_for


def test_whoever_comes_early_waits_for_the_load_or_the_end() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    stops, loads = Engine(load, lambda: "m"), Engine(load, lambda: "m")
    with ThreadPoolExecutor() as threads:
        for engine in (stops, loads):
            engine.start()
        waiting = [threads.submit(engine.segmenter) for engine in (stops, loads)]
        assert stops.status.state == loads.status.state == "loading"
        stops.stop()
        with pytest.raises(ModelUnavailable, match="shutting down"):
            waiting[0].result(20)
        may_load.set()
        segmenter: Any = waiting[1].result(20)
    assert (stops.status.state, loads.status.state) == ("failed", "ready")
    assert segmenter.embedded == [("grey",)]  # the first request does not pay for them


def test_a_failed_load_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def load() -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise FileNotFoundError("no weights: bring them")
        return ColourSegmenter()

    engine = Engine(load, lambda: "m", retry_after_s=0.2)
    engine.start()
    with pytest.raises(ModelUnavailable, match="no weights: bring them"):
        engine.segmenter()
    assert engine.status == ModelStatus("failed", "no weights: bring them")
    wait_for(lambda: engine.status.state == "ready")
    assert len(tries) == 3
    assert caplog.text.count("no weights: bring them") == 1
    engine.segmenter()


def test_an_error_after_the_weights_are_read_reaches_them_too() -> None:
    segmenter: Any = ColourSegmenter()
    segmenter.embed = lambda _: 1 / 0
    engine = Engine(lambda: segmenter, lambda: "m", retry_after_s=60)
    engine.start()
    wait_for(lambda: engine.status.state == "failed")
    with pytest.raises(ModelUnavailable, match="division by zero"):
        engine.segmenter()
    engine.stop()
