"""A pass over pictures, cut off and gone on with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from clearclip_core import METHODS, Preprocessing, Segmenter, load_model
from clearclip_core.evaluation import runner
from clearclip_core.evaluation.benchmarks import BENCHMARKS, Benchmark, find_samples
from clearclip_core.evaluation.metrics import ConfusionMatrix
from clearclip_core.evaluation.results import Checkpoint, RunConfig, Tally
from clearclip_core.evaluation.runner import EvaluationTask, predictor, run_through, tallies_of
from clearclip_core.images.label_maps import LayoutError
from clearclip_core.segmentation.scores import TextSide, group_words, score_with_text_side
from tests.core.evaluation import miniatures, reference

CLASSES = 3


@dataclass(frozen=True)
class Block:
    """A picture of one colour and one class; it counts how often it is read."""

    index: int
    reads: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"block {self.index}"

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        if self.index < 0:
            raise LayoutError("broken")
        self.reads.append(self.index)
        size = (2, 2 + self.index)
        return np.full((*size, 3), self.index, np.uint8), np.full(size, self.index % CLASSES)


def predict(rgb: np.ndarray) -> Iterator[np.ndarray]:
    """One method that is always right, one that always says 0."""
    yield np.full(rgb.shape[:2], rgb[0, 0, 0] % CLASSES, np.int16)
    yield np.zeros(rgb.shape[:2], np.int16)


def start() -> tuple[Tally, ...]:
    return (Tally(ConfusionMatrix.empty(CLASSES)),) * 2


def counts(tallies: tuple[Tally, ...]) -> list[list[list[int]]]:
    return [tally.confusion.counts.tolist() for tally in tallies]


def test_pictures_are_taken_in_order_and_counted_for_each_method() -> None:
    blocks = [Block(index) for index in range(7)]
    steps = list(tallies_of(predict, blocks, start()))
    assert [step[0].pictures for step in steps] == [1, 2, 3, 4, 5, 6, 7]
    sizes = [2 * (2 + index) for index in range(7)]
    right = [sum(sizes[label::CLASSES]) for label in range(CLASSES)]
    assert counts(steps[-1]) == [
        np.diag(right).tolist(),
        [[total, 0, 0] for total in right],
    ]
    assert [block.reads for block in blocks] == [[index] for index in range(7)]


def test_a_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = list(tallies_of(predict, [Block(index) for index in range(7)], start()))[-1]
    checkpoint = Checkpoint(tmp_path / "partial", "key")
    cut = [Block(0), Block(1), Block(2), Block(-1)]
    with pytest.raises(LayoutError, match="broken"):
        run_through(predict, cut, CLASSES, checkpoint, 2)
    kept = checkpoint.load(2)
    assert kept is not None
    assert kept[0].pictures == 3
    blocks = [Block(index) for index in range(7)]
    resumed = run_through(predict, blocks, CLASSES, checkpoint, 2)
    assert counts(resumed) == counts(whole)
    assert [len(block.reads) for block in blocks] == [0, 0, 0, 1, 1, 1, 1]
    assert resumed[1].seconds > kept[1].seconds > 0


def test_checkpoints_are_kept_while_the_pass_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_SAVE_EVERY_S", 0)
    checkpoint = Checkpoint(tmp_path / "partial", "key")
    seen = []

    def watched(rgb: np.ndarray) -> Iterator[np.ndarray]:
        kept = checkpoint.load(2)
        seen.append(kept[0].pictures if kept else 0)
        yield from predict(rgb)

    run_through(watched, [Block(i) for i in range(4)], CLASSES, checkpoint, 2)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["voc21", "cityscapes"])
def test_in_float64_plain_loops_give_the_same_label_maps(
    name: str, sure_model_folder: Path, tmp_path: Path
) -> None:
    """All the way from the file, sizes and windows of the benchmark included."""
    files = miniatures.make(name, tmp_path)
    model = load_model(f"local-dir:{sure_model_folder}", device="cpu", precision="fp32")
    exact = replace(model, clip=copy.deepcopy(model.clip).double())
    task = EvaluationTask.of(BENCHMARKS[name], tmp_path)
    segmenter = task.segmenter(exact, "clearclip")
    words = segmenter.embed([label.name for label in task.labels]).double()
    expected = reference.label_maps(name, exact.clip, words, [picture for picture, _ in files])
    if name in reference.THRESHOLDS:
        assert 0.05 < np.mean(np.concatenate([found.ravel() for found in expected]) != 0) < 0.95
    predict_one = predictor(segmenter, task.benchmark, task.labels)
    for sample, label_map in zip(task.samples, expected, strict=True):
        (found,) = predict_one(sample.read()[0])
        assert (found == label_map).all()


def test_a_benchmark_with_a_text_side_looks_at_the_picture_as_a_whole() -> None:
    """The prior is of the picture as one window, or of each window; the words go with windows."""
    classes = ("sky", "grass", "tree")
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=112)
    sizes = replace(segmenter.preprocessing, window_px=64, stride_px=32)
    segmenter = Segmenter(segmenter.model, "clearclip", sizes)
    whole = Segmenter(segmenter.model, "clearclip", replace(sizes, window_px=256))
    rgb, _ = find_samples(BENCHMARKS["demo"], None)[0].read()
    features, words = segmenter.encode(rgb, with_cls=True), segmenter.embed(classes)
    assert features.plan.count > 1
    one = whole.encode(rgb, with_cls=True)
    assert one.plan.count == 1
    for by_window in (False, True):
        side = TextSide(0.3, 0.1, 0.2, by_window)
        benchmark = Benchmark("own", "own", classes, None, text_side=side)
        (label_map,) = predictor(segmenter, benchmark, classes)(rgb)
        assert one.cls is not None
        picture_cls = None if by_window else one.cls[0]
        groups = group_words(words, side.distance)
        vocabulary = segmenter.vocabulary(classes)
        scores = score_with_text_side(features, picture_cls, words, vocabulary, groups, side)
        assert np.array_equal(label_map, scores.label_map())


VOC = BENCHMARKS["voc20"]
MODEL = load_model("demo", device="cpu", precision="fp32")


def run_config(task: EvaluationTask, method: str = "clearclip") -> RunConfig:
    return task.run_config(MODEL, METHODS[method])


def test_settings_name_what_was_run(tmp_path: Path) -> None:
    miniatures.make("cityscapes", tmp_path)
    made = run_config(EvaluationTask.of(BENCHMARKS["cityscapes"], tmp_path), "sclip")
    assert (made.benchmark, made.pictures, made.method) == ("cityscapes", 2, "sclip")
    assert (made.model, made.precision, made.device) == ("demo", "fp32", "cpu")
    assert (made.short_side_px, made.long_side_px) == (448, 2048)
    assert (made.window_px, made.stride_px) == (224, 224)
    assert made.mean == Preprocessing().mean


def test_whatever_changes_the_result_changes_the_key(tmp_path: Path) -> None:
    miniatures.make("voc20", tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"{name}, thing" for name in VOC.classes))
    task = EvaluationTask.of(VOC, tmp_path)
    others = [
        run_config(EvaluationTask.of(VOC, tmp_path, names)),
        run_config(EvaluationTask.of(VOC, tmp_path, limit=2)),
        run_config(EvaluationTask.of(VOC, tmp_path, short_side_px=336)),
        run_config(EvaluationTask.of(BENCHMARKS["voc21"], tmp_path)),
        run_config(task, "clip"),
        run_config(replace(task, samples=task.samples[::-1])),
    ]
    assert len({run_config(task).key, *(other.key for other in others)}) == 7
    assert run_config(EvaluationTask.of(VOC, tmp_path)).key == run_config(task).key
