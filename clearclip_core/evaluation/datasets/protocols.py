"""Protocols of methods: the sizes, scale and thresholds under which their authors measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from clearclip_core.clip.methods import Method
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS, Benchmark
from clearclip_core.segmentation.scores import TextSide

#: A window of this side holds a whole resized picture, whose long side is limited to it.
WHOLE_PX = 2048


@dataclass(frozen=True)
class Protocol:
    """How the authors of a method measured, where it is not as the paper did.

    Attributes:
        thresholds: benchmark -> probability below which a pixel is background.
        temperatures: benchmark -> factor on the cosines; 40 for the others.
        short_sides_px: benchmark -> short side; 336 px for the others, 560 px for Cityscapes.
        least_shares: benchmark -> share of the labelled pixels up to which a label is background.
        whole: benchmarks whose pictures are one window each.
        key_weights: benchmark -> key weight of the attention ``procrustes``.
        text_sides: benchmark -> numbers of the method's text side.
    """

    thresholds: Mapping[str, float]
    temperatures: Mapping[str, float] = field(default_factory=dict)
    short_sides_px: Mapping[str, int] = field(default_factory=dict)
    least_shares: Mapping[str, float] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    key_weights: Mapping[str, float] = field(default_factory=dict)
    text_sides: Mapping[str, TextSide] = field(default_factory=dict)

    def of(self, benchmark: Benchmark) -> Benchmark:
        """Return a benchmark under this protocol."""
        name = benchmark.name
        sides_px = {"cityscapes": 560, **self.short_sides_px}
        window_px, stride_px = (WHOLE_PX, WHOLE_PX) if name in self.whole else (224, 112)
        return replace(
            benchmark,
            threshold=self.thresholds.get(name, 0.0),
            temperature=self.temperatures.get(name, 40.0),
            short_side_px=sides_px.get(name, 336),
            window_px=window_px,
            stride_px=stride_px,
            least_share=self.least_shares.get(name, 0.0),
            text_side=self.text_sides.get(name),
        )


_TENTH = {"voc21": 0.1, "context60": 0.1, "coco_object": 0.1}
_MIDDLE = Protocol(
    thresholds={"voc21": 0.15, "context60": 0.15, "coco_object": 0.35},
    temperatures={"voc21": 50.0, "coco_object": 55.0},
    least_shares={"voc21": 0.1},
)
_RFCLIP_TEXT_SIDES: Mapping[str, TextSide] = MappingProxyType(
    {
        "voc21": TextSide(0.1, 0.03, 0.10),
        "context60": TextSide(0.25, 0.04, 0.09),
        "coco_object": TextSide(0.25, 0.01, 0.10),
        "voc20": TextSide(0.4, 0.02, 0.10),
        "cityscapes": TextSide(0.1, 0.03, 0.14, by_window=True),
        "context59": TextSide(0.25, 0.04, 0.09),
        "ade20k": TextSide(0.3, 0.05, 0.06),
        "coco_stuff": TextSide(0.2, 0.02, 0.02),
    }
)

#: Preset -> its protocol. The paper's own is that of all others.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "naclip": Protocol(_TENTH),
        "pearl": Protocol(
            _TENTH,
            whole=frozenset({"voc20", "voc21"}),
            key_weights={"ade20k": 0.3, "cityscapes": 0.3},
        ),
        "scclip": _MIDDLE,
        "sfp": replace(_MIDDLE, short_sides_px={"ade20k": 384}),
        "rfclip": Protocol(_TENTH, whole=frozenset({"voc21"}), text_sides=_RFCLIP_TEXT_SIDES),
    }
)


def benchmark_for(name: str, method: Method) -> Benchmark:
    """Return a benchmark under the protocol of a method's authors.

    The drawn scenes keep their own.

    Args:
        name: name of the benchmark.
        method: a method; one that is no preset is measured as the paper does.
    """
    protocol = _protocol(method)
    benchmark = BENCHMARKS[name]
    return benchmark if protocol is None or name == "demo" else protocol.of(benchmark)


def _protocol(method: Method) -> Protocol | None:
    """Return the protocol of a preset, whose windows may be tapered; None for other methods."""
    return PROTOCOLS.get(str(replace(method, tapered=False)))


def method_for(name: str, method: Method) -> Method:
    """Return a method with the numbers that its authors chose for a benchmark.

    Args:
        name: name of the benchmark.
        method: the method.
    """
    protocol = _protocol(method)
    if protocol is None or name not in protocol.key_weights:
        return method
    return replace(method, key_weight=protocol.key_weights[name])
