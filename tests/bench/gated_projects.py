"""Pictures that simulated annotators correct, as the acceptance gate sees them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.feedback.gate.outcomes import TaskOutcome
from clearclip_core import (
    SCENE_LABELS,
    DenseFeatures,
    RGBArray,
    Segmenter,
    render_scene,
)
from clearclip_core.evaluation.labelled_folder import LabelledFolder
from clearclip_core.images.label_maps import IGNORE
from tests.bench.test_street import load_street, sequence, street_folder

#: Labels of the projects; what else a picture shows is background.
LABELS = ("sky", "grass", "tree", "road")
STREET_LABELS = ("sky", "building", "tree", "road")

#: Frames of a drive: one a second in two sequences, 15 a second in one.
DRIVE = 20

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


@dataclass(frozen=True, eq=False)
class PredictedWorld:
    """Pictures of which projects are drawn.

    Attributes:
        name: for the table.
        scenes: the predicted pictures.
        drives: indices of the pictures that follow each other in one drive; none where there are
            no drives.
    """

    name: str
    scenes: Sequence[PredictedScene]
    drives: Sequence[Sequence[int]] = ()

    def only(self, labels: Collection[str]) -> PredictedWorld:
        """Return the world as it is where the other labels are not looked at."""

        def kept(figures: Mapping[str, float]) -> dict[str, float]:
            return {name: figure for name, figure in figures.items() if name in labels}

        scenes = [PredictedScene(kept(each.scores), kept(each.ious)) for each in self.scenes]
        return replace(self, scenes=scenes)


def predict_scenes(seeds: Sequence[int]) -> PredictedWorld:
    """Draw scenes and predict them with the demo model, as the backend does."""
    segmenter = Segmenter.load("demo", "clearclip", device="cpu")
    places = [SCENE_LABELS.index(name) for name in LABELS]
    found = []
    for seed in seeds:
        scene = render_scene(seed)
        features = segmenter.encode(scene.image)
        found.append(_predict(segmenter, scene.image, features, scene.label_map, LABELS, places))
    return PredictedWorld(f"demo model, {len(found)} scenes", found)


def predict_photographs() -> PredictedWorld:
    """Predict the street photographs that the street model was not trained on.

    See `tests.bench.test_street`. Each sequence is cut into drives of `DRIVE` frames; what is left
    over is not taken.
    """
    found: list[PredictedScene] = []
    drives: list[range] = []
    with tempfile.TemporaryDirectory() as made:
        segmenter, known = load_street(Path(made), 1)
        names = [label.name for label in known.labels]
        places = [names.index(name) for name in STREET_LABELS]
        for part in ("test", "val"):
            images, masks = (street_folder() / each / part for each in ("images", "masks"))
            folder = LabelledFolder.find(images, masks, Path(made) / "names.txt")
            order = sorted(folder.pictures, key=lambda picture: picture.name)
            for _, each in groupby(order, lambda picture: sequence(picture.name)):
                frames = list(each)
                whole = len(frames) // DRIVE
                drives += [
                    range(first, first + DRIVE)
                    for first in range(len(found), len(found) + whole * DRIVE, DRIVE)
                ]
                for picture in frames[: whole * DRIVE]:
                    rgb, truth = picture.read()
                    features = segmenter.encode(rgb)
                    found.append(_predict(segmenter, rgb, features, truth, STREET_LABELS, places))
    name = f"street model (no CLIP), {len(found)} photographs"
    return PredictedWorld(name, found, drives)


def _predict(
    segmenter: Segmenter,
    rgb: RGBArray,
    features: DenseFeatures,
    truth: npt.NDArray[Any],
    names: Sequence[str],
    places: Sequence[int],
) -> PredictedScene:
    """Predict a picture.

    Args:
        segmenter: of the picture's features.
        rgb: the picture.
        features: of it.
        truth: (H, W) values; `IGNORE` is not counted.
        names: the labels of the project.
        places: their values in the truth.
    """
    scores = segmenter.score(features, names, contrast=True)
    made = segmenter.decide(scores, image=rgb, refine=True)
    counted = truth != IGNORE
    sure, ious = {}, {}
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        shown, true = made.label_map == index, truth == place
        mask = shown & counted
        if shown.any():
            sure[name] = float(made.confidence[shown].mean(dtype=np.float64))
        if mask.any() or true.mean() > _SMALL:
            ious[name] = float((mask & true).sum() / max(1, (mask | true).sum()))
    return PredictedScene(sure, ious)


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
