"""One pass over a data set: pictures in, tallies out, from wherever an earlier pass ended."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clearclip_core.evaluation.benchmarks import Benchmark
from clearclip_core.evaluation.confusion import Confusion
from clearclip_core.evaluation.files import write_whole
from clearclip_core.evaluation.results import Tally, dump, percent
from clearclip_core.evaluation.samples import Sample, Truth
from clearclip_core.pictures import RGBArray
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


@dataclass(frozen=True)
class Bookmark:
    """The file from which an interrupted pass goes on.

    All tallies and how many pictures they have counted stand in one file, which is written whole
    or not at all: whenever the process dies, nothing is counted twice.

    Attributes:
        path: of the file.
        key: of all settings; what was written under others is not taken up.
    """

    path: Path
    key: str

    @classmethod
    def beside(cls, result: Path, key: str) -> Bookmark:
        """The bookmark of a result that is to be; runs of other settings have their own."""
        return cls(result.with_name(f"{result.name}.{key[:12]}.partial"), key)

    def save(self, tallies: Sequence[Tally]) -> None:
        """Keep what has been counted.

        Raises:
            OSError: the file cannot be written.
        """
        facts: dict[str, Any] = {"key": self.key, "pictures": tallies[0].pictures}
        for index, tally in enumerate(tallies):
            facts[f"seconds {index}"] = tally.seconds
            facts[f"confusion {index}"] = tally.confusion.counts.tolist()
        write_whole(self.path, dump(facts))

    def load(self, methods: int) -> tuple[Tally, ...] | None:
        """What has been counted; None where there is nothing to go on from.

        Args:
            methods: how many tallies there are to be.
        """
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
            if facts["key"] != self.key:
                return None
            return tuple(
                Tally(
                    Confusion(np.array(facts[f"confusion {index}"], np.int64)),
                    int(facts["pictures"]),
                    float(facts[f"seconds {index}"]),
                )
                for index in range(methods)
            )
        except (OSError, ValueError, KeyError, TypeError):  # none, or no file of ours
            return None

    def remove(self) -> None:
        """The pass is through."""
        self.path.unlink(missing_ok=True)


def run_through(
    predict: Predict,
    samples: Sequence[Sample],
    classes: int,
    bookmark: Bookmark,
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
        OSError: the bookmark cannot be written.
    """
    start = bookmark.load(methods) or (Tally(Confusion.empty(classes)),) * methods
    tallies, saved_at, saved = start, time.monotonic(), start[0].pictures
    bar = tqdm(total=len(samples), initial=saved, unit="picture")
    try:
        for tallies in evaluate(predict, samples, start):
            bar.set_postfix_str(f"mIoU {percent(tallies[-1].confusion.mean_iou).strip()}", False)
            bar.update()
            if time.monotonic() - saved_at >= save_every_s:
                bookmark.save(tallies)
                saved_at, saved = time.monotonic(), tallies[0].pictures
    finally:
        bar.close()
        if tallies[0].pictures != saved:
            bookmark.save(tallies)
    return tallies
