"""Which images of a task are asked for, how often, and how long a host is waited for in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from backend.errors import ImageNotFound, ImageRefused
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.images import PredictionSpec, TaskImage, TaskImageReader
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import colour_engine, flag

CONFIG = parse_label_config(
    '<View><Image name="many" valueList="$pages"/><BrushLabels name="m" toName="many">'
    '<Label value="red"/></BrushLabels></View>'
)


def read(
    pages: list[str],
    fetch: Callable[[str, int], RGBArray],
    priority: Priority = Priority.BATCH,
    patience_s: float = 60.0,
) -> tuple[list[str], Counter[str]]:
    """Return what is read of a task with these pages, and how often each was asked for."""
    asked: Counter[str] = Counter()

    def counted(source: str, task: Task) -> RGBArray:
        asked[source] += 1
        return fetch(source, asked[source])

    reader = TaskImageReader(colour_engine(), counted, counted, patience_s)
    spec = PredictionSpec(CONFIG, "v", priority, 1)
    found = list(reader.read(Task(1, 1, {"pages": pages}), spec))
    told = [
        str(each.item_index) if isinstance(each, TaskImage) else type(each).__name__
        for each in found
    ]
    return told, asked


def by_name(source: str, times: int) -> RGBArray:
    """An image, one whose host is away every time or the first time, or one that is missing."""
    if "away" in source or ("back" in source and times == 1):
        raise ImageRefused("away")
    if "gone" in source:
        raise ImageNotFound("gone")
    return flag("red")


def test_a_host_that_is_away_is_asked_once_more_after_the_other_images() -> None:
    told, asked = read(["back", "away", "red", "gone"], by_name)
    assert told == ["2", "ImageNotFound", "0", "ImageRefused"]
    assert asked == {"back": 2, "away": 2, "red": 1, "gone": 1}


@pytest.mark.parametrize("priority", [Priority.OPENED, Priority.INTERACTIVE])
def test_somebody_who_waits_does_not_wait_for_it_twice(priority: Priority) -> None:
    told, asked = read(["back", "red"], by_name, priority)
    assert told == ["1", "ImageRefused"]
    assert asked == {"back": 1, "red": 1}


def test_a_task_without_any_image_is_not_asked_for_twice() -> None:
    told, asked = read(["back", "gone"], by_name)
    assert told == ["ImageNotFound", "ImageRefused"]
    assert asked == {"back": 1, "gone": 1}


def test_a_host_that_is_waited_for_in_vain_is_given_up_and_no_other() -> None:
    pages = ["http://a/away", "http://a/red", "http://b/red", "s3://c/away", "s3://d/red", "/red"]
    told, asked = read(pages, by_name, patience_s=1e-9)
    assert told == ["2", "4", "5", "ImageRefused", "ImageRefused", "ImageRefused"]
    assert asked == dict.fromkeys([pages[0], *pages[2:]], 1)
