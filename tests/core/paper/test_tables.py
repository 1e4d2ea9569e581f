"""Tables with rows of the paper and of one's own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clearclip_core import Method
from clearclip_core.clip.loading import load_model
from clearclip_core.evaluation.benchmarks import BENCHMARKS
from clearclip_core.evaluation.results import result_path
from clearclip_core.evaluation.runner import EvaluationTask, shared_features
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.paper.tables import STUDIES, methods_of, own_rows, paper_table, table_1
from tests.core.evaluation import miniatures
from tests.core.evaluation.factories import result, results


def cells(table: str) -> list[list[str]]:
    """The body of a Markdown table."""
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_without_results_the_tables_are_the_papers() -> None:
    rows = cells(paper_table(2, []))
    assert len(rows) == 14
    figures = ["80.9", "35.9", "23.9", "30.0", "16.7", "37.5"]
    assert rows[9] == ["ClearCLIP", "ViT-B/16", *figures, "paper, measured"]
    assert rows[1][:5] == ["CoCu", "ViT-S/16", "-", "-", "13.6"]
    assert len(cells(paper_table(3, []))) == 15
    assert all(row[-1].startswith("paper, ") for row in rows + cells(paper_table(3, [])))


def test_own_rows_stand_below_the_papers_and_say_that_they_are() -> None:
    names = ("voc20", "context59", "coco_stuff", "cityscapes", "ade20k")
    own = own_rows(result(name, 20 + 10 * index) for index, name in enumerate(names))
    rows = cells(paper_table(2, own))
    where = [index for index, row in enumerate(rows) if row[-1].startswith("**yours**")]
    assert where == [10]
    assert rows[9][:2] == ["ClearCLIP", "ViT-B/16"]
    assert rows[10][:2] == ["ClearCLIP", "ViT-B-16/openai"]
    shares = [2 * p / (2 * p + 2 * (100 - p)) for p in (20, 30, 40, 50, 60)]
    assert rows[10][2:8] == [*(f"{100 * share:.1f}" for share in shares), "40.0"]
    assert rows[10][8] == "**yours**, fp16"
    assert [row[-1] for row in cells(paper_table(3, own))].count("**yours**, fp16") == 0


def test_what_a_result_was_measured_under_stands_beside_it() -> None:
    other = result("voc20", 50, sizes=Preprocessing(short_side_px=336), limit=9, own_names=True)
    (found,) = [row for row in cells(paper_table(2, own_rows([other]))) if "yours" in row[-1]]
    assert found[-1] == "**yours**, fp16, 336 px, only 9 pictures, own names"
    assert result_path(other.settings).name == "voc20.ViT-B-16-openai.clearclip.336px.json"
    with pytest.raises(ValueError, match=r"one result of clearclip, .* on voc20, but got two"):
        own_rows([result("voc20", 50), result("voc20", 51)])


def test_table_1_has_the_papers_row_and_ones_own() -> None:
    plain = Method("qq", residual=True, ffn=True)
    found = [
        *results("voc20", {plain: 50, Method("qq"): 75, Method("kk"): 80}),
        result("demo", 25, model="demo", precision="fp32"),
    ]
    rows = cells(table_1(found))
    assert [row[:4] for row in rows if row[-1] == "paper, measured"] == [
        ["ViT-B-16/openai", "qq", "✓", "✓"],
        ["ViT-B-16/openai", "qq", "✓", "✗"],
        ["ViT-B-16/openai", "qq", "✗", "✓"],
        ["ViT-B-16/openai", "qq", "✗", "✗"],
    ]
    own = [row for row in rows if row[-1].startswith("**yours**")]
    none = ["-"] * 5
    assert own == [
        ["ViT-B-16/openai", "qq", "✓", "✓", "50.0", *none, "-", "**yours**, fp16"],
        ["ViT-B-16/openai", "qq", "✗", "✗", "75.0", *none, "-", "**yours**, fp16"],
        ["demo", "qq", "✗", "✗", *none, "-", "25.0", "**yours**, fp32"],
    ]
    assert len(cells(table_1([]))) == 4


def test_a_shared_trunk_gives_what_methods_give_alone(tmp_path: Path, model_folder: Path) -> None:
    miniatures.make("context60", tmp_path)
    task = EvaluationTask.of(replace(BENCHMARKS["context60"], short_side_px=80), tmp_path)
    model = load_model(f"local-dir:{model_folder}", device="cpu", precision="fp32")
    methods = methods_of(STUDIES)
    rgb, _ = task.samples[0].read()
    segmenters = [task.segmenter(model, method) for method in methods]
    together = list(shared_features(segmenters, rgb))
    for segmenter, shared in zip(segmenters, together, strict=True):
        alone = segmenter.encode(rgb)
        assert alone.plan == shared.plan
        torch.testing.assert_close(shared.patches, alone.patches, rtol=0, atol=1e-6)
    assert (together[0].patches - together[-1].patches).abs().max() > 0.01

    some = segmenters[::11]
    for segmenter, label_map in zip(some, task.predictor(some)(rgb), strict=True):
        (expected,) = task.predictor([segmenter])(rgb)
        assert (label_map == expected).mean() > 0.999
