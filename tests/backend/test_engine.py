from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from backend.engine import Engine, Status
from backend.errors import ModelUnavailable
from backend.settings import Settings
from clearclip_core import Label
from tests.backend.colours import ColourSegmenter, colour_engine, flag


def eventually(condition: Any, timeout_s: float = 10) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_nothing_loads_before_start() -> None:
    loads: list[int] = []
    engine = Engine(lambda: loads.append(1), lambda: "m")  # type: ignore[func-returns-value, arg-type]
    time.sleep(0.05)
    assert loads == []
    assert engine.status == Status("loading")


def test_whoever_comes_early_waits_for_the_load() -> None:
    may_load = threading.Event()
    segmenter: Any = ColourSegmenter()

    def load() -> Any:
        assert may_load.wait(10)
        return segmenter

    engine = Engine(load, lambda: "m")
    engine.start()
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(engine.segmenter()))
    waiting.start()
    assert engine.status.state == "loading"
    assert got == []
    may_load.set()
    waiting.join(10)
    assert got == [segmenter]
    assert engine.status.state == "ready"
    assert segmenter.embedded == [("grey",)]  # the first request does not pay for them


def test_a_failed_load_is_said_at_once_and_tried_again() -> None:
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
    assert engine.status == Status("failed", "no weights: bring them")
    assert eventually(lambda: engine.status.state == "ready")
    assert len(tries) == 3
    engine.segmenter()


def test_any_error_of_a_load_reaches_those_who_wait() -> None:
    class OddError(Exception):
        pass

    def load() -> Any:
        raise OddError

    engine = Engine(load, lambda: "m", retry_after_s=60)
    engine.start()
    with pytest.raises(ModelUnavailable, match="OddError"):
        engine.segmenter()
    engine.stop()


def test_an_error_after_the_weights_are_read_reaches_them_too() -> None:
    segmenter: Any = ColourSegmenter()
    segmenter.embed = lambda _: 1 / 0
    engine = Engine(lambda: segmenter, lambda: "m", retry_after_s=60)
    engine.start()
    assert eventually(lambda: engine.status.state == "failed")
    with pytest.raises(ModelUnavailable, match="division by zero"):
        engine.segmenter()
    engine.stop()


def test_one_picture_at_a_time() -> None:
    segmenter = ColourSegmenter()
    engine = colour_engine(segmenter)
    segmenter.gate.clear()
    threads = [
        threading.Thread(target=engine.segment, args=(flag("red"), (Label("red"),)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    segmenter.gate.set()
    for thread in threads:
        thread.join(10)
    assert segmenter.most_at_once == 1


def test_demo_weights_say_what_they_are_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = colour_engine(ColourSegmenter(notice="for drawn scenes only"))
    for _ in range(3):
        engine.segment(flag("red"), (Label("red"),))
    assert caplog.text.count("for drawn scenes only") == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "ViT-B-16/random"}, "never served"),
        ({"model": "ViT-B-16/opanai"}, "open_clip knows: openai"),
        ({"model": "RN50/openai"}, "native Vision Transformer"),
        ({"method": "clearclp"}, "clearclip"),
    ],
)
def test_what_can_never_be_served_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Engine.from_settings(Settings(**given))  # type: ignore[arg-type]


def test_a_missing_file_may_come_later(tmp_path: Any) -> None:
    engine = Engine.from_settings(Settings(model=f"ViT-B-16@{tmp_path}/none.safetensors"))
    with pytest.raises(ModelUnavailable, match=r"none\.safetensors"):
        _ = engine.model_id
