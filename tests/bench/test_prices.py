"""What the methods of later papers cost: CPU seconds of their encoder against the whole one.

The speed of ViT-B/16 does not depend on its weights, so they are random.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from clearclip_core import METHODS, Segmenter
from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.loading import SINK_CHANNELS, load_model
from clearclip_core.images.preprocessing import Preprocessing
from tests.bench.conftest import Report

#: Preset -> most of the time of the whole encoder that it may take more.
PRICES = {"naclip": 0.0, "pearl": 0.02, "scclip": 0.08, "sfp": 0.08, "rfclip": 0.20}
SIDE_PX, ROUNDS = 448, 7


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, whose CPU time other work on the machine hardly changes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.inference_mode()
def cpu_s(encoder: DenseEncoder, pixels: torch.Tensor) -> float:
    began = time.thread_time()
    encoder.encode(pixels)
    return time.thread_time() - began


@pytest.mark.usefixtures("one_thread")
def test_prices_of_methods(report: Report) -> None:
    """Against the trained model's own read-out, which runs every block in full, and ClearCLIP's.

    All take turns; the least of a method's times is that of the round in which other work on the
    machine disturbed it least.
    """
    model = load_model("ViT-B-16/random", "cpu", "fp32")
    pixels = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    encoders = {
        name: DenseEncoder(model.clip, METHODS[name], SINK_CHANNELS["ViT-B-16/openai"])
        for name in ("clip", "clearclip", *PRICES)
    }
    rounds = [
        {name: cpu_s(encoder, pixels) for name, encoder in encoders.items()}
        for _ in range(1 + ROUNDS)
    ][1:]  # the first is slow
    least = {name: min(each[name] for each in rounds) for name in encoders}
    for name, most in PRICES.items():
        dearer = [each[name] / each["clip"] - 1 for each in rounds]
        report.add(
            f"price of {name}, 2 windows of {SIDE_PX} px (cpu, fp32)",
            f"<= {100 * most:+.0f} %",
            f"{100 * (least[name] / least['clip'] - 1):+.1f} %",
            f"CPU seconds of the encoder on one thread, least of {ROUNDS} rounds "
            f"({100 * min(dearer):+.1f} to {100 * max(dearer):+.1f} %); "
            f"{100 * (least[name] / least['clearclip'] - 1):+.1f} % of clearclip's",
        )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", ["naclip", "scclip", "rfclip"])
def test_price_of_the_sizes_of_a_methods_authors(report: Report, method: str) -> None:
    """A picture of 4:3 in windows of 224 px at 336 px, against windows of 448 px at 448 px."""
    model = load_model("ViT-B-16/random", "cpu", "fp32")
    model = replace(model, sink_channels=SINK_CHANNELS["ViT-B-16/openai"])
    papers = Preprocessing.of_short_side(model.mean, model.std)
    segmenters = Segmenter(model, method), Segmenter(model, method, papers)
    image, ratios = np.zeros((960, 1280, 3), np.uint8), []
    for _ in range(1 + ROUNDS):
        used = []
        for segmenter in segmenters:
            began = time.thread_time()
            segmenter.encode(image)
            used.append(time.thread_time() - began)
        ratios.append(used[0] / used[1])
    report.add(
        f"CPU time of {method} at its authors' sizes (cpu, fp32)",
        "<= 0.75",
        f"{np.median(ratios[1:]):.2f}",
        f"of that at the paper's, one thread, median of {ROUNDS} rounds "
        f"({min(ratios[1:]):.2f} to {max(ratios[1:]):.2f})",
    )
