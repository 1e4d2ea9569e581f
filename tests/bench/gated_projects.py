"""Drawn scenes that simulated annotators correct, as the acceptance gate sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.feedback.gate.outcomes import TaskOutcome
from clearclip_core import SCENE_LABELS, Segmenter, render_scene

#: Labels of the projects; what else a scene shows is background.
LABELS = ("sky", "grass", "tree", "road")

#: A thing that covers less of the picture is not missed by anybody.
_SMALL = 0.002


@dataclass(frozen=True)
class PredictedScene:
    """A drawn scene with its prediction.

    Attributes:
        scores: name of each predicted label -> mean probability inside its mask.
        ious: name of each label that is predicted or there -> IoU of prediction and truth.
    """

    scores: Mapping[str, float]
    ious: Mapping[str, float]


@dataclass(frozen=True)
class SimulatedAnnotator:
    """Leaves a mask that is good enough, and overlooks some that are not.

    Attributes:
        good_iou: IoU with the truth from which on a mask is left as it is.
        overlooks: share of the masks that are not good enough and are left all the same.
        fusses: share of the masks that are good enough and are changed all the same.
    """

    good_iou: float
    overlooks: float = 0.0
    fusses: float = 0.0


def predict_scenes(seeds: Sequence[int]) -> list[PredictedScene]:
    """Draw scenes and predict them with the demo model, as the backend does."""
    segmenter = Segmenter.load("demo", "clearclip", device="cpu")
    places = {name: SCENE_LABELS.index(name) for name in LABELS}
    found = []
    for seed in seeds:
        scene = render_scene(seed)
        scores = segmenter.score(segmenter.encode(scene.image), LABELS, contrast=True)
        made = segmenter.decide(scores, image=scene.image, refine=True)
        sure, ious = {}, {}
        for index, name in enumerate(LABELS):
            mask, true = made.label_map == index, scene.label_map == places[name]
            if mask.any():
                sure[name] = float(made.confidence[mask].mean(dtype=np.float64))
            if mask.any() or true.mean() > _SMALL:
                ious[name] = float((mask & true).sum() / (mask | true).sum())
        found.append(PredictedScene(sure, ious))
    return found


def correct(
    task: int, scene: PredictedScene, annotator: SimulatedAnnotator, rng: np.random.Generator
) -> TaskOutcome:
    """Let an annotator correct a scene."""
    changed = set()
    for name, iou in scene.ious.items():
        chance = annotator.fusses if iou >= annotator.good_iou else 1 - annotator.overlooks
        if rng.random() < chance:
            changed.add(name)
    return TaskOutcome(task, (task,), scene.scores, frozenset(changed))
