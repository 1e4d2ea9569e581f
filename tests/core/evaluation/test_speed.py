"""The measurements of `clearclip bench`, against what the architecture has."""

from __future__ import annotations

import io

import open_clip
import pytest
import torch
from PIL import Image

from clearclip_core import LoadedModel, Preprocessing, Segmenter
from clearclip_core.evaluation.speed import (
    rounds,
    stage_seconds,
    window_seconds,
)

WINDOW = torch.zeros(1, 3, 64, 64)


@pytest.fixture(scope="module")
def model(clip_model: open_clip.CLIP) -> LoadedModel:
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    return LoadedModel("tiny", clip_model, tokenize, (100, 110, 120), (50, 60, 70))


@pytest.fixture
def segmenter(model: LoadedModel) -> Segmenter:
    sizes = Preprocessing(short_side_px=64, long_side_px=256, window_px=64, stride_px=32)
    return Segmenter(model, preprocessing=sizes, windows_at_once=3)


@pytest.mark.parametrize(
    ("lengths_s", "budget_s", "expected"),
    [
        ([2, 2, 2, 2, 2, 2], 10, 5),
        ([2, 2, 2, 2, 2, 2], 9.9, 4),
        ([3, 1, 1, 1, 1, 1], 7, 3),  # after 3 + 1 + 1 s another of 3 does not fit
        ([100], 10, 1),
        ([2], 0, 1),
    ],
)
def test_rounds_end_before_the_budget_does(
    lengths_s: list[float], budget_s: float, expected: int
) -> None:
    now = [0.0]
    seen = []
    for number in rounds(budget_s, lambda: sum(now)):
        now.append(lengths_s[number])
        seen.append(number)
    assert seen == list(range(expected))


def test_stages_and_batch_sizes_are_timed(segmenter: Segmenter) -> None:
    file = io.BytesIO()
    Image.new("RGB", (90, 60)).save(file, "JPEG")
    stages_s = stage_seconds(segmenter, file.getvalue(), ["sky"], budget_s=0)
    assert list(stages_s) == ["read", "resize", "encode", "score", "decide", "masks"]
    assert list(window_seconds(segmenter, WINDOW, budget_s=1000 / 999)) == [1, 2, 3, 4, 8, 16]
