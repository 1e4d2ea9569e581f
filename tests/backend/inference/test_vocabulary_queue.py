"""Words that are embedded between batches of images."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import Any

import pytest
import torch

from backend.errors import ModelUnavailable
from backend.inference import vocabulary_queue
from backend.inference.engine import Engine
from backend.inference.image_queue import ImageQueue
from backend.inference.vocabulary_queue import VocabularyQueue
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine
from tests.backend.inference.scene import (
    BATCH,
    CLICK,
    NEW,
    RED,
    TWO_NEW,
    Scene,
    eventually,
    widths,
)


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


def many(count: int) -> tuple[Label, ...]:
    return tuple(Label(f"word {number}") for number in range(count))


def done(scene: Scene) -> bool:
    return eventually(lambda: not scene.engine.snapshot().vocabularies)


def test_who_is_answered_quickly_waits_for_a_few_templates_and_all_are_made_behind() -> None:
    scene = Scene(windows_at_once=1)
    labels = many(13)
    names = [label.name for label in labels]
    scores = scene.score(1, CLICK, labels=labels, quick=True)
    assert scores.vocabulary.quick
    assert (
        scene.segmenter.log[:3]
        == [
            ("quick", tuple(names[:11])),  # each takes an eleventh of the time
            ("quick", tuple(names[11:])),
            ("encode", (1,)),
        ]
    )
    assert done(scene)
    assert scene.segmenter.embedded == [(name,) for name in names]
    scene.score(2, CLICK, labels=labels, quick=True)
    assert scene.segmenter.log[-1] == ("encode", (2,))


def test_words_that_are_known_are_not_embedded_quickly() -> None:
    scene = Scene()
    scene.score(1, CLICK, labels=(*RED, *NEW), quick=True)
    assert scene.segmenter.embedded_quick == [("crimson",)]
    assert done(scene)
    assert scene.segmenter.embedded == [("crimson",)]


def test_who_asks_for_all_templates_gets_no_quick_words() -> None:
    scene = Scene(windows_at_once=1)
    scene.hold()
    batch = scene.ask(1, BATCH, labels=TWO_NEW)
    click = scene.ask(2, CLICK, labels=TWO_NEW, quick=True)
    scene.release()
    assert (click.result(20).vocabulary.quick, batch.result(20).vocabulary.quick) == (True, False)
    log = scene.segmenter.log
    assert log.index(("encode", (2,))) < log.index(("embed", ("scarlet",)))
    assert log.index(("embed", ("scarlet",))) < log.index(("encode", (1,)))


def test_all_templates_are_made_while_a_batch_goes_on() -> None:
    """Else annotators would be answered quickly, and never better, for as long as it takes."""
    scene = Scene(windows_at_once=1)
    scene.hold()
    scene.ask(1, CLICK, labels=TWO_NEW, quick=True)
    for width in (2, 3, 4, 5):
        scene.ask(width, BATCH, project=2)
    scene.release()
    assert scene.served() == [
        *[("crimson", "scarlet"), (1,)],
        *[("crimson",), (2,), ("scarlet",), (3,), (4,), (5,)],
    ]


def test_a_failure_behind_a_quick_answer_costs_no_answer_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vocabulary_queue, "_RETRY_AFTER_S", 0.0)
    scene = Scene(windows_at_once=1)

    def crash(prompts: Any) -> None:
        raise ZeroDivisionError("words")

    scene.segmenter.embed.fault = crash
    for width in (1, 2):
        assert scene.score(width, CLICK, labels=NEW, quick=True).vocabulary.quick
        assert done(scene)
    assert scene.segmenter.embedded == [("crimson",)] * 2
    scene.segmenter.embed.fault = lambda _: None
    scene.score(3, CLICK, labels=NEW, quick=True)
    assert done(scene)
    assert scene.segmenter.embed.missing(["crimson"]) == []


@pytest.mark.parametrize("windows_at_once", [1, 64])
def test_a_word_that_cannot_be_embedded_leaves_the_others_their_templates(
    windows_at_once: int, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(windows_at_once=windows_at_once)
    labels = many(20)

    def crash(prompts: Any) -> None:
        if "word 3" in prompts:
            raise ZeroDivisionError("words")

    scene.segmenter.embed.fault = crash
    for width in (1, 2, 3):
        assert scene.score(width, CLICK, labels=labels, quick=True).vocabulary.quick
        assert done(scene)
        assert scene.segmenter.embed.missing([each.name for each in labels]) == ["word 3"]
        assert scene.engine.embedding_s(labels) == math.inf, "or an annotator would get its error"
    assert scene.segmenter.embedded.count(("word 3",)) == 1, "until the pause is over"
    (failed,) = scene.engine.snapshot().failed_prompts
    assert (failed.prompt, failed.reason, failed.sentence) == (
        *("word 3", "ZeroDivisionError", "words"),
    )
    assert time.time() - 60 < failed.at <= time.time()
    assert caplog.text.count("Words cannot be embedded") == 1


def test_who_waits_for_a_word_that_cannot_be_embedded_gets_its_error_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(windows_at_once=64)

    def crash(prompts: Any) -> None:
        if "word 3" in prompts:
            raise ZeroDivisionError("words")

    scene.segmenter.embed.fault = crash
    for width in (1, 2):
        with pytest.raises(ZeroDivisionError):
            scene.score(width, BATCH, labels=many(20))
    assert caplog.text.count("Traceback") == 1
    scene.segmenter.embed.fault = lambda _: None
    assert not scene.score(3, BATCH, labels=many(20)).vocabulary.quick
    assert scene.engine.embedding_s(many(20)) == 0
    assert scene.engine.snapshot().failed_prompts == ()


def test_a_word_that_another_process_has_embedded_is_no_longer_told_to_have_failed() -> None:
    scene = Scene()

    def crash(prompts: Any) -> None:
        raise ZeroDivisionError("words")

    scene.segmenter.embed.fault = crash
    for labels in (NEW, TWO_NEW[1:]):
        with pytest.raises(ZeroDivisionError):
            scene.engine.embed(labels)
    told = {each.prompt for each in scene.engine.snapshot().failed_prompts}
    assert told == {"crimson", "scarlet"}
    scene.segmenter.embed.known.add("crimson")  # as the other process has, on disk
    assert [each.prompt for each in scene.engine.snapshot().failed_prompts] == ["scarlet"]


def test_who_comes_after_a_word_was_left_out_gets_its_error() -> None:
    """And does not embed it in a thread beside the model's."""
    scene = Scene(windows_at_once=1)
    last, go_on = threading.Event(), threading.Event()
    threads: list[str] = []

    def crash(prompts: Any) -> None:
        threads.append(threading.current_thread().name)
        if "word 2" in prompts:
            last.set()
            assert go_on.wait(20)
        if "word 0" in prompts:
            raise ZeroDivisionError("words")

    scene.segmenter.embed.fault = crash
    scene.engine.warm_up(many(3))
    assert last.wait(20)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(scene.engine.embed, many(3))
        assert eventually(lambda: scene.engine._vocabularies._is_next)
        go_on.set()
        with pytest.raises(ZeroDivisionError):
            asked.result(20)
    assert set(threads) == {"model"}


