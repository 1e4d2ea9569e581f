"""`clearclip bench`: measure speed and memory of segmentation on this machine."""

from __future__ import annotations

import io
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import click
from PIL import Image

from clearclip_core.cli.options import FiniteRange, ModelOptions, model_options
from clearclip_core.demo.render import SCENE_LABELS, render_scene
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import RGBArray, to_rgb
from clearclip_core.quantities import quantity
from clearclip_core.vocabulary import STUFF_WORDS

if TYPE_CHECKING:  # torch takes seconds, which no help needs
    import torch

    from clearclip_core.segmentation.segmentation import Segmentation
    from clearclip_core.segmenter import Segmenter

_T = TypeVar("_T")

#: The time of new words for a picture whose features are cached.
_AFTER_ENCODING = ("score", "decide", "masks")


@click.command()
@model_options
@click.option(
    "--size",
    "size_wh",
    nargs=2,
    default=(2048, 1367),
    show_default=True,
    type=click.IntRange(16, 20_000),
    help="Width and height of the picture in px.",
)
@click.option(
    "--labels",
    default=150,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many labels compete.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Windows encoded at once, instead of the default."
)
@click.option(
    "--seconds",
    "budget_s",
    default=20.0,
    show_default=True,
    type=FiniteRange(min=0),
    help="How long to repeat; loading and embedding the labels come on top.",
)
def bench(
    options: ModelOptions, size_wh: tuple[int, int], labels: int, batch: int | None, budget_s: float
) -> None:
    """Measure how fast this machine segments, with a drawn picture and a model of your choice.

    A model name ARCH/random, such as ViT-L-14/random, measures an architecture with random
    weights: nothing is downloaded.
    """
    segmenter = options.load()
    segmenter.windows_at_once = batch or segmenter.windows_at_once
    words = label_words(labels)
    click.echo(f"Embedding {labels} labels, then measuring for {budget_s:g} s ...", err=True)

    began = time.perf_counter()
    segmenter.embed(words)
    _finish(segmenter.encoder.device)
    text_s = time.perf_counter() - began
    rate = f"{len(words) * len(segmenter.embed.templates) / text_s:.0f} sentences/s"

    scene = render_scene(1, (size_wh[1], size_wh[0]))
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "JPEG", quality=90)
    stages_s = stage_seconds(segmenter, file.getvalue(), words, budget_s)

    counted = quantity(labels, "label")
    facts = {
        "model": f"{segmenter.model.name}, {segmenter.method}, {segmenter.encoder.precision}",
        "device": _device_text(segmenter),
        "picture": _picture_text(segmenter, scene.image),
        "vocabulary": counted,
    }
    totals = {
        "words": f"{text_s:.1f} s to embed {counted}, once ({rate})",
        "memory": _memory_text(segmenter),
    }
    lines = [*_fact_lines(facts), "", *_stage_lines(stages_s), "", *_fact_lines(totals)]
    click.echo("\n".join(lines))


def _fact_lines(facts: Mapping[str, str]) -> list[str]:
    return [f"{name:<11} {fact}" for name, fact in facts.items()]


def _device_text(segmenter: Segmenter) -> str:
    import torch

    from clearclip_core.devices import cpu_flags, device_name

    device, threads = segmenter.encoder.device, quantity(torch.get_num_threads(), "CPU thread")
    flags = f" ({' '.join(cpu_flags())})" if cpu_flags() else ""
    return f"{device_name(device)}, {threads}{flags}, torch {torch.__version__}"


def _picture_text(segmenter: Segmenter, image: RGBArray) -> str:
    height, width = image.shape[:2]
    plan = segmenter.prepare(image).plan
    resized_h, resized_w = plan.resized_hw
    windows = f"{quantity(plan.count, 'window')}, {segmenter.windows_at_once} at once"
    return f"{width}×{height} px, resized to {resized_w}×{resized_h}: {windows}"


def _memory_text(segmenter: Segmenter) -> str:
    from clearclip_core.devices import peak_gpu_memory_mb, peak_memory_mb

    memory_mb, gpu_mb = peak_memory_mb(), peak_gpu_memory_mb(segmenter.encoder.device)
    memory = "unknown" if memory_mb is None else f"{memory_mb:,.0f} MB"
    gpu = "" if gpu_mb is None else f", of the GPU {gpu_mb:,.0f} MB"
    return f"{memory}, loading included{gpu}"


def label_words(count: int) -> list[str]:
    """Return different labels.

    >>> label_words(200)[0], len(set(label_words(200)))
    ('sky', 200)
    """
    words = dict.fromkeys((*SCENE_LABELS, *STUFF_WORDS))
    every = (f"{word} {n}" if n > 1 else word for n in itertools.count(1) for word in words)
    return list(itertools.islice(every, count))


def stage_seconds(
    segmenter: Segmenter, jpeg: bytes, words: Sequence[str], budget_s: float
) -> dict[str, float]:
    """Return the median seconds of each stage of one picture, from file bytes to boolean masks.

    Args:
        budget_s: time after which no picture is begun, in seconds; one is always measured.
    """
    device = segmenter.encoder.device
    times: dict[str, list[float]] = {}

    def stage(name: str, function: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        result = function()
        _finish(device)
        times.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def picture() -> None:
        rgb = stage("read", lambda: to_rgb(open_image(io.BytesIO(jpeg))))
        prepared = stage("resize", lambda: segmenter.prepare(rgb))
        (features,) = stage("encode", lambda: segmenter.encode_batch([prepared]))
        scores = stage("score", lambda: segmenter.score(features, words))
        result = stage("decide", lambda: _with_label_map(segmenter.decide(scores)))
        stage("masks", result.masks)

    picture()  # the first call is slow: memory is allocated, kernels are chosen
    times.clear()
    ends = time.monotonic() + budget_s
    while not times or time.monotonic() < ends:
        picture()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _with_label_map(result: Segmentation) -> Segmentation:
    """Return a result whose label map is computed, which a CPU does when it is asked for."""
    assert result.label_map.shape == result.size_hw
    return result


def _stage_lines(stages_s: Mapping[str, float]) -> list[str]:
    whole_s = sum(stages_s.values())
    new_words_s = sum(stages_s[stage] for stage in _AFTER_ENCODING)
    stages = [
        f"  {name:14} {1000 * seconds:9.1f} {seconds / whole_s:7.1%}"
        for name, seconds in stages_s.items()
    ]
    together = f"  {'together':14} {1000 * whole_s:9.1f}   {1 / whole_s:.2f} pictures/s"
    new_words = f"  {'new words':14} {1000 * new_words_s:9.1f}"
    return [
        "a picture               ms    share",
        *stages,
        together,
        f"{new_words}   for a picture that is encoded already",
    ]


def _finish(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
