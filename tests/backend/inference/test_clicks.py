"""Images for the click model: encoded once, in turn with others, and one failure costs no other."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from backend.errors import Busy, ModelUnavailable
from backend.inference.clicks import click_key
from backend.inference.encoded_image import EncodedImage
from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.inference.queue import CAPACITY
from backend.settings import Settings
from clearclip_core import RGBArray
from tests.backend.fakes.click_model import HalfModel
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag
from tests.backend.fakes.waiting import wait_for
from tests.backend.inference.scene import RED


class Clicked:
    """An engine with both stand-ins, and clicks on pictures that are known by their widths."""

    def __init__(self, limit_bytes: int = 1 << 20) -> None:
        self.segmenter, self.model = ColourSegmenter(), HalfModel()
        self.segmenter.click_model = self.model
        self.engine = colour_engine(self.segmenter, cache=FeatureCache(limit_bytes))
        self.threads = ThreadPoolExecutor(CAPACITY + 10)

    def click(self, width: int, project: int = 1) -> EncodedImage:
        image = flag("red", size_hw=(2, width))
        prepared = self.segmenter.prepare(image)
        encoded = self.engine.encode(prepared, RED, project=project)
        return self.see(encoded, image, project)

    def see(self, encoded: EncodedImage, image: RGBArray, project: int = 1) -> EncodedImage:
        digest = self.segmenter.prepare(image).digest
        return self.engine.encode_for_clicks(encoded, image, digest, project)

    def hold(self) -> "Future[Any]":
        """Keep the models' thread busy with a picture 99 wide."""
        self.segmenter.gate.clear()
        prepared = self.segmenter.prepare(flag("red", size_hw=(2, 99)))
        held = self.threads.submit(self.engine.encode, prepared, RED)
        assert self.segmenter.started.acquire(timeout=60)
        return held

    def queued(self) -> int:
        return len(self.engine._clicks)


def parts(encoded: EncodedImage) -> list[torch.Tensor]:
    assert encoded.seen is not None
    return [*encoded.seen]


def test_a_picture_is_encoded_once_for_all_clicks() -> None:
    clicked = Clicked()
    first, second = clicked.click(8), clicked.click(8)
    assert clicked.model.log == [8]
    assert all(map(torch.equal, parts(first), parts(second)))


def test_what_was_seen_is_kept_in_float16_and_its_bytes_are_counted() -> None:
    clicked = Clicked()
    before = clicked.engine.snapshot().cache.bytes
    encoded = clicked.click(8)
    assert {each.dtype for each in parts(encoded)} == {torch.float16}
    windows = 2 * 8 * 3 * 2  # the picture's features: 2 x 8 patches of 3 numbers
    assert clicked.engine.snapshot().cache.bytes == before + windows + 64


def test_without_a_cache_each_click_encodes_again() -> None:
    clicked = Clicked(limit_bytes=0)
    clicked.click(8)
    clicked.click(8)
    assert clicked.model.log == [8, 8]


def test_clicks_that_wait_for_the_same_picture_encode_it_once() -> None:
    clicked = Clicked()
    image = flag("red", size_hw=(2, 8))
    encoded = clicked.engine.encode(clicked.segmenter.prepare(image), RED)
    clicked.segmenter.started.acquire()
    clicked.hold()
    waiting = [clicked.threads.submit(clicked.see, encoded, image) for _ in range(3)]
    wait_for(lambda: clicked.queued() == 3)
    clicked.segmenter.gate.set()
    for each in waiting:
        each.result(60)
    assert clicked.model.log == [8]


def test_many_clicks_do_not_keep_other_pictures_waiting() -> None:
    clicked = Clicked()
    images = [flag("red", size_hw=(2, width)) for width in range(1, 9)]
    encoded = [clicked.engine.encode(clicked.segmenter.prepare(each), RED) for each in images]
    while clicked.segmenter.started.acquire(blocking=False):
        pass
    clicked.hold()
    for each, image in zip(encoded, images, strict=True):
        clicked.threads.submit(clicked.see, each, image)
    wait_for(lambda: clicked.queued() == 8)
    prepared = clicked.segmenter.prepare(flag("red", size_hw=(2, 50)))
    seen_before: list[int] = []
    clicked.segmenter.fault = lambda *_: seen_before.append(len(clicked.model.log))
    other = clicked.threads.submit(clicked.engine.encode, prepared, RED)
    wait_for(lambda: sum(clicked.engine.snapshot().waiting.values()) == 2)
    clicked.segmenter.gate.set()
    other.result(60)
    assert seen_before == [0, 1]  # the held picture, then the other one after a single click


