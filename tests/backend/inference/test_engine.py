"""One model for all: who waits for whom, and what one failure costs the others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.errors import Busy, ModelUnavailable
from backend.inference import queue
from backend.inference.engine import Engine, ModelStatus, load_segmenter
from backend.inference.feature_cache import FeatureCache
from backend.inference.queue import Priority
from backend.settings import Settings
from clearclip_core import SCENE_LABELS, Label, Segmenter, render_scene
from clearclip_core.devices import usable_cpus
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag
from tests.backend.fakes.waiting import wait_for
from tests.backend.inference.scene import BATCH, CLICK, NEW, OPENED, RED, Scene, widths
from tests.core.clip.test_second_encoder import file_of

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


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


def test_clicks_come_first_then_opened_tasks_then_batches_of_projects_in_turn() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    scene.ask(11, BATCH, 1)
    scene.ask(12, BATCH, 1)
    scene.ask(2, OPENED)
    scene.ask(3, CLICK)
    for width, project in ((13, 1), (21, 2), (31, 3), (22, 2)):
        scene.ask(width, BATCH, project)
    scene.ask(5, CLICK)
    scene.release()
    order = [3, 5, 2, 11, 21, 31, 12, 22, 13]
    assert scene.served() == [(width,) for width in order]


# The bound of the queue


def test_a_full_queue_is_said_at_once_to_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "CAPACITY", 1)
    scene = Scene()
    scene.hold()
    scene.ask(1, CLICK)
    with pytest.raises(Busy):
        scene.score(2, CLICK)
    scene.ask(3, BATCH)  # others have room of their own
    scene.release()
    scene.served()
    assert scene.score(2, CLICK).image.shape[1] == 2


@pytest.mark.parametrize("priority", [BATCH, OPENED])
def test_others_wait_and_get_through(priority: Priority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "CAPACITY", 2)
    scene = Scene()
    scene.hold()
    asked = [scene.start(width, priority, width % 3) for width in range(1, 31)]
    wait_for(lambda: scene.engine.snapshot().waiting[priority] == 2)
    scene.release()
    assert widths(asked) == list(range(1, 31))
    assert sum(map(len, scene.served())) == 30


# Joins and kept features


def test_the_same_picture_asked_twice_at_once_is_encoded_once() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    asked = [scene.ask(1, OPENED, 1), scene.ask(2), scene.ask(1, BATCH, 2, (Label("blue"),))]
    scene.release()
    assert widths(asked) == [1, 2, 1]
    assert [future.result().labels[0].name for future in asked] == ["red", "red", "blue"]
    assert scene.served() == [(1,), (2,)]


def test_kept_features_are_not_computed_again_but_for_another_method() -> None:
    cache = FeatureCache(1 << 20)
    scene = Scene(cache=cache)
    first, second = scene.score(7), scene.score(7)
    assert scene.segmenter.encoded == [(7,)]
    assert (first.image == second.image).all()
    use = scene.engine.snapshot().cache
    assert (use.hits, use.misses, use.bytes) == (1, 1, 2 * 7 * 3 * 2)
    other = ColourSegmenter()
    other.features_id = "another method"
    engine = colour_engine(other, cache=cache)
    engine.encode(other.prepare(flag("red", size_hw=(2, 7))), RED)
    assert other.encoded == [(7,)]


# The real model


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_the_engine_segments_as_the_library_does_with_kept_features_too(device: str) -> None:
    segmenter = Segmenter.load("demo", device=device)
    labels = tuple(Label(name) for name in SCENE_LABELS[:6])
    scenes = [render_scene(seed=seed, size_hw=(120, 100 + 40 * seed)).image for seed in range(4)]
    cache = FeatureCache(9 << 20)
    for batches in (None, 0):  # fresh, and kept
        engine = Engine(lambda: segmenter, lambda: "m", cache=cache)
        engine.start()
        engine.segmenter()
        with ThreadPoolExecutor() as threads:
            encoded = [threads.submit(engine.encode, segmenter.prepare(i), labels) for i in scenes]
        for image, future in zip(scenes, encoded, strict=True):
            expected = segmenter.segment(image, labels, contrast=True).label_map
            with future.result().own_stream():
                got = segmenter.decide(future.result().scores).label_map
            assert np.mean(got == expected) >= 0.999
        assert batches is None or engine.snapshot().batches == batches
        engine.stop()


# Loading


def test_whoever_comes_early_waits_for_the_load_or_the_end() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(60)
        return ColourSegmenter()

    stops, loads = Engine(load, lambda: "m"), Engine(load, lambda: "m")
    with ThreadPoolExecutor() as threads:
        for engine in (stops, loads):
            engine.start()
        waiting = [threads.submit(engine.segmenter) for engine in (stops, loads)]
        assert stops.status.state == loads.status.state == "loading"
        stops.stop()
        with pytest.raises(ModelUnavailable, match="shutting down"):
            waiting[0].result(60)
        may_load.set()
        segmenter: Any = waiting[1].result(60)
    assert (stops.status.state, loads.status.state) == ("failed", "ready")
    assert segmenter.embedded == [("grey",)]  # the first request does not pay for them


def test_a_failed_load_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries, are_there = list[int](), threading.Event()

    def embed(prompts: Any) -> None:  # the last that is done to load it
        tries.append(1)
        if not are_there.is_set():
            raise FileNotFoundError("no weights: bring them")

    segmenter: Any = ColourSegmenter()
    segmenter.embed.fault = embed
    engine = Engine(lambda: segmenter, lambda: "m", retry_after_s=0.02)
    engine.start()
    with pytest.raises(ModelUnavailable, match="no weights: bring them"):
        engine.segmenter()
    assert engine.status == ModelStatus("failed", "no weights: bring them")
    wait_for(lambda: len(tries) > 2)
    are_there.set()
    wait_for(lambda: engine.status.state == "ready")
    assert caplog.text.count("no weights: bring them") == 1
    engine.segmenter()


# The end


def test_stopping_tells_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "CAPACITY", 2)
    scene = Scene()
    scene.hold()
    waiting = [scene.ask(1), scene.ask(2, BATCH), scene.ask(3, BATCH)]
    waiting += [scene.start(4, BATCH), scene.ask(5, CLICK, labels=NEW)]
    scene.engine.stop()
    for future in waiting:
        with pytest.raises(ModelUnavailable, match="shutting down"):
            future.result(60)
    with pytest.raises(ModelUnavailable, match="shutting down"):
        scene.score(6)
    scene.engine.warm_up(NEW)
    scene.release()
    wait_for(lambda: scene.engine.snapshot().done == 1)  # what was running is handed out


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


# Settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "ViT-B-16/random"}, "never served"),
        ({"model": "ViT-B-16/opanai"}, "open_clip knows: openai"),
        ({"model": "coca_ViT-B-32/laion3b"}, "open_clip knows: laion2b"),
        ({"method": "clearclp"}, "clearclip"),
        ({"feature_cache_mb": 1 << 40}, "FEATURE_CACHE_MB: expected at most the memory"),
    ],
)
def test_what_can_never_be_served_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Engine.from_settings(Settings(**given))  # type: ignore[arg-type]


def test_the_size_for_a_second_encoder_is_part_of_the_model(tmp_path: Path) -> None:
    """So predictions are another version's, and a project learns again."""
    second = file_of("test_vit", tmp_path)

    def model_id(**settings: object) -> str:
        return Engine.from_settings(Settings(model="demo", **settings)).model_id  # type: ignore[arg-type]

    sizes = (None, 224, 448)
    assert len({model_id(second_model=second, second_short_side_px=px) for px in sizes}) == 3
    assert len({model_id(second_short_side_px=px) for px in sizes}) == 1  # there is none to see it


