"""Batches of images: their size, and what one failure costs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.inference.batching import is_out_of_memory
from clearclip_core import Label
from tests.backend.inference.scene import Scene, widths


def test_waiting_pictures_become_one_batch_up_to_its_size() -> None:
    scene = Scene()  # four windows at once
    scene.hold()
    asked = [scene.ask(width) for width in range(1, 7)]
    scene.release()
    assert widths(asked) == [1, 2, 3, 4, 5, 6]
    assert scene.served() == [(1, 2, 3, 4), (5, 6)]


def fail_on_two(error: Exception) -> Callable[[Any, int], None]:
    """What fails whenever the picture 2 wide is in a batch."""

    def fault(pictures: Any, windows_at_once: int) -> None:
        if any(picture.resized.shape[1] == 2 for picture in pictures):
            raise error

    return fault


def test_a_crash_of_one_picture_costs_no_other_of_its_batch() -> None:
    scene = Scene()
    scene.segmenter.fault = fail_on_two(ZeroDivisionError("two"))
    scene.hold()
    one, two, three = (scene.ask(width) for width in (1, 2, 3))
    unscored = scene.ask(4, labels=(Label("crash"),))
    scene.release()
    assert widths([one, three]) == [1, 3]
    with pytest.raises(ZeroDivisionError, match="two"):
        two.result(60)
    with pytest.raises(ZeroDivisionError, match="secret"):
        unscored.result(60)
    assert scene.served() == [(1, 2, 3, 4), (1,), (2,), (3,), (4,)]
    snapshot = scene.engine.snapshot()
    assert (snapshot.done, snapshot.failed) == (3, 2)  # with the one that held the model
    assert scene.score(5).image.shape[1] == 5


def test_too_little_memory_halves_the_batch_for_good() -> None:
    scene = Scene(windows_at_once=8)
    limits: list[int] = []

    def fits_two(pictures: Any, windows_at_once: int) -> None:
        limits.append(windows_at_once)
        if min(windows_at_once, len(pictures)) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    scene.segmenter.fault = fits_two
    scene.hold()
    asked = [scene.ask(width) for width in range(1, 9)]
    scene.release()
    assert widths(asked) == list(range(1, 9))
    assert limits == [8, 8, 4, 2]  # the first one held the model
    assert scene.engine.snapshot().windows_at_once == 2
    scene.hold()
    for width in (11, 12, 13):
        scene.ask(width)
    scene.release()
    assert scene.served()[-2:] == [(11, 12), (13,)]


def out_of_memory_once() -> Callable[[], str]:
    """Return what works at its second call, when the memory of the first is free again."""
    errors = [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]

    def compute() -> str:
        if errors:
            raise errors.pop()
        return "made"

    return compute


def test_too_little_memory_elsewhere_makes_small_batches(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(windows_at_once=8)
    assert scene.engine.with_room(out_of_memory_once()) == "made"
    assert scene.engine.snapshot().windows_at_once == 4
    assert "memory of cpu has run out: from now on at most 4 windows" in caplog.text
    once, score = out_of_memory_once(), scene.segmenter.score
    scene.segmenter.score = lambda *given, **how: once() and score(*given, **how)  # type: ignore[method-assign]
    assert scene.score(1).image.shape[1] == 1
    assert scene.engine.snapshot().windows_at_once == 2
    with pytest.raises(ZeroDivisionError):
        scene.engine.with_room(lambda: 1 // 0)
    assert scene.engine.snapshot().windows_at_once == 2


def test_a_picture_that_never_fits_fails_alone() -> None:
    scene = Scene()
    scene.segmenter.fault = fail_on_two(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    scene.hold()
    asked = [scene.ask(width) for width in (1, 2, 3)]
    scene.release()
    assert widths([asked[0], asked[2]]) == [1, 3]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        asked[1].result(60)
    assert scene.engine.snapshot().windows_at_once == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_too_little_memory_is_known_by_its_error(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
