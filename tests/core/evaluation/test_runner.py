"""A pass over pictures, cut off and gone on with."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from clearclip_core import METHODS
from clearclip_core.clip.loading import load_model
from clearclip_core.evaluation.benchmarks import BENCHMARKS
from clearclip_core.evaluation.results import RunConfig, load_tallies
from clearclip_core.evaluation.runner import EvaluationTask, run_through
from clearclip_core.images.label_maps import LayoutError
from clearclip_core.images.preprocessing import Preprocessing
from tests.core.evaluation import miniatures, reference

CLASSES = 3


@dataclass(frozen=True)
class Block:
    """A picture of one colour and one class; it counts how often it is read."""

    index: int
    reads: list[int] = field(default_factory=list)

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


def test_a_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    checkpoint = tmp_path / "partial"
    cut = [Block(0), Block(1), Block(2), Block(-1)]
    with pytest.raises(LayoutError, match="broken"):
        run_through(predict, cut, CLASSES, checkpoint, 2)
    kept = load_tallies(checkpoint)
    assert kept[0].pictures == 3
    blocks = [Block(index) for index in range(7)]
    resumed = run_through(predict, blocks, CLASSES, checkpoint, 2)
    sizes = [2 * (2 + index) for index in range(7)]
    right = [sum(sizes[label::CLASSES]) for label in range(CLASSES)]
    assert [tally.confusion.counts.tolist() for tally in resumed] == [
        np.diag(right).tolist(),
        [[total, 0, 0] for total in right],
    ]
    assert resumed[0].pictures == 7
    assert [len(block.reads) for block in blocks] == [0, 0, 0, 1, 1, 1, 1]
    assert resumed[1].seconds > kept[1].seconds > 0


@pytest.mark.parametrize("name", ["voc21", "cityscapes"])
def test_in_float64_plain_loops_agree(name: str, sure_model_folder: Path, tmp_path: Path) -> None:
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
    predict_one = task.predictor([segmenter])
    for sample, label_map in zip(task.samples, expected, strict=True):
        (found,) = predict_one(sample.read()[0])
        assert (found == label_map).all()


VOC = BENCHMARKS["voc20"]
MODEL = load_model("demo", device="cpu", precision="fp32")


def run_config(task: EvaluationTask, method: str = "clearclip") -> RunConfig:
    return task.run_config(MODEL, METHODS[method])


def test_whatever_changes_the_result_changes_the_key(tmp_path: Path) -> None:
    miniatures.make("voc20", tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"{name}, thing" for name in VOC.classes))
    task = EvaluationTask.of(VOC, tmp_path)
    others = [
        run_config(EvaluationTask.of(VOC, tmp_path, names)),
        run_config(EvaluationTask.of(VOC, tmp_path, limit=2)),
        run_config(EvaluationTask.of(replace(VOC, short_side_px=336), tmp_path)),
        run_config(EvaluationTask.of(BENCHMARKS["voc21"], tmp_path)),
        run_config(task, "clip"),
        run_config(replace(task, samples=task.samples[::-1])),
    ]
    assert len({run_config(task).key, *(other.key for other in others)}) == 7
    made = run_config(EvaluationTask.of(VOC, tmp_path))
    assert made.key == run_config(task).key
    assert (made.benchmark, made.pictures, made.method) == ("voc20", 3, "clearclip")
    assert (made.model, made.precision, made.device) == ("demo", "fp32", "cpu")
    assert made.sizes == Preprocessing()
