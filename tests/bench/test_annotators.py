"""Learning from annotators of all kinds: what it gains or costs on pictures nobody annotated.

Ten pictures are annotated by each behaviour of `tests.bench.annotators`, drawn by a seed, and the
label maps of unseen pictures are compared with the truth, at every fourth pixel of every fourth
row. ``ANNOTATOR_SEEDS`` says how many seeds (20; with 20 and 50 pictures 5 at most). Each kind of
pictures is encoded once; ``-k`` picks kinds and behaviours, so that a long bench can be divided.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core import SCENE_LABELS, Example
from tests.bench.annotation_world import ANNOTATED, PROJECT, SMALL_PX, World, drawn, street
from tests.bench.annotators import behaviours, clean, exchanged
from tests.bench.conftest import Report

SEEDS = int(os.environ.get("ANNOTATOR_SEEDS", "20"))
#: Numbers of annotated pictures, and the most orders of each.
COUNTS, FEW_SEEDS = (1, 2, 5, 10, 20, 50), 5
#: Numbers of annotated pictures beside which words weigh more.
MANY = (20, 50)
NONSENSE = {"tree": "blicket", "road": "dax"}

#: Points of mIoU, and of one label's IoU, that no behaviour may cost.
MEAN_LOSS, LABEL_LOSS = 1.0, 3.0

#: World, and seed -> the annotated pictures.
Course = Callable[..., list[Example]]

WORLDS: dict[str, Callable[[], World]] = {
    "10 labels": partial(drawn, PROJECT, {}),
    "18 labels": partial(drawn, SCENE_LABELS, {}),
    "street photographs": partial(street, {}),
}
RENAMED: dict[str, Callable[[], World]] = {
    "10 labels": partial(drawn, PROJECT, NONSENSE),
    "18 labels": partial(drawn, SCENE_LABELS, NONSENSE),
    "street photographs": partial(street, NONSENSE),
}


def courses(ground: str) -> dict[str, Course]:
    """Return what happens to pictures, by name; `ground` is a label that borders on roads."""
    made: dict[str, Course] = {
        name: partial(World.examples, behaviour=behaviour)
        for name, behaviour in behaviours("sky", "road", "tree", ground).items()
    }
    turned = exchanged("sky", "road")
    return made | {
        "two frames five times, clean": partial(World.examples, behaviour=clean, twice=True),
        "two frames five times, sky and road exchanged": partial(
            World.examples, behaviour=turned, twice=True
        ),
        "30 % of the frames black": partial(World.examples, behaviour=clean, blank_share=0.3),
    }


ALL = [
    pytest.param(kind, name, id=f"{kind}, {name}")
    for kind in WORLDS
    for name in courses("building" if kind == "street photographs" else "grass")
]


@cache
def world_of(kind: str) -> World:
    return WORLDS[kind]()


def measure(
    report: Report, world: World, name: str, course: Course, count: int = ANNOTATED
) -> None:
    """Report the gains of all seeds, and fail where one costs too much."""
    seeds = range(SEEDS if count <= ANNOTATED else min(SEEDS, FEW_SEEDS))
    gains = [world.gain(course(world, seed=seed, count=count)) for seed in seeds]
    report_gains(report, world, name, gains, count)
    assert not costly(gains)


def report_gains(
    report: Report,
    world: World,
    name: str,
    gains: Sequence[npt.NDArray[np.float64]],
    count: int,
) -> None:
    table = np.array(gains)
    means = table.mean(axis=1)
    report.add(
        f"learning from {count} pictures, {world.name}: {name}",
        f"gain (mean above -{MEAN_LOSS:g}, each label above -{LABEL_LOSS:g})",
        f"mean {means.mean():+.2f}, worst {means.min():+.2f}, worst label {table.min():+.1f}",
        f"points of IoU on unseen pictures, {len(gains)} seeds, {int(table.any(axis=1).sum())} "
        f"live; words alone {world.before.mean():.1f}",
    )


def costly(gains: Sequence[npt.NDArray[np.float64]]) -> list[str]:
    """Say which seeds cost more than may be."""
    return [
        f"seed {seed}: mean {each.mean():+.2f}, label {each.min():+.1f}"
        for seed, each in enumerate(gains)
        if each.mean() < -MEAN_LOSS or each.min() < -LABEL_LOSS
    ]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_whoever_annotates_however(report: Report, kind: str, name: str) -> None:
    world = world_of(kind)
    ground = "building" if "building" in world.labels else "grass"
    measure(report, world, name, courses(ground)[name])


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize(("kind", "name"), ALL)
def test_many_pictures(report: Report, kind: str, name: str, count: int) -> None:
    world = world_of(kind)
    ground = "building" if "building" in world.labels else "grass"
    measure(report, world, name, courses(ground)[name], count)


@pytest.mark.parametrize("kind", list(RENAMED))
def test_renamed_labels(report: Report, kind: str) -> None:
    measure(report, RENAMED[kind](), "clean and complete", courses("grass")["clean and complete"])


def test_small_short_side(report: Report) -> None:
    world = drawn(PROJECT, {}, SMALL_PX)
    measure(report, world, "clean and complete", courses("grass")["clean and complete"])


@pytest.mark.parametrize(
    ("what", "worlds", "name"),
    [
        ("clean and complete", WORLDS, "clean and complete"),
        ("two labels renamed to nonsense words", RENAMED, "clean and complete"),
        ("each label left out by half", WORLDS, "each label left out by half"),
    ],
    ids=["clean", "renamed", "half"],
)
@pytest.mark.parametrize("kind", ["10 labels", "street photographs"])
def test_gain_by_corrected_pictures(
    report: Report, kind: str, what: str, worlds: dict[str, Callable[[], World]], name: str
) -> None:
    world, course = worlds[kind](), courses("grass")[name]
    seeds = range(min(SEEDS, FEW_SEEDS))
    gains = {
        count: [world.gain(course(world, seed=seed, count=count)).mean() for seed in seeds]
        for count in COUNTS
    }
    report.add(
        f"learning from 0, {', '.join(map(str, COUNTS))} pictures, {world.name}: {what}",
        "never below -1",
        f"{world.before.mean():.1f}, then "
        + ", ".join(f"{np.mean(each):+.1f}" for each in gains.values()),
        f"mIoU on unseen pictures, {len(seeds)} orders; worst order "
        + ", ".join(f"{min(each):+.1f}" for each in gains.values()),
    )
    assert min(np.mean(each) for each in gains.values()) > -MEAN_LOSS
