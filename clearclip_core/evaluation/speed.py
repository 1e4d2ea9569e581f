"""Speed and memory of a model on this machine, as ``clearclip bench`` measures them."""

from __future__ import annotations

import io
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import torch
from PIL import Image

from clearclip_core.clip.devices import (
    cpu_flags,
    device_name,
    peak_gpu_memory_mb,
    peak_memory_mb,
)
from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import SCENE_LABELS
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import RGBArray, to_rgb
from clearclip_core.quantities import quantity
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import STUFF_WORDS

_T = TypeVar("_T")

#: Number of labels that `label_words` can return.
MOST_LABELS = 1000

_KINDS = (
    "",
    *("red", "green", "blue", "yellow", "brown", "white", "grey", "black", "bright", "dark"),
    *("small", "large", "old", "new", "wet", "dry", "broken", "wooden", "painted", "distant"),
    *("near", "clean", "dirty", "smooth", "rough", "plain", "striped", "round", "narrow", "wide"),
)

#: Batch sizes that are measured, by the type of the device.
_BATCHES = {"cpu": (1, 2, 4, 8, 16), "cuda": (1, 4, 16, 32, 64), "mps": (1, 2, 4, 8, 16)}


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a measurement; seconds are medians, sizes are (width, height) in px.

    Attributes:
        cpu_flags: flags of the CPU that decide the speed of matrix products; empty where they
            cannot be read.
        stages_s: name of the stage -> seconds of one image, in order: read (from a JPEG in memory),
            resize, encode, score, decide (for all pixels of the image), masks.
        window_s: batch size -> seconds a window, of the encoder alone.
        text_labels: number of labels that were embedded; the others came from the cache.
        memory_mb: peak memory of the process, loading included; None where it is unknown.
        gpu_memory_mb: peak memory of the graphics card, the model included; None without CUDA.
        new_words_s: seconds of an image whose features are cached, with embedded labels.
    """

    model: str
    method: str
    precision: str
    device: str
    threads: int
    cpu_flags: tuple[str, ...]
    torch: str
    picture_wh: tuple[int, int]
    resized_wh: tuple[int, int]
    windows: int
    windows_at_once: int
    labels: int
    stages_s: dict[str, float]
    window_s: dict[int, float]
    text_s: float
    text_labels: int
    text_sentences: int
    memory_mb: float | None
    gpu_memory_mb: float | None
    picture_s: float
    new_words_s: float


def measure_speed(
    segmenter: Segmenter,
    size_wh: tuple[int, int] = (2048, 1367),
    labels: int = 150,
    budget_s: float = 20.0,
) -> Measurement:
    """Measure a segmenter, with its ``windows_at_once``, on a drawn scene.

    Args:
        size_wh: size of the scene in px, each side at least 16.
        labels: number of labels, 1 to `MOST_LABELS`.
        budget_s: time for repetitions in s, beside that of embedding the labels. Everything is
            measured at least once.
    """
    words = label_words(labels)
    jpeg = _jpeg(render_scene(1, (size_wh[1], size_wh[0])).image)
    encoder = segmenter.encoder
    if encoder.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(encoder.device)
    new = len(segmenter.embed.missing(words))
    text_s = _seconds(lambda: segmenter.embed(words), encoder.device)
    stages_s = stage_seconds(segmenter, jpeg, words, budget_s / 2)
    plan = segmenter.prepare(_read(jpeg)).plan
    window_hw = (side * px for side, px in zip(plan.grid_hw, encoder.patch_size_hw, strict=True))
    pixels = torch.randn(1, 3, *window_hw).to(encoder.device, encoder.dtype)
    window_s = window_seconds(segmenter, pixels, budget_s / 2)
    return Measurement(
        model=segmenter.model.name,
        method=str(segmenter.method),
        precision=encoder.precision,
        device=device_name(encoder.device),
        threads=torch.get_num_threads(),
        cpu_flags=cpu_flags(),
        torch=str(torch.__version__),
        picture_wh=size_wh,
        resized_wh=(plan.resized_hw[1], plan.resized_hw[0]),
        windows=plan.count,
        windows_at_once=segmenter.windows_at_once,
        labels=labels,
        stages_s=stages_s,
        window_s=window_s,
        text_s=text_s,
        text_labels=new,
        text_sentences=new * len(segmenter.embed.templates),
        memory_mb=peak_memory_mb(),
        gpu_memory_mb=peak_gpu_memory_mb(encoder.device),
        picture_s=sum(stages_s.values()),
        new_words_s=sum(stages_s[stage] for stage in ("score", "decide", "masks")),
    )


def label_words(count: int) -> tuple[str, ...]:
    """Return different labels of one or two words, the simplest first.

    Raises:
        ValueError: below 1 or above `MOST_LABELS`.

    >>> label_words(200)[0], label_words(200)[199]
    ('sky', 'brown fence')
    """
    if not 1 <= count <= MOST_LABELS:
        raise ValueError(f"Expected argument `count` to be 1 to {MOST_LABELS}, but got {count}.")
    words = dict.fromkeys((*SCENE_LABELS, *STUFF_WORDS))
    every = (f"{kind} {word}".strip() for kind in _KINDS for word in words)
    return tuple(itertools.islice(every, count))


def rounds(budget_s: float, clock: Callable[[], float] = time.perf_counter) -> Iterator[int]:
    """Count rounds, one at least, while one as long as the longest so far fits into the budget."""
    started, longest_s = clock(), 0.0
    for number in itertools.count():
        began = clock()
        if number and began - started + longest_s > budget_s:
            return
        yield number
        longest_s = max(longest_s, clock() - began)


def stage_seconds(
    segmenter: Segmenter, jpeg: bytes, words: Sequence[str], budget_s: float
) -> dict[str, float]:
    """Return the median seconds of each stage of one image, from file bytes to boolean masks."""
    device = segmenter.encoder.device
    times: dict[str, list[float]] = {}

    def stage(name: str, function: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        result = function()
        _finish(device)
        times.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def picture() -> None:
        rgb = stage("read", lambda: _read(jpeg))
        prepared = stage("resize", lambda: segmenter.prepare(rgb))
        (features,) = stage("encode", lambda: segmenter.encode_batch([prepared]))
        scores = stage("score", lambda: segmenter.score(features, words))
        result = stage("decide", lambda: segmenter.decide(scores))
        stage("masks", result.masks)

    picture()  # the first call is slow: memory is allocated, kernels are chosen
    times.clear()
    for _ in rounds(budget_s):
        picture()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


@torch.inference_mode()
def window_seconds(segmenter: Segmenter, window: torch.Tensor, budget_s: float) -> dict[int, float]:
    """Return the encoder's median seconds a window by batch size.

    The segmenter's own batch size is always measured. Batch sizes that do not fit into a GPU's
    memory are left out, and so are larger ones that the budget does not reach.

    Args:
        window: (1, 3, H, W), in the encoder's dtype, on its device.
    """
    encoder, own = segmenter.encoder, segmenter.windows_at_once
    ends = time.perf_counter() + budget_s
    times: dict[int, list[float]] = {}
    for size in sorted({*_BATCHES[encoder.device.type], own}):
        if times and time.perf_counter() > ends and size != own:
            continue
        batch = window.expand(size, -1, -1, -1).contiguous()
        try:
            encoder(batch)  # the first call is slow: memory is allocated, kernels are chosen
            times[size] = [_seconds(partial(encoder, batch), encoder.device)]
        except torch.cuda.OutOfMemoryError:
            break
    for _ in rounds(ends - time.perf_counter()):
        for size, seconds in times.items():
            batch = window.expand(size, -1, -1, -1).contiguous()
            seconds.append(_seconds(partial(encoder, batch), encoder.device))
    return {size: statistics.median(seconds) / size for size, seconds in times.items()}


def speed_table(measured: Measurement) -> str:
    """Format a measurement for the terminal."""
    m = measured
    flags = f" ({' '.join(m.cpu_flags)})" if m.cpu_flags else ""
    together = f"{1 / m.picture_s:.2f} pictures/s"
    text_rate = (
        f"{m.text_sentences / m.text_s:.0f} sentences/s" if m.text_labels else "kept on disk"
    )
    gpu = "" if m.gpu_memory_mb is None else f", of the GPU {m.gpu_memory_mb:,.0f} MB"
    memory = "unknown" if m.memory_mb is None else f"{m.memory_mb:,.0f} MB, loading included"
    lines = [
        f"model       {m.model}, {m.method}, {m.precision}",
        f"device      {m.device}, {quantity(m.threads, 'CPU thread')}{flags}, torch {m.torch}",
        f"picture     {_size(m.picture_wh)} px, resized to {_size(m.resized_wh)}: "
        f"{quantity(m.windows, 'window')}, {m.windows_at_once} at once",
        f"vocabulary  {quantity(m.labels, 'label')}",
        "",
        "a picture               ms    share",
        *(
            f"  {name:14} {1000 * seconds:9.1f} {seconds / m.picture_s:7.1%}"
            for name, seconds in m.stages_s.items()
        ),
        f"  {'together':14} {1000 * m.picture_s:9.1f}   {together}",
        f"  {'new words':14} {1000 * m.new_words_s:9.1f}   for a picture that is encoded already",
        "",
        "windows at once      ms a window",
        *(
            f"  {size:<14} {1000 * seconds:9.1f}{'   in use' * (size == m.windows_at_once)}"
            for size, seconds in m.window_s.items()
        ),
        "",
        f"words       {m.text_s:.1f} s to embed {quantity(m.labels, 'label')}, once ({text_rate})",
        f"memory      {memory}{gpu}",
    ]
    return "\n".join(lines)


def _size(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}×{size_wh[1]}"


def _jpeg(rgb: RGBArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _read(jpeg: bytes) -> RGBArray:
    with open_image(io.BytesIO(jpeg)) as picture:
        return to_rgb(picture)


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    function()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