def test_quick_words_that_crash_fail_who_asked() -> None:
    scene = Scene()

    def crash(prompts: Any) -> None:
        raise ZeroDivisionError("words")

    scene.segmenter.embed.quick_fault = crash
    with pytest.raises(ZeroDivisionError):
        scene.score(1, CLICK, labels=NEW, quick=True)


def test_labels_that_change_meanwhile_are_embedded_once_each() -> None:
    scene = Scene(windows_at_once=1)
    first, go_on = threading.Event(), threading.Event()

    def pause(prompts: Any) -> None:
        first.set()
        assert go_on.wait(20)

    scene.segmenter.embed.fault = pause
    scene.score(1, CLICK, labels=many(3), quick=True)
    assert first.wait(20)
    changed = scene.ask(2, CLICK, labels=(*many(2), *NEW), quick=True)
    go_on.set()
    assert changed.result(20).vocabulary.quick
    assert done(scene)
    assert scene.segmenter.embedded_quick == [("word 0", "word 1", "word 2"), ("crimson",)]
    assert sorted(scene.segmenter.embedded) == [
        *[("crimson",), ("word 0",), ("word 1",), ("word 2",)]
    ]


def test_words_that_another_process_embeds_meanwhile_are_left_to_it() -> None:
    scene = Scene(windows_at_once=1)
    labels = many(20)

    def other_process(prompts: Any) -> None:
        time.sleep(0.05)
        scene.segmenter.embed.known.update(label.name for label in labels)

    scene.segmenter.embed.fault = other_process
    scene.score(1, CLICK, labels=labels, quick=True)
    assert done(scene)
    assert scene.segmenter.embedded == [("word 0",)]
    assert scene.engine.embedding_s(labels) == 0
    other = scene.engine.embedding_s([Label(f"other {number}") for number in range(20)])
    assert other >= 20 * 0.05  # measured once, and not nineteen times as nothing


