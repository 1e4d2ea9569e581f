"""Hours left at today's pace, from invented annotations and a stand-in for Label Studio."""

from __future__ import annotations

import numpy as np
import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.report.hours_left import LEAST, Hours, HoursLeft, at_pace, estimate
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer


def read(
    annotations: AnnotationStore, first: int, times_s: list[float], kind: AnnotationOrigin
) -> None:
    for n, seconds in enumerate(times_s, start=first):
        annotations.mark(7, [n])
        (pending,) = annotations.lease(1)
        made = ReadAnnotation(n, 7, n, kind, seconds=seconds, created=1e9 + n)
        annotations.complete(pending, made)


def test_the_last_annotations_of_each_kind_tell_the_pace() -> None:
    annotations = AnnotationStore(Database("sqlite://"), "me")
    read(annotations, 1, [900.0] * 20, "compared")
    read(annotations, 21, [30.0, 60.0] * 25, "compared")
    read(annotations, 100, [120.0] * 9, "scratch")
    read(annotations, 200, [1.0] * 20, "copy")
    studio = FakeStudio(brush_config("red"), {n: {"image": "a.png"} for n in range(1, 251)})
    studio.annotated = set(range(1, 131))
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
        found = estimate(annotations, client, 7)
        assert found == HoursLeft(120, 50, 9, 45, 120, at_pace(120, [60.0, 30.0] * 25), None)
        assert found.with_prelabels is not None
        assert found.with_prelabels.hours == 120 * 45 / 3600
        assert ["so far there are 9" in each for each in found.missing] == [True]
        assert estimate(annotations, client, 8) is None, "nothing was measured"
        studio.fault = lambda _: Answer(503)
        silent = estimate(annotations, client, 7)
    assert silent == HoursLeft(None, 50, 9, 45, 120) == estimate(annotations, None, 7)
    assert "does not say" in silent.missing[0]


def test_the_interval_holds_the_median_nine_times_in_ten() -> None:
    rng, held = np.random.default_rng(3), 0
    for _ in range(200):
        found = at_pace(60, rng.lognormal(np.log(60), 0.5, 50).tolist())
        assert found is not None
        assert found.low <= found.hours <= found.high
        held += found.low <= 1 <= found.high
    assert held / 200 == pytest.approx(0.9, abs=0.06)


def test_nothing_left_and_too_few() -> None:
    assert at_pace(0, [60.0] * LEAST) == Hours(0, 0, 0)
    assert at_pace(9, [60.0] * (LEAST - 1)) is None
