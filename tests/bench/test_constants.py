"""Each constant halved and doubled, on drawn scenes and on street photographs.

Street photographs are those of `tests.bench.test_street`, which says how to get them and how good a
judge its model is. ``CONSTANT_PICTURES`` says how many pictures judge clicks, boxes and masks (12),
and ``CONSTANT_SEEDS`` how many draws of ten annotated pictures judge learning (2). A row says what
the constant as it is reaches, and by how much that changes with other values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clearclip_core import segment_box
from clearclip_core.adaptation import (
    cross_validation,
    evidence,
    examples,
    fitting,
    posterior,
    selection,
)
from clearclip_core.adaptation.cross_validation import FREE
from clearclip_core.evaluation.candidate import AS_BACKEND
from clearclip_core.prompting import fine_mask, geodesic, log_odds
from clearclip_core.segmentation import detail, refined_argmax
from tests.bench import test_annotators
from tests.bench.annotation_world import World as Project
from tests.bench.annotators import clean
from tests.bench.conftest import Report
from tests.bench.test_prompting import after_clicks, bounding_box, clicked, iou, things
from tests.bench.test_street import World, counted_only, make_world

PICTURES = int(os.environ.get("CONSTANT_PICTURES", "12"))
SEEDS = int(os.environ.get("CONSTANT_SEEDS", "2"))
WORLDS = ("drawn scenes", "street photographs")
WORLD = pytest.mark.parametrize("kind", WORLDS)


@dataclass(frozen=True)
class Constant:
    """A constant of a module, and the modules that have imported its value.

    Attributes:
        module: where it is defined.
        name: its name there.
        users: further modules with a name of their own for it.
        others: values to try; by default half and twice as much.
    """

    module: ModuleType
    name: str
    users: tuple[ModuleType, ...] = ()
    others: tuple[Any, ...] = ()

    @property
    def value(self) -> Any:
        """Its value as it is."""
        return getattr(self.module, self.name)

    @property
    def tried(self) -> Sequence[Any]:
        """Its other values."""
        if self.others:
            return self.others
        if isinstance(self.value, tuple):
            return [tuple(factor * each for each in self.value) for factor in (0.5, 2)]
        return [type(self.value)(factor * self.value) for factor in (0.5, 2)]

    @contextmanager
    def at(self, value: Any) -> Iterator[None]:
        """Give it another value."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (self.module, *self.users):
                patch.setattr(module, self.name, value)
            yield