def test_words_of_other_vocabularies_take_no_turn_twice() -> None:
    scene = Scene(windows_at_once=1)
    labels = many(6)
    scene.hold()
    scene.ask(1, CLICK, labels=labels, quick=True)
    scene.ask(2, CLICK, labels=(*labels, *NEW), quick=True)
    for width in range(3, 20):
        scene.ask(width, BATCH, project=2)
    scene.release()
    served = scene.served()
    last = max(served.index((name,)) for name in (*(each.name for each in labels), "crimson"))
    assert [what for what in served if what == ("word 0",)] == [("word 0",)]
    rest = served[served.index(("word 0",)) : last]
    assert sum(isinstance(each, int) for (each, *_) in rest) <= 6, "pictures between seven words"


def test_the_first_measured_time_takes_the_guesss_place() -> None:
    scene = Scene(windows_at_once=64)
    assert scene.engine.embedding_s(NEW) == 0.5
    scene.engine.embed((Label("word"),))
    assert scene.engine.embedding_s(NEW) < 0.1


def test_a_time_is_weighed_by_its_words() -> None:
    few, many_ = (VocabularyQueue(ImageQueue(9, c), c) for c in (Condition(), Condition()))
    for queue, prompts in ((few, 1), (many_, 16)):
        queue._measure(1.0, 1)
        queue._measure(0.1, prompts)
    assert few.seconds_per_prompt == pytest.approx(0.82)
    assert many_.seconds_per_prompt == pytest.approx(0.1, abs=0.03)


def test_no_time_is_guessed_for_another_device() -> None:
    scene = Scene()
    scene.segmenter.encoder.device = torch.device("cuda")
    assert scene.engine.embedding_s(many(100)) == 0


def test_the_time_of_an_embedding_is_estimated_from_those_before() -> None:
    scene = Scene(windows_at_once=64)
    assert scene.engine.embedding_s(RED) == 0
    assert scene.engine.embedding_s(many(8)) == pytest.approx(2 * scene.engine.embedding_s(many(4)))
    guess = scene.engine.embedding_s(NEW)
    scene.engine.embed(many(60))
    assert 0 < scene.engine.embedding_s(NEW) < guess / 4


def test_no_vocabulary_is_added_behind_quick_answers_without_room_for_it() -> None:
    scene = Scene(queue_size=1, windows_at_once=1)
    first, go_on = threading.Event(), threading.Event()

    def pause(prompts: Any) -> None:
        first.set()
        assert go_on.wait(20)

    scene.segmenter.embed.fault = pause
    scene.engine.warm_up(many(2))
    assert first.wait(20)
    asked = scene.ask(1, CLICK, labels=NEW, quick=True)
    go_on.set()
    assert asked.result(20).vocabulary.quick
    assert done(scene)
    assert scene.segmenter.embed.missing(["crimson"]) == ["crimson"]


def test_a_time_is_not_estimated_before_the_model_is_there() -> None:
    may_load = threading.Event()
    segmenter: Any = ColourSegmenter()

    def load() -> Any:
        assert may_load.wait(20)
        return segmenter

    with Engine(load, lambda: "m") as engine:
        assert engine.embedding_s(many(20), timeout_s=0.01) == 0
        may_load.set()
        assert engine.embedding_s(many(20)) > 0
    with pytest.raises(ModelUnavailable):
        engine.embedding_s(many(20))
