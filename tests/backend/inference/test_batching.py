"""Batches of images: their size, and what one failure costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backend.inference.batching import is_out_of_memory
from clearclip_core import Label
from tests.backend.inference.scene import (
    Scene,
    widths,
)


def test_waiting_pictures_become_one_batch_up_to_its_size() -> None:
    scene = Scene()  # four windows at once
    scene.hold()
    asked = [scene.ask(width) for width in range(1, 7)]
    scene.release()
    assert widths(asked) == [1, 2, 3, 4, 5, 6]
    assert scene.served() == [(1, 2, 3, 4), (5, 6)]


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
