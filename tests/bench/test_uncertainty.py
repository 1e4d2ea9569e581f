"""How well the uncertainty scores of tasks predict the error of their label maps."""

from __future__ import annotations

import statistics
import time

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from clearclip_core import HELD_OUT_SEEDS, SCENE_LABELS, Segmenter, Uncertainty, render_scene
from tests.bench.conftest import Report

SEEDS = HELD_OUT_SEEDS[400:500]


@pytest.mark.parametrize("labels", [SCENE_LABELS, ("tree", "road", "sky")], ids=["all", "three"])
def test_scores_foretell_what_is_wrong(report: Report, labels: tuple[str, ...]) -> None:
    segmenter = Segmenter.load("demo", "clearclip", device="cpu")
    names = [name for name in SCENE_LABELS if name in labels]
    rows, took_s = [], []
    for seed in SEEDS:
        scene = render_scene(seed)
        scores = segmenter.score(segmenter.encode(scene.image), names, contrast=True)
        found = segmenter.decide(scores, image=scene.image, refine=True)
        start = time.perf_counter()
        uncertainty = Uncertainty.of(scores)
        took_s.append(time.perf_counter() - start)
        sure = found.confidence[found.label_map >= 0].astype(np.float64)  # none: sure of nothing
        wrong = (found.label_map != true_labels(scene.label_map, names)).mean()
        rows.append(
            (wrong, 1 - sure.sum() / max(len(sure), 1), uncertainty.uncertainty, uncertainty.effort)
        )
    wrong_share, *figures = np.array(rows).T
    ranks = [spearmanr(wrong_share, figure).statistic for figure in figures]
    report.add(
        f"rank correlation of effort with the share of wrong pixels, {len(names)} labels",
        "",
        f"{ranks[2]:.2f}",
        f"confidence {ranks[0]:.2f}, uncertainty {ranks[1]:.2f}; effort says "
        f"{100 * figures[2].mean():.1f} % of pixels, {100 * wrong_share.mean():.1f} % are wrong; "
        f"{1000 * statistics.median(took_s):.1f} ms a picture; demo model, {len(SEEDS)} scenes",
    )


def true_labels(label_map: npt.NDArray[np.uint8], names: list[str]) -> npt.NDArray[np.int16]:
    """Return the scene's label map as indices of `names`, -1 for other labels."""
    places = [names.index(name) if name in names else -1 for name in SCENE_LABELS]
    return np.array(places, np.int16)[label_map]
