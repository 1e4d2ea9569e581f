"""One model for all: who waits for whom, and what one failure costs the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from backend.errors import Busy, ModelUnavailable
from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.inference.image_queue import MAX_SKIPS
from backend.inference.image_request import Priority
from backend.inference.memory import is_out_of_memory
from backend.inference.model_loader import ModelStatus
from backend.settings import Settings
from backend.telemetry.tracing import timed
from clearclip_core import SCENE_LABELS, Label, Segmenter, render_scene, usable_cpus
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CLICK, OPENED, BATCH = Priority.INTERACTIVE, Priority.OPENED, Priority.BATCH
RED = (Label("red"),)
NEW = (Label("crimson"),)  # not embedded yet
TWO_NEW = (Label("crimson"), Label("scarlet"))


def eventually(condition: Callable[[], Any], timeout_s: float = 20) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


class Scene:
    """An engine with the stand-in, and requests that come in a known order.

    A picture is known by its width. While the model is held, whatever is asked waits.
    """

    def __init__(self, words_known: bool = True, **options: Any) -> None:
        self.segmenter = ColourSegmenter(words_known=words_known)
        self.engine = colour_engine(self.segmenter, **options)
        self.segmenter.log.clear()
        self._threads = ThreadPoolExecutor(40)

    def ask(
        self,
        width: int,
        priority: Priority = OPENED,
        project: int = 1,
        labels: tuple[Label, ...] = RED,
    ) -> Future[Any]:
        """Ask in a thread of its own, while the model is held; returns once it is in the queue."""
        before = sum(self.engine.snapshot().waiting.values())
        future = self.start(width, priority, project, labels)
        assert eventually(lambda: sum(self.engine.snapshot().waiting.values()) > before)
        return future

    def start(self, *asked: Any) -> Future[Any]:
        return self._threads.submit(self.score, *asked)

    def score(
        self,
        width: int,
        priority: Priority = OPENED,
        project: int = 1,
        labels: tuple[Label, ...] = RED,
    ) -> Any:
        picture = self.segmenter.prepare(flag("red", size_hw=(2, width)))
        return self.engine.score(picture, labels, priority, project)

    def hold(self) -> None:
        """Keep the model busy with a picture 99 wide."""
        while self.segmenter.started.acquire(blocking=False):
            pass  # batches from before
        self.segmenter.gate.clear()
        self.ask(99, project=99)
        assert self.segmenter.started.acquire(timeout=20)

    def release(self) -> None:
        self.segmenter.gate.set()

    def served(self) -> list[tuple[Any, ...]]:
        """What the model did once it was released."""
        assert eventually(lambda: not sum(self.engine.snapshot().waiting.values()))
        return [what for _, what in self.segmenter.log if what != (99,)]


def widths(futures: list[Future[Any]]) -> list[int]:
    return [future.result(20).image.shape[1] for future in futures]


# Loading


def test_nothing_loads_before_start() -> None:
    loads: list[int] = []
    before = threading.active_count()
    engine = Engine(lambda: loads.append(1), lambda: "m")  # type: ignore[func-returns-value, arg-type]
    assert threading.active_count() == before
    assert loads == []
    assert engine.status == ModelStatus("loading")


def test_there_is_one_owner_however_often_it_is_started() -> None:
    loads: list[int] = []

    def load() -> Any:
        loads.append(1)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        engine.start()
        engine.segmenter()
        engine.start()
    assert loads == [1]
    with pytest.raises(ModelUnavailable, match="shutting down"):
        engine.segmenter()


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
    assert engine.status == ModelStatus("failed", "no weights: bring them")
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


def test_demo_weights_say_what_they_are_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = colour_engine(ColourSegmenter(notice="for drawn scenes only"))
    for _ in range(3):
        engine.segmenter()
    assert caplog.text.count("for drawn scenes only") == 1


# Order of service


def test_one_thread_and_one_batch_at_a_time() -> None:
    scene = Scene()
    running: list[int] = []
    threads = set()

    def look(*_: Any) -> None:
        threads.add(threading.current_thread().name)
        running.append(1)
        assert len(running) == 1
        time.sleep(0.01)
        running.pop()

    scene.segmenter.fault = look
    assert widths([scene.start(width) for width in range(1, 9)]) == list(range(1, 9))
    assert threads == {"model"}


def test_waiting_pictures_become_one_batch_up_to_its_size() -> None:
    scene = Scene()  # four windows at once
    scene.hold()
    asked = [scene.ask(width) for width in range(1, 7)]
    scene.release()
    assert widths(asked) == [1, 2, 3, 4, 5, 6]
    assert scene.served() == [(1, 2, 3, 4), (5, 6)]


def test_a_picture_that_comes_alone_waits_for_no_other() -> None:
    scene = Scene()
    assert [scene.score(width).image.shape[1] for width in (1, 2)] == [1, 2]
    assert scene.served() == [(1,), (2,)]


def test_a_batch_size_that_is_set_wins_over_the_segmenters() -> None:
    scene = Scene(windows_at_once=2)
    scene.hold()
    for width in (1, 2, 3):
        scene.ask(width)
    scene.release()
    assert scene.served() == [(1, 2), (3,)]


def test_clicks_come_first_then_opened_tasks_then_batches() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    for width, priority in ((1, BATCH), (2, OPENED), (3, CLICK), (4, BATCH), (5, CLICK)):
        scene.ask(width, priority)
    scene.release()
    assert scene.served() == [(3,), (5,), (2,), (1,), (4,)]


def test_projects_take_turns() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    for width, project in ((11, 1), (12, 1), (13, 1), (21, 2), (31, 3), (22, 2)):
        scene.ask(width, BATCH, project)
    scene.release()
    assert scene.served() == [(11,), (21,), (31,), (12,), (22,), (13,)]


def test_no_batch_starves_under_clicks_that_never_end() -> None:
    scene = Scene(windows_at_once=1, queue_size=MAX_SKIPS + 9)
    scene.hold()
    scene.ask(90, BATCH)
    for width in range(MAX_SKIPS + 4):
        scene.ask(width + 1, CLICK)
    scene.release()
    assert scene.served().index((90,)) == MAX_SKIPS


def test_a_click_during_a_batch_waits_for_the_running_pictures_only() -> None:
    scene = Scene()
    scene.hold()
    for width in range(1, 13):
        scene.ask(width, BATCH)
    scene.ask(50, CLICK)
    scene.release()
    assert scene.served()[0][0] == 50


# Joins and kept features


def test_the_same_picture_asked_twice_at_once_is_encoded_once() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    asked = [scene.ask(1, OPENED, 1), scene.ask(2), scene.ask(1, BATCH, 2, (Label("blue"),))]
    scene.release()
    assert widths(asked) == [1, 2, 1]
    assert [future.result().labels[0].name for future in asked] == ["red", "red", "blue"]
    assert scene.served() == [(1,), (2,)]


def test_a_picture_that_is_being_encoded_serves_those_who_ask_meanwhile() -> None:
    scene = Scene(cache=FeatureCache(1 << 20))
    scene.hold()
    twin = scene.ask(99, labels=(Label("blue"),))
    scene.release()
    twin.result(20)
    assert scene.segmenter.encoded == [(99,)]


def test_kept_features_are_not_computed_again_and_change_nothing() -> None:
    scene = Scene(cache=FeatureCache(1 << 20))
    first, second = scene.score(7), scene.score(7)
    assert scene.segmenter.encoded == [(7,)]
    assert (first.image == second.image).all()
    use = scene.engine.snapshot().cache
    assert (use.hits, use.misses, use.bytes) == (1, 1, 2 * 7 * 3 * 2)


def test_kept_features_survive_the_process(tmp_path: Any) -> None:
    settings = Settings(feature_disk_cache_mb=1, model_dir=tmp_path)
    Scene(cache=FeatureCache.from_settings(settings)).score(7)
    again = Scene(cache=FeatureCache.from_settings(settings))
    assert again.score(7).image.shape == (2, 7, 3)
    assert again.segmenter.encoded == []


def test_features_of_other_weights_are_not_used(tmp_path: Any) -> None:
    settings = Settings(feature_disk_cache_mb=1, model_dir=tmp_path)
    Scene(cache=FeatureCache.from_settings(settings)).score(7)
    other = ColourSegmenter()
    other.features_id = "other weights"
    engine = colour_engine(other, cache=FeatureCache.from_settings(settings))
    engine.score(other.prepare(flag("red", size_hw=(2, 7))), RED)
    assert other.encoded == [(7,)]


# What one failure costs


def test_a_crash_of_one_picture_costs_no_other_of_its_batch() -> None:
    scene = Scene()

    def crash_on_two(pictures: Any, _: int) -> None:
        if any(picture.resized.shape[1] == 2 for picture in pictures):
            raise ZeroDivisionError("two")

    scene.segmenter.fault = crash_on_two
    scene.hold()
    one, two, three = (scene.ask(width) for width in (1, 2, 3))
    scene.release()
    assert widths([one, three]) == [1, 3]
    with pytest.raises(ZeroDivisionError, match="two"):
        two.result(20)
    assert scene.served() == [(1, 2, 3), (1,), (2,), (3,)]
    snapshot = scene.engine.snapshot()
    assert (snapshot.done, snapshot.failed) == (3, 1)  # with the one that held the model
    assert scene.score(4).image.shape[1] == 4


def test_a_crash_while_scoring_stays_with_its_picture_too() -> None:
    scene = Scene()
    scene.hold()
    good, bad = scene.ask(1), scene.ask(2, labels=(Label("crash"),))
    scene.release()
    assert widths([good]) == [1]
    with pytest.raises(ZeroDivisionError):
        bad.result(20)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_halves_the_batch_for_good(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(windows_at_once=8)
    limits: list[int] = []

    def fits_two(pictures: Any, windows_at_once: int) -> None:
        limits.append(windows_at_once)
        if min(windows_at_once, len(pictures)) > 2:
            raise error

    scene.segmenter.fault = fits_two
    scene.hold()
    asked = [scene.ask(width) for width in range(1, 9)]
    scene.release()
    assert widths(asked) == list(range(1, 9))
    assert limits == [8, 8, 4, 2]  # the first one held the model
    assert scene.engine.snapshot().windows_at_once == 2
    assert caplog.text.count("from now on at most") == 2
    scene.hold()
    for width in (11, 12, 13):
        scene.ask(width)
    scene.release()
    assert scene.served()[-2:] == [(11, 12), (13,)]


def test_a_picture_that_never_fits_fails_alone() -> None:
    scene = Scene()

    def no_room_for_two(pictures: Any, _: int) -> None:
        if any(picture.resized.shape[1] == 2 for picture in pictures):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    scene.segmenter.fault = no_room_for_two
    scene.hold()
    asked = [scene.ask(width) for width in (1, 2, 3)]
    scene.release()
    assert widths([asked[0], asked[2]]) == [1, 3]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        asked[1].result(20)
    assert scene.engine.snapshot().windows_at_once == 1


def test_other_errors_are_not_taken_for_too_little_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


# The bound of the queue


def test_a_full_queue_is_said_at_once_to_clicks() -> None:
    scene = Scene(queue_size=1)
    scene.hold()
    scene.ask(1, CLICK)
    with pytest.raises(Busy):
        scene.score(2, CLICK)
    scene.ask(3, BATCH)  # others have room of their own
    scene.release()
    scene.served()
    assert scene.score(2, CLICK).image.shape[1] == 2


@pytest.mark.parametrize("priority", [BATCH, OPENED])
def test_others_wait_for_room_and_all_get_through(priority: Priority) -> None:
    scene = Scene(queue_size=2)
    scene.hold()
    asked = [scene.start(width, priority, width % 3) for width in range(1, 31)]
    assert eventually(lambda: scene.engine.snapshot().waiting[priority] == 2)
    scene.release()
    assert widths(asked) == list(range(1, 31))
    assert sum(map(len, scene.served())) == 30


# Words


def test_new_words_are_embedded_before_their_picture_is_scored() -> None:
    scene = Scene()
    assert scene.score(1, labels=TWO_NEW).image.shape[1] == 1
    assert scene.served() == [("crimson",), ("scarlet",), (1,)]
    scene.score(2, labels=TWO_NEW)
    assert scene.served()[3:] == [(2,)]


def test_a_larger_batch_takes_more_words_at_once() -> None:
    scene = Scene(windows_at_once=8)
    scene.score(1, labels=TWO_NEW)
    assert scene.served() == [("crimson", "scarlet"), (1,)]


def test_a_new_vocabulary_delays_others_by_one_slice_at_a_time() -> None:
    scene = Scene(windows_at_once=1)
    vocabulary = tuple(Label(f"word {number}") for number in range(100))
    scene.hold()
    slow = scene.ask(1, labels=vocabulary)
    for width in (2, 3, 4):
        scene.ask(width, BATCH, project=2)
    scene.release()
    assert scene.served()[:6] == [("word 0",), (2,), ("word 1",), (3,), ("word 2",), (4,)]
    assert slow.result(20).image.shape[1] == 1


def test_words_of_a_click_come_before_less_urgent_pictures() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    for width in (1, 2, 3):
        scene.ask(width, BATCH)
    scene.ask(50, CLICK, labels=NEW)
    scene.release()
    assert scene.served() == [("crimson",), (50,), (1,), (2,), (3,)]


def test_vocabularies_take_turns_and_the_urgent_go_first() -> None:
    scene = Scene(windows_at_once=1)

    def words(name: str) -> tuple[Label, ...]:
        return Label(f"{name}1"), Label(f"{name}2")

    scene.hold()
    for width, priority, name in ((1, BATCH, "a"), (2, BATCH, "b"), (3, CLICK, "c")):
        scene.ask(width, priority, labels=words(name))
    scene.release()
    assert scene.served() == [
        *[("c1",), ("c2",), (3,)],
        *[("a1",), ("b1",), ("a2",), (1,), ("b2",), (2,)],
    ]


def test_setup_words_come_when_there_is_nothing_else_to_do() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    scene.engine.warm_up(TWO_NEW)
    scene.engine.warm_up(TWO_NEW)
    for width in (1, 2):
        scene.ask(width, BATCH)
    assert scene.engine.snapshot().vocabularies == 1
    scene.release()
    assert eventually(lambda: not scene.engine.snapshot().vocabularies)
    assert scene.served() == [(1,), (2,), ("crimson",), ("scarlet",)]


def test_setup_words_that_a_picture_needs_go_with_it_and_lose_no_progress() -> None:
    scene = Scene(windows_at_once=1)
    first_word, go_on = threading.Event(), threading.Event()

    def pause(prompts: Any) -> None:
        first_word.set()
        assert go_on.wait(20)

    scene.segmenter.embed.fault = pause
    scene.engine.warm_up(TWO_NEW)
    assert first_word.wait(20)
    scene.ask(1, BATCH, project=2)
    scene.ask(2, CLICK, labels=TWO_NEW)
    go_on.set()
    assert scene.served() == [("crimson",), ("scarlet",), (2,), (1,)]


def test_priming_never_waits_not_even_for_the_load() -> None:
    may_load = threading.Event()
    segmenter: Any = ColourSegmenter()

    def load() -> Any:
        assert may_load.wait(20)
        return segmenter

    engine = Engine(load, lambda: "m", queue_size=3)
    for number in range(9):
        engine.warm_up((Label(f"word {number}"),))
    engine.start()
    assert engine.snapshot().vocabularies == 3
    may_load.set()
    assert eventually(lambda: not engine.snapshot().vocabularies)
    assert segmenter.embedded == [("grey",), ("word 0",), ("word 1",), ("word 2",)]


def test_words_that_crash_cost_their_own_pictures_only() -> None:
    scene = Scene(windows_at_once=1)

    def crash(prompts: Any) -> None:
        if "crimson" in prompts:
            raise ZeroDivisionError("words")

    scene.segmenter.embed.fault = crash
    scene.hold()
    bad, good = scene.ask(1, labels=NEW), scene.ask(2, labels=(Label("navy"),))
    scene.release()
    with pytest.raises(ZeroDivisionError, match="words"):
        bad.result(20)
    assert widths([good]) == [2]
    assert scene.engine.snapshot().vocabularies == 0


def test_too_little_memory_for_several_words_takes_them_one_by_one() -> None:
    scene = Scene(windows_at_once=8)

    def one_fits(prompts: Any) -> None:
        if len(prompts) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    scene.segmenter.embed.fault = one_fits
    scene.score(1, labels=TWO_NEW)
    assert scene.served() == [("crimson", "scarlet"), ("crimson",), ("scarlet",), (1,)]


# The real model


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_the_engine_segments_as_the_library_does_with_kept_features_too(
    tmp_path: Any, device: str
) -> None:
    segmenter = Segmenter.load("demo", device=device)
    labels = tuple(Label(name) for name in SCENE_LABELS[:6])
    scenes = [render_scene(seed=seed, size_hw=(120, 100 + 40 * seed)).image for seed in range(4)]
    settings = Settings(feature_disk_cache_mb=9, model_dir=tmp_path)
    for batches in (None, 0):  # fresh, and from the disk
        engine = Engine(lambda: segmenter, lambda: "m", cache=FeatureCache.from_settings(settings))
        engine.start()
        engine.segmenter()
        with ThreadPoolExecutor() as threads:
            scores = [threads.submit(engine.score, segmenter.prepare(i), labels) for i in scenes]
        for image, future in zip(scenes, scores, strict=True):
            expected = segmenter.segment(image, labels, contrast=True).label_map
            got = segmenter.decide(future.result()).label_map
            assert np.mean(got == expected) >= 0.999
        assert batches is None or engine.snapshot().batches == batches
        engine.stop()


# The end


def test_stopping_tells_all_who_wait() -> None:
    scene = Scene(queue_size=2)
    scene.hold()
    waiting = [scene.ask(1), scene.ask(2, BATCH), scene.ask(3, BATCH)]
    waiting += [scene.start(4, BATCH), scene.ask(5, CLICK, labels=NEW)]
    scene.engine.stop()
    for future in waiting:
        with pytest.raises(ModelUnavailable, match="shutting down"):
            future.result(20)
    with pytest.raises(ModelUnavailable, match="shutting down"):
        scene.score(6)
    scene.engine.warm_up(NEW)
    scene.release()
    assert eventually(lambda: scene.engine.snapshot().done == 1)  # what was running is handed out


def test_stopping_while_it_loads_tells_those_who_wait() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    engine = Engine(load, lambda: "m")
    engine.start()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(engine.segmenter)
        engine.stop()
        with pytest.raises(ModelUnavailable, match="shutting down"):
            waiting.result(20)
    may_load.set()
    assert engine.status.state == "failed"


def test_the_snapshot_counts() -> None:
    scene = Scene()
    scene.hold()
    scene.ask(1, BATCH)
    scene.ask(2, CLICK)
    snapshot = scene.engine.snapshot()
    assert snapshot.waiting == {CLICK: 1, OPENED: 1, BATCH: 1}
    assert snapshot.waiting_by_project == {(OPENED, 99): 1, (BATCH, 1): 1, (CLICK, 1): 1}
    assert (snapshot.device, snapshot.precision) == ("cpu", "float32")
    scene.release()
    scene.served()
    snapshot = scene.engine.snapshot()
    assert snapshot.waiting == {CLICK: 0, OPENED: 0, BATCH: 0}
    assert snapshot.waiting_by_project == {}
    assert (snapshot.done, snapshot.failed) == (3, 0)
    assert (snapshot.batches, snapshot.windows, snapshot.windows_at_once) == (2, 3, 4)
    assert snapshot.status == ModelStatus("ready")
    assert (snapshot.words_known, snapshot.words_new) == (3, 0)


def test_a_picture_that_waits_for_its_words_is_counted_once() -> None:
    scene = Scene()
    scene.hold()
    pictures = [scene.ask(1, labels=NEW), scene.ask(2, labels=NEW), scene.ask(3)]
    scene.release()
    widths(pictures)
    snapshot = scene.engine.snapshot()
    assert (snapshot.words_known, snapshot.words_new) == (2, 2)


def test_waiting_and_the_model_are_stages_of_their_own() -> None:
    scene = Scene()
    scene.hold()
    seen: list[Any] = []

    def ask() -> Any:
        with timed() as stages:
            seen.append(stages)
            return scene.score(1)

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask)
        assert eventually(lambda: seen and seen[0].now == "wait")
        scene.segmenter.gate.set()
        assert scene.segmenter.started.acquire(timeout=20)  # its own batch
        asked.result(20)
    assert {"wait", "model"} <= set(seen[0].seconds)


# Settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "ViT-B-16/random"}, "never served"),
        ({"model": "ViT-B-16/opanai"}, "open_clip knows: openai"),
        ({"model": "RN50/openai"}, "native Vision Transformer"),
        ({"method": "clearclp"}, "clearclip"),
        ({"feature_cache_mb": 1 << 40}, "FEATURE_CACHE_MB: expected at most the memory"),
    ],
)
def test_what_can_never_be_served_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Engine.from_settings(Settings(**given))  # type: ignore[arg-type]


def test_settings_reach_the_segmenter(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    asked: list[Any] = []
    segmenter: Any = ColourSegmenter()
    segmenter.encode = lambda image: asked.append(image.shape)

    def load(name: str, **options: Any) -> Any:
        asked.append((name, options))
        return segmenter

    monkeypatch.setattr(Segmenter, "load", load)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    settings = Settings(model="demo", precision="fp32", compile=True, model_dir=tmp_path)
    with Engine.from_settings(settings) as engine:
        engine.segmenter()
    assert asked == [
        (
            "demo",
            {
                "method": "clearclip",
                "device": "auto",
                "precision": "fp32",
                "short_side_px": 448,
                "folder": tmp_path,
                "compile": True,
            },
        ),
        (448, 448, 3),  # compiled before anybody waits for it
    ]
    assert threads == [usable_cpus()]


def test_a_missing_file_may_come_later(tmp_path: Any) -> None:
    engine = Engine.from_settings(Settings(model=f"ViT-B-16@{tmp_path}/none.safetensors"))
    with pytest.raises(ModelUnavailable, match=r"none\.safetensors"):
        _ = engine.model_id


# Prompts


def test_a_look_has_features_and_scores() -> None:
    engine = colour_engine()
    picture = ColourSegmenter().prepare(flag("red", size_hw=(2, 3)))
    look = engine.encode(picture, RED, CLICK)
    assert look.features.plan == picture.plan
    assert look.features.patches[0, 0, 0].tolist() == [255, 0, 0]
    assert look.scores.vocabulary.labels == RED


@pytest.mark.parametrize("disk_mb", [0, 8])
def test_class_weights_outlive_the_encoder(tmp_path: Any, disk_mb: int) -> None:
    """CLIP Surgery's CLS features go with the patches: through the cache, and through the disk."""
    segmenter = Segmenter.load("demo", "clipsurgery", device="cpu", precision="fp32")
    picture = segmenter.prepare(render_scene(4, size_hw=(200, 700)).image)
    labels = tuple(map(Label, SCENE_LABELS))
    settings = Settings(feature_disk_cache_mb=disk_mb, model_dir=tmp_path)
    expected = segmenter.score(*segmenter.encode_batch([picture]), labels, contrast=True).cosines
    cache = FeatureCache.from_settings(settings)
    for turn in range(2):
        if turn and disk_mb:
            cache = FeatureCache.from_settings(settings)  # another process
        with Engine(lambda: segmenter, lambda: "m", cache=cache) as engine:
            found = engine.score(picture, labels).cosines
            assert engine.snapshot().batches == (0 if turn else 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


def test_words_that_are_known_are_given_at_once() -> None:
    scene = Scene()
    scene.hold()
    rows = scene.engine.embed((Label("red"), Label("sky", ("blue", "red"))))
    assert rows.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    scene.release()
    assert scene.served() == []


def test_words_of_an_annotator_come_before_pictures_and_their_words() -> None:
    scene = Scene(words_known=False)
    scene.segmenter.embed.known.update(["red"])
    scene.hold()
    scene.ask(3, BATCH, labels=TWO_NEW)
    scene.ask(4, BATCH)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(scene.engine.embed, (Label("navy"),))
        assert eventually(lambda: scene.engine.snapshot().vocabularies == 1)
        scene.release()
        assert asked.result(20).tolist() == [[0, 0, 1]]
    assert scene.served()[0] == ("navy",)


def test_words_that_cannot_be_embedded_fail_who_asked() -> None:
    segmenter = ColourSegmenter(words_known=False)
    engine = colour_engine(segmenter)

    def fault(prompts: Any) -> None:
        raise ZeroDivisionError("no such word")

    segmenter.embed.fault = fault
    with pytest.raises(ZeroDivisionError):
        engine.embed(RED)
    segmenter.embed.fault = lambda _: None
    assert engine.embed(RED).tolist() == [[1, 0, 0]]


def test_words_of_an_engine_that_stops_are_given_up() -> None:
    scene = Scene(words_known=False)
    scene.segmenter.embed.known.update(["red"])
    scene.hold()
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(scene.engine.embed, NEW)
        assert eventually(lambda: scene.engine.snapshot().vocabularies == 1)
        scene.engine.stop()
        with pytest.raises(ModelUnavailable, match="shutting down"):
            asked.result(20)
    scene.release()
