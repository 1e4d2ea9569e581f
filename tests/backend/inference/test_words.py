"""Words that are embedded between batches of images."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from backend.inference.engine import Engine
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import ColourSegmenter
from tests.backend.fakes.waiting import wait_for
from tests.backend.inference.scene import BATCH, CLICK, NEW, TWO_NEW, Scene, widths


def test_a_new_vocabulary_delays_others_by_one_slice_at_a_time() -> None:
    scene = Scene(windows_at_once=1)
    vocabulary = tuple(Label(f"word {number}") for number in range(100))
    scene.hold()
    slow = scene.ask(1, labels=vocabulary)
    for width in (2, 3, 4):
        scene.ask(width, BATCH, project=2)
    scene.release()
    assert scene.served()[:6] == [("word 0",), (2,), ("word 1",), (3,), ("word 2",), (4,)]
    assert slow.result(60).image.shape[1] == 1


def test_pictures_that_wait_for_words_are_put_back_in_their_order() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    for width in (1, 2, 3):
        scene.ask(width, labels=NEW)
    scene.ask(4)
    scene.release()
    assert scene.served() == [(4,), ("crimson",), (1,), (2,), (3,)]


def test_vocabularies_take_turns_and_the_urgent_go_first() -> None:
    scene = Scene(windows_at_once=1)

    def words(name: str) -> tuple[Label, ...]:
        return Label(f"{name}1"), Label(f"{name}2")

    scene.hold()
    for width, priority, name in ((1, BATCH, "a"), (2, BATCH, "b"), (3, CLICK, "c")):
        scene.ask(width, priority, labels=words(name))
    scene.release()
    assert [each for (each,) in scene.served()] == ["c1", "c2", 3, "a1", "b1", "a2", 1, "b2", 2]
    scene.score(4, labels=words("a"))
    assert scene.served()[9:] == [(4,)], "they are known"


def test_setup_words_come_when_there_is_nothing_else_to_do() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    scene.engine.warm_up(TWO_NEW)
    scene.engine.warm_up(TWO_NEW)
    for width in (1, 2):
        scene.ask(width, BATCH)
    assert scene.engine.snapshot().vocabularies == 1
    scene.release()
    wait_for(lambda: not scene.engine.snapshot().vocabularies)
    assert scene.served() == [(1,), (2,), ("crimson",), ("scarlet",)]


def test_setup_words_that_a_picture_needs_go_with_it_and_lose_no_progress() -> None:
    scene = Scene(windows_at_once=1)
    first_word, go_on = threading.Event(), threading.Event()

    def pause(prompts: Any) -> None:
        first_word.set()
        assert go_on.wait(60)

    scene.segmenter.embed.fault = pause
    scene.engine.warm_up(TWO_NEW)
    assert first_word.wait(60)
    scene.ask(1, BATCH, project=2)
    scene.ask(2, CLICK, labels=TWO_NEW)
    go_on.set()
    assert scene.served() == [("crimson",), ("scarlet",), (2,), (1,)]


def test_priming_never_waits_not_even_for_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.inference.words.CAPACITY", 3)
    may_load = threading.Event()
    segmenter: Any = ColourSegmenter()

    def load() -> Any:
        assert may_load.wait(60)
        return segmenter

    engine = Engine(load, lambda: "m")
    for number in range(9):
        engine.warm_up((Label(f"word {number}"),))
    engine.start()
    assert engine.snapshot().vocabularies == 3
    may_load.set()
    wait_for(lambda: not engine.snapshot().vocabularies)
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
        bad.result(60)
    assert widths([good]) == [2]
    with pytest.raises(ZeroDivisionError, match="words"):
        scene.engine.embed(NEW)
    assert scene.engine.snapshot().vocabularies == 0


def test_too_little_memory_for_several_words_takes_them_one_by_one() -> None:
    scene = Scene(windows_at_once=8)

    def one_fits(prompts: Any) -> None:
        if len(prompts) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    scene.segmenter.embed.fault = one_fits
    scene.score(1, labels=TWO_NEW)
    assert scene.served() == [("crimson", "scarlet"), ("crimson",), ("scarlet",), (1,)]


def test_words_of_an_annotator_come_before_pictures_and_their_words() -> None:
    scene = Scene(words_known=False)
    scene.segmenter.embed.known.update(["red"])
    scene.hold()
    scene.ask(3, BATCH, labels=TWO_NEW)
    scene.ask(4, BATCH)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(scene.engine.embed, (Label("navy"),))
        wait_for(lambda: scene.engine.snapshot().vocabularies == 1)
        scene.release()
        assert asked.result(60).tolist() == [[0, 0, 1]]
    assert scene.served()[0] == ("navy",)
