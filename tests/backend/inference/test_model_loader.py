"""Loading: who waits for it, and failures."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from backend.errors import ModelUnavailable
from backend.inference.engine import Engine
from backend.inference.model_loader import ModelStatus
from tests.backend.fakes.colour_segmenter import ColourSegmenter
from tests.backend.inference.scene import (
    eventually,
)


def test_nothing_loads_before_start() -> None:
    loads: list[int] = []
    before = threading.active_count()
    engine = Engine(lambda: loads.append(1), lambda: "m")  # type: ignore[func-returns-value, arg-type]
    assert threading.active_count() == before
    assert loads == []
    assert engine.status == ModelStatus("loading")


def test_whoever_comes_early_waits_for_the_load() -> None:
    may_load = threading.Event()
    segmenter: Any = ColourSegmenter()

    def load() -> Any:
        assert may_load.wait(20)
        return segmenter

    engine = Engine(load, lambda: "m")
    engine.start()
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(engine.segmenter()))
    waiting.start()
    assert engine.status.state == "loading"
    assert got == []
    may_load.set()
    waiting.join(20)
    assert got == [segmenter]
    assert engine.status.state == "ready"
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
    assert eventually(lambda: engine.status.state == "ready")
    assert len(tries) == 3
    assert caplog.text.count("no weights: bring them") == 1
    engine.segmenter()


def test_an_error_after_the_weights_are_read_reaches_them_too() -> None:
    segmenter: Any = ColourSegmenter()
    segmenter.embed = lambda _: 1 / 0
    engine = Engine(lambda: segmenter, lambda: "m", retry_after_s=60)
    engine.start()
    assert eventually(lambda: engine.status.state == "failed")
    with pytest.raises(ModelUnavailable, match="division by zero"):
        engine.segmenter()
    engine.stop()
