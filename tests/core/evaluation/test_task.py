"""What is measured, and what its result depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clearclip_core import METHODS, Preprocessing, load_model
from clearclip_core.evaluation.benchmarks import BENCHMARKS
from clearclip_core.evaluation.results import RunConfig
from clearclip_core.evaluation.runner import EvaluationTask
from tests.core.evaluation import miniatures

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


def test_a_segmenter_works_under_the_benchmarks_settings(tmp_path: Path) -> None:
    miniatures.make("voc20", tmp_path)
    segmenter = EvaluationTask.of(VOC, tmp_path, short_side_px=224).segmenter(MODEL, "maskclip")
    assert segmenter.preprocessing == Preprocessing(short_side_px=224, long_side_px=2048)
    assert segmenter.method == METHODS["maskclip"]
