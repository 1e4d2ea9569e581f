"""The encoder against the time that its matrix products alone take, and prices of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clearclip_core import METHODS, DenseEncoder, load_model
from clearclip_core.clip.devices import cpu_has_bf16
from clearclip_core.clip.loading import PUBLISHED
from clearclip_core.clip.transformer import linear
from tests.bench.conftest import Report
from tests.bench.timing import compare, in_turn

MODEL = "ViT-B-16/random"
SIDE_PX = 448
SETUPS = [
    ("cpu", "fp32"),
    *([("cpu", "bf16")] if cpu_has_bf16() else []),
    *([("cuda", "fp16")] if torch.cuda.is_available() else []),
]


def windows(encoder: DenseEncoder, count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIDE_PX, SIDE_PX).to(encoder.device, encoder.dtype)


def encoding(encoder: DenseEncoder, pixels: torch.Tensor) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        encoder.encode(pixels)
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def counted_flops(encoder: DenseEncoder, pixels: torch.Tensor) -> int:
    """Count the operations of all matrix products, attention's included.

    Gradients are allowed, which turns the encoder's own kernels off, and attention is computed
    unfused, as the counter does not know the CPU's fused kernel.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encoder.encode(pixels)
    return counter.get_total_flops()


class Products:
    """The four matrix products of a block, as it computes them, without bias: a lower bound.

    Attributes:
        flops: 2 · rows · (entries of the four weight matrices), of all blocks.
    """

    def __init__(self, encoder: DenseEncoder, count: int) -> None:
        block = encoder.trunk[0]
        layers = (block.attn.in_proj_weight, block.attn.out_proj.weight)
        self.weights = [*layers, block.mlp.c_fc.weight, block.mlp.c_proj.weight]
        patch_h, patch_w = encoder.patch_size_hw
        rows = count * (1 + SIDE_PX // patch_h * (SIDE_PX // patch_w))
        self.inputs = [torch.randn(rows, w.shape[1]).to(w.device, w.dtype) for w in self.weights]
        self.blocks = len(encoder.trunk)
        self.flops = self.blocks * sum(2 * rows * w.numel() for w in self.weights)

    @torch.inference_mode()
    def __call__(self) -> None:
        for _ in range(self.blocks):
            for weight, x in zip(self.weights, self.inputs, strict=True):
                linear(x[None], weight, None)
        if self.weights[0].device.type == "cuda":
            torch.cuda.synchronize()


def load(device: str, precision: str) -> DenseEncoder:
    return DenseEncoder(load_model(MODEL, device, precision).clip, METHODS["clearclip"])


@pytest.mark.parametrize(("device", "precision"), SETUPS)
def test_encoder_over_its_floor(report: Report, device: str, precision: str) -> None:
    encoder = load(device, precision)
    count = 2 if device == "cpu" else 32
    pixels, products = windows(encoder, count), Products(encoder, count)
    flops = counted_flops(encoder, pixels)
    found = compare(products, encoding(encoder, pixels), rounds=7)
    over = flops / products.flops * found.ratio  # the floor over the encoder
    where = f"{device}, {precision}, {count} windows of {SIDE_PX} px"
    rate = products.flops / found.reference_s / 1e12
    detail = f"{found.ours_s:.3g} s for {flops / 1e12:.2f} TFLOP, at {rate:.2f} TFLOP/s"
    if device == "cuda":
        report.add(f"encoder: share of the matmul rate ({where})", "50 %", f"{over:.0%}", detail)
    else:
        goal = "1.5× (1.8×)"
        report.add(f"encoder over its GEMM floor ({where})", goal, f"{1 / over:.2f}×", detail)


#: Preset -> most of the time of the whole encoder that it may take more.
PRICES = {"naclip": 0.0, "pearl": 0.02, "scclip": 0.08, "sfp": 0.08, "rfclip": 0.20}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, whose CPU time other work on the machine hardly changes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("side_px", [224, SIDE_PX])
def test_prices_of_readouts(report: Report, side_px: int) -> None:
    """Against the trained model's own read-out, which runs every block in full, and ClearCLIP's."""
    model, sinks = load_model(MODEL, "cpu", "fp32"), PUBLISHED["ViT-B-16/openai"]
    pixels = torch.randn(2, 3, side_px, side_px)
    times = in_turn(
        {
            name: encoding(DenseEncoder(model.clip, METHODS[name], sinks), pixels)
            for name in ("clip", "clearclip", *PRICES)
        },
        rounds=7,
    )
    for name, most in PRICES.items():
        dearer, over_clearclip = (dearness(times[name], times[of]) for of in ("clip", "clearclip"))
        rounds = [ours / whole - 1 for ours, whole in zip(times[name], times["clip"], strict=True)]
        report.add(
            f"price of {name}, 2 windows of {side_px} px (cpu, fp32)",
            f"<= {100 * most:+.0f} %",
            f"{100 * dearer:+.1f} %",
            f"of the whole encoder's CPU seconds on one thread, the least of 7 rounds (rounds: "
            f"{100 * min(rounds):+.1f} to {100 * max(rounds):+.1f} %); {100 * over_clearclip:+.1f} "
            "% of clearclip's",
        )


def dearness(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return by how much the least of some times is above that of others, as a share of it."""
    return min(ours) / min(others) - 1