def test_the_models_thread_alone_computes_with_several() -> None:
    with ThreadPoolExecutor(1) as model, ThreadPoolExecutor(1) as other:
        model.submit(load_segmenter, Settings(model="demo", device="cpu")).result()
        assert model.submit(torch.get_num_threads).result() == usable_cpus()
        assert other.submit(torch.get_num_threads).result() == 1


# What is lent


def test_what_is_lent_is_computed_in_the_models_thread_after_people() -> None:
    scene = Scene()
    scene.hold()

    def compute() -> None:
        scene.segmenter.log.append(("embed", (threading.current_thread().name,)))

    with ThreadPoolExecutor() as pool:
        lent = pool.submit(scene.engine.lend, compute)
        wait_for(lambda: len(scene.engine._lent) == 1)
        scene.ask(5, CLICK)
        scene.release()
        lent.result(60)
    assert scene.served() == [(5,), ("model",)]


def test_an_error_of_what_is_lent_is_the_borrowers_alone() -> None:
    scene = Scene()
    with pytest.raises(KeyError, match="mine"):
        scene.engine.lend(lambda: {}["mine"])
    assert scene.engine.lend(lambda: 7) == 7


def test_what_is_lent_ends_with_the_engine() -> None:
    scene = Scene()
    scene.hold()
    with ThreadPoolExecutor() as pool:
        lent = pool.submit(scene.engine.lend, lambda: 7)
        wait_for(lambda: len(scene.engine._lent) == 1)
        scene.engine.stop()
        with pytest.raises(ModelUnavailable, match="shutting down"):
            lent.result(60)
        scene.release()
