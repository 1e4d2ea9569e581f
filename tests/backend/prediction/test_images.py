"""The pictures of tasks."""

from typing import Any

import pytest

from backend.errors import ImageNotFound, ImageRefused
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.images import PredictionSpec, TaskImage, TaskImageReader
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import colour_engine, flag

PAGES = ["http://a/away", "http://a/red", "http://b/red", "s3://c/gone", "s3://c/red", "/red"]


@pytest.mark.parametrize(
    ("patience_s", "given_up"), [(60.0, []), (1e-9, ["http://a/red"])], ids=["all", "impatient"]
)
def test_a_host_that_never_answers_is_given_up(patience_s: float, given_up: list[str]) -> None:
    config = (
        '<View><Image name="many" valueList="$pages"/><BrushLabels name="m" toName="many">'
        '<Label value="red"/></BrushLabels></View>'
    )
    asked: list[str] = []

    def read(source: str, task: Task) -> RGBArray:
        asked.append(source)
        if "away" in source:
            raise ImageRefused("away")
        if "gone" in source:
            raise ImageNotFound("gone")
        return flag("red")

    reader = TaskImageReader(colour_engine(), read, read, patience_s)
    spec = PredictionSpec(parse_label_config(config, None), "v", Priority.BATCH, 1)
    found: list[Any] = list(reader.read(Task(1, 1, {"pages": PAGES}), spec))
    read_now = [each.item_index for each in found if isinstance(each, TaskImage)]
    assert read_now == [i for i in (1, 2, 4, 5) if PAGES[i] not in given_up]
    refused = [each for each in found if isinstance(each, ImageRefused)]
    assert len(refused) == 1 + len(given_up)
    assert asked == [page for page in PAGES if page not in given_up]
