"""One pass over a data set: pictures in, tallies out, from wherever an earlier pass ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clearclip_core.evaluation.checkpoint import Checkpoint
from clearclip_core.evaluation.confusion_matrix import Confusion
from clearclip_core.evaluation.datasets.benchmarks import Benchmark
from clearclip_core.evaluation.datasets.samples import Sample, Truth
from clearclip_core.evaluation.results import Tally, percent
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmenter import Labels, Segmenter

LabelMap = npt.NDArray[np.int16]
#: (H, W, 3) uint8 -> one label map a method that is measured, each made when it is asked for.
Predict = Callable[[RGBArray], Iterable[LabelMap]]

#: Pictures that are read while the model works on another.
_AHEAD = 4


def predictor(segmenter: Segmenter, benchmark: Benchmark, labels: Labels) -> Predict:
    """A segmenter's answer as the benchmark takes it.

    Args:
        segmenter: with the benchmark's preprocessing.
        benchmark: which.
        labels: one for each of its classes, in their order.
    """
    vocabulary = segmenter.vocabulary(labels)

    def predict(rgb: RGBArray) -> Iterable[LabelMap]:
        scores = segmenter.score(segmenter.encode(rgb), vocabulary)
        yield benchmark.decision(scores.label_map(benchmark.threshold))

    return predict


def evaluate(
    predict: Predict, samples: Sequence[Sample], start: Sequence[Tally]
) -> Iterator[tuple[Tally, ...]]:
    """Go over the pictures that are not counted yet.

    Pictures are taken one by one and in order, so that how many are through says which.

    Args:
        predict: gives one label map for each of `start`.
        samples: all pictures, those that `start` has counted included.
        start: one tally a method, all of the same pictures.

    Yields:
        The tallies after each picture.

    Raises:
        LayoutError: a picture that cannot be read, or does not fit its label map.
    """
    tallies = tuple(start)
    for rgb, truth in _read_ahead(samples[tallies[0].pictures :]):
        tallies = tuple(_counted(tallies, predict(rgb), truth))
        yield tallies


def _counted(
    tallies: Sequence[Tally], label_maps: Iterable[LabelMap], truth: Truth
) -> Iterator[Tally]:
    answers = iter(label_maps)
    for tally in tallies:
        began = time.perf_counter()
        label_map = next(answers)
        seconds = time.perf_counter() - began
        counted = Confusion.of(truth, label_map, len(tally.confusion.counts))
        both = Confusion.sum([tally.confusion, counted])
        yield Tally(both, tally.pictures + 1, tally.seconds + seconds)


def _read_ahead(samples: Sequence[Sample]) -> Iterator[tuple[RGBArray, Truth]]:
    """Read in another thread, in order."""
    waiting: deque[Future[tuple[RGBArray, Truth]]] = deque()
    left = iter(samples)
    with ThreadPoolExecutor(1) as reader:
        try:
            for sample in left:
                waiting.append(reader.submit(sample.read))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def run_through(
    predict: Predict,
    samples: Sequence[Sample],
    classes: int,
    checkpoint: Checkpoint,
    methods: int = 1,
    save_every_s: float = 10.0,
) -> tuple[Tally, ...]:
    """Count a data set to its end, with a progress bar, from where an earlier pass was cut off.

    The bar shows the mIoU so far, of the last method where there are several. The bookmark is
    left in place: whoever has written the results down removes it.

    Args:
        predict: see `evaluate`.
        samples: all pictures of this process.
        classes: how many the benchmark has.
        bookmark: where to go on from.
        methods: how many label maps `predict` gives.
        save_every_s: seconds between two bookmarks; what a killed process may lose.

    Raises:
        LayoutError: a picture that cannot be read, or does not fit its label map.
        ValueError: the bookmark was written under other versions.
        OSError: the bookmark cannot be written.
    """
    start = checkpoint.load(methods) or (Tally(Confusion.empty(classes)),) * methods
    tallies, saved_at, saved = start, time.monotonic(), start[0].pictures
    bar = tqdm(total=len(samples), initial=saved, unit="picture")
    try:
        for tallies in evaluate(predict, samples, start):
            bar.set_postfix_str(f"mIoU {percent(tallies[-1].confusion.mean_iou).strip()}", False)
            bar.update()
            if time.monotonic() - saved_at >= save_every_s:
                checkpoint.save(tallies)
                saved_at, saved = time.monotonic(), tallies[0].pictures
    finally:
        bar.close()
        if tallies[0].pictures != saved:
            checkpoint.save(tallies)
    return tallies
