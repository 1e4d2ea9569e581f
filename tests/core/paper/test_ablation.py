"""Many readouts of one model: what they are, and that a shared trunk changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clearclip_core import DenseEncoder, Method, load_model
from clearclip_core.evaluation.benchmarks import BENCHMARKS
from clearclip_core.evaluation.runner import EvaluationTask, predictor
from clearclip_core.paper.tables import (
    STUDIES,
    Ablation,
    methods_of,
    readouts,
    shared_features,
)
from tests.core.evaluation import factories, miniatures


@pytest.fixture
def task(tmp_path: Path) -> EvaluationTask:
    miniatures.make("context60", tmp_path)
    return EvaluationTask.of(BENCHMARKS["context60"], tmp_path, short_side_px=80)


def test_a_shared_trunk_gives_what_each_method_gives_alone(
    task: EvaluationTask, model_folder: Path
) -> None:
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

    some = methods[::11]
    maps = list(readouts(task, model, some)(rgb))
    for method, label_map in zip(some, maps, strict=True):
        (expected,) = predictor(task.segmenter(model, method), task.benchmark, task.labels)(rgb)
        assert (label_map == expected).mean() > 0.999


def test_scores_come_back_from_their_file_and_add_up(tmp_path: Path) -> None:
    first = factories.ablation("voc20", {Method("qq"): 0.5, Method("vv", True, True, 0.5): 0.25})
    first.write(tmp_path / "a.json")
    read = Ablation.read(tmp_path / "a.json")
    assert read == first
    more = factories.ablation("voc20", {Method("kk"): 0.75, Method("qq"): 0.125})
    both = more.with_scores_of(read)
    assert {str(method): score.miou for method, score in both.scores.items()} == {
        "clearclip": 0.125,
        "vv-res-ffn-a0.5": 0.25,
        "kk": 0.75,
    }


def test_a_file_that_is_no_ablation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("", "[]", "{}", '{"readouts": {}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="to be written by `clearclip ablate`, but it is not"):
            Ablation.read(path)


def test_the_trunk_ends_before_the_last_block(clip_model: open_clip.CLIP) -> None:
    """Against open_clip's own blocks, run one after the other."""
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64))).float()
    encoder = DenseEncoder(clip_model, Method())
    visual = clip_model.visual
    with torch.inference_mode():
        x = visual._embeds(pixels)
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        torch.testing.assert_close(encoder.run_trunk(pixels), x, rtol=1e-4, atol=1e-5)