CLICKS = (
    *(Constant(log_odds, name) for name in ("_CLICK", "_CORRECTION", "_DISTANCE", "_TEXT")),
    *(Constant(log_odds, name) for name in ("_VISUAL", "_VISUAL_WITHOUT_TEXT", "_NEGATIVE")),
    Constant(geodesic, "STEP", (log_odds,)),
    Constant(geodesic, "_SEMANTIC_WEIGHT"),
    Constant(fine_mask, "_MAX_LOG_ODDS"),
)
BOXES = (
    *(Constant(log_odds, name) for name in ("_SURROUNDINGS", "_LIKELY", "_TEXT_IN_BOX")),
    Constant(log_odds, "_SALIENT", others=(0.3, 0.8)),
    Constant(geodesic, "_SEMANTIC_WEIGHT"),
    Constant(fine_mask, "_MAX_LOG_ODDS"),
)
MASKS = (
    Constant(detail, "_HALF_KEPT"),
    Constant(detail, "_STEEPNESS"),
    Constant(detail, "PLACES_OF_NOISE", others=(0.5, 0.85)),
    Constant(refined_argmax, "SHARE", others=(0.25, 0.9)),
)
#: Shares of an image below which islands are dropped; the default is 0.0005.
ISLANDS = (0.0, 0.00025, 0.001, 0.002)
LEARNING = (
    Constant(cross_validation, "PRIORS"),
    Constant(
        selection, "FREE", others=tuple(replace(FREE, clear_gain=gain) for gain in (0.075, 0.3))
    ),
    Constant(selection, "_WIDE_OFFSETS"),
    Constant(posterior, "_SHRINKAGE"),
    Constant(posterior, "_OFFSET_SCALE"),
    Constant(cross_validation, "_NEAR_OFFSETS"),
    Constant(examples, "HALF_PATCHES", (evidence,)),
    Constant(evidence, "_AREA_POWER", others=(0.5, 1.0)),
    Constant(examples, "SAMPLE_SIZE"),
    Constant(fitting, "PATCHES"),
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    made: dict[str, World] = {}

    def find(kind: str) -> World:
        if kind not in made:
            made[kind] = make_world(kind, tmp_path_factory.mktemp("world"), PICTURES)
        return made[kind]

    return find


@cache
def learning_world(kind: str, renamed: bool) -> Project:
    worlds = test_annotators.RENAMED if renamed else test_annotators.WORLDS
    return worlds["10 labels" if kind == WORLDS[0] else kind]()


def gain(world: Project) -> float:
    """Measure the mean gain of mIoU by ten pictures, in points."""
    gains = [world.gain(world.examples(clean, seed)).mean() for seed in range(SEEDS)]
    return float(np.mean(gains))


gain_as_it_is = cache(gain)


def vary(
    report: Report, constant: Constant, measure: Callable[[], float], start: float, what: str
) -> None:
    """Add the row of one constant."""
    changes = []
    for value in constant.tried:
        with constant.at(value):
            changes.append(f"{value}: {measure() - start:+.2f}")
    where = constant.module.__name__.rpartition(".")[2]
    report.add(
        f"{where}.{constant.name} = {constant.value}: {what}",
        "",
        f"{start:.2f}; {', '.join(changes)}",
        "change of the figure, in points, with the constant at another value",
    )


@WORLD
def test_clicks(report: Report, worlds: Callable[[str], World], kind: str) -> None:
    world = worlds(kind)

    def measure() -> float:
        found: list[list[float]] = []
        for scene, counted, features in world.scenes():
            scores = world.segmenter.score(features, world.names)
            ask = partial(clicked, features, scores, scene)
            for label, truth in things(scene):
                if label < len(world.names):
                    asked = partial(counted_only, partial(ask, label), counted)
                    found.append(after_clicks(asked, truth))
        return 100 * float(np.mean(found))

    start = measure()
    for constant in CLICKS:
        vary(report, constant, measure, start, f"mean IoU after 1, 2 and 3 clicks, {world.name}")


@WORLD
def test_boxes(report: Report, worlds: Callable[[str], World], kind: str) -> None:
    world = worlds(kind)

    def measure() -> float:
        found: list[float] = []
        for scene, counted, features in world.scenes():
            scores = world.segmenter.score(features, world.names)
            for label, truth in things(scene):
                if label < len(world.names):
                    box = bounding_box(truth)
                    mask = segment_box(features, scores, label, box, scene.image).mask
                    found.append(iou(mask & counted, truth))
        return 100 * float(np.mean(found))

    start = measure()
    for constant in BOXES:
        vary(report, constant, measure, start, f"mean IoU of a box, {world.name}")


@WORLD
def test_masks(report: Report, worlds: Callable[[str], World], kind: str) -> None:
    world = worlds(kind)

    def measure(island_share: float = AS_BACKEND.min_island_share) -> float:
        figures = world.figures(replace(AS_BACKEND, min_island_share=island_share))
        return 100 * (figures.mean_iou or 0)

    start = measure()
    for constant in MASKS:
        vary(report, constant, measure, start, f"mIoU as the backend, {world.name}")
    changes = [f"{share:g}: {measure(share) - start:+.2f}" for share in ISLANDS]
    saved = [
        100
        * (world.figures(replace(AS_BACKEND, min_island_share=share)).all.overlap.saved_paint or 0)
        for share in (AS_BACKEND.min_island_share, *ISLANDS)
    ]
    report.add(
        f"min_island_share = {AS_BACKEND.min_island_share}: mIoU as the backend, {world.name}",
        "",
        f"{start:.2f}; {', '.join(changes)}",
        f"saved paint {', '.join(f'{each:.2f}' for each in saved)} at the same values",
    )


@WORLD
@pytest.mark.parametrize("renamed", [False, True], ids=["", "renamed"])
@pytest.mark.parametrize("constant", LEARNING, ids=[each.name for each in LEARNING])
def test_learning(report: Report, constant: Constant, renamed: bool, kind: str) -> None:
    """Clean annotations hardly move the labels of photographs, so two are renamed as well."""
    world = learning_world(kind, renamed)
    start = gain_as_it_is(world)
    what = f"gain of mIoU by 10 pictures, {SEEDS} draws, {world.name}"
    vary(report, constant, partial(gain, world), start, what)