def test_projects_are_served_in_turn() -> None:
    clicked = Clicked()
    images = [flag("red", size_hw=(2, width)) for width in (1, 2, 3)]
    encoded = [clicked.engine.encode(clicked.segmenter.prepare(each), RED) for each in images]
    while clicked.segmenter.started.acquire(blocking=False):
        pass
    clicked.hold()
    waiting = []
    for number, project in enumerate((1, 1, 2)):
        waiting.append(
            clicked.threads.submit(clicked.see, encoded[number], images[number], project)
        )
        wait_for(lambda: clicked.queued() == len(waiting))
    clicked.segmenter.gate.set()
    for each in waiting:
        each.result(60)
    assert clicked.model.log == [1, 3, 2]


def test_one_picture_that_fails_costs_no_other() -> None:
    clicked = Clicked()

    def fault(width: int) -> None:
        if width == 5:
            raise ValueError("overflows")

    object.__setattr__(clicked.model, "fault", fault)
    with pytest.raises(ValueError, match="overflows"):
        clicked.click(5)
    assert clicked.click(6).seen is not None


def test_a_picture_that_no_memory_was_left_for_is_encoded_again() -> None:
    clicked = Clicked()
    faults = [torch.cuda.OutOfMemoryError("out of memory")]

    def fault(_width: int) -> None:
        if faults:
            raise faults.pop()

    object.__setattr__(clicked.model, "fault", fault)
    assert clicked.click(6).seen is not None


def test_as_many_wait_as_there_is_room_for() -> None:
    clicked = Clicked()
    image = flag("red", size_hw=(2, 8))
    encoded = clicked.engine.encode(clicked.segmenter.prepare(image), RED)
    clicked.segmenter.started.acquire()
    clicked.hold()
    waiting = [clicked.threads.submit(clicked.see, encoded, image) for _ in range(CAPACITY)]
    wait_for(lambda: clicked.queued() == CAPACITY)
    with pytest.raises(Busy, match="click model"):
        clicked.see(encoded, image)
    clicked.segmenter.gate.set()
    for each in waiting:
        each.result(60)


def test_clicks_that_wait_hear_that_the_backend_stops() -> None:
    clicked = Clicked()
    image = flag("red", size_hw=(2, 8))
    encoded = clicked.engine.encode(clicked.segmenter.prepare(image), RED)
    clicked.segmenter.started.acquire()
    clicked.hold()
    waiting = clicked.threads.submit(clicked.see, encoded, image)
    wait_for(lambda: clicked.queued() == 1)
    clicked.engine.stop()
    with pytest.raises(ModelUnavailable, match="shutting down"):
        waiting.result(60)
    clicked.segmenter.gate.set()


def test_without_a_click_model_nothing_is_added() -> None:
    clicked = Clicked()
    clicked.segmenter.click_model = None
    assert clicked.click(8).seen is None


def test_pictures_that_look_alike_to_clip_have_keys_of_their_own() -> None:
    one, other = np.zeros((900, 900, 3), np.uint8), np.zeros((900, 900, 3), np.uint8)
    other[3, 7] = 1  # what no picture of 448 px shows
    assert click_key(one, "same") != click_key(other, "same")


@pytest.mark.parametrize("answers_clicks", [True, False])
def test_only_a_process_that_answers_clicks_looks_at_the_click_model(answers_clicks: bool) -> None:
    settings = Settings(model="demo", click_model="neither folder nor repository")
    if answers_clicks:
        with pytest.raises(ValueError, match="click model to be a folder"):
            Engine.from_settings(settings, answers_clicks)
    else:
        Engine.from_settings(settings, answers_clicks)
