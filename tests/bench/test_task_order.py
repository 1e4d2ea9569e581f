"""Which tasks to correct first: what learning gains, by the order of the corrections.

A project has pictures of a world, drawn by a seed. They are corrected cleanly and completely, and
what `adapt` lets go live after some of them is judged on unseen pictures. All orders have the same
projects. ``TASK_ORDER_PROJECTS`` says how many (2), ``TASK_ORDER_COUNTS`` after how many
corrections ("5,10") and ``TASK_ORDER_LOTS`` how many random orders a project has (4). A fit of ten
corrections takes 3 to 5 s of CPU, one of 20 up to 8 s. ``-k`` picks worlds, as in
``-k 'scenes and renamed'``. Street photographs: see `tests.bench.test_street`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import pytest
import torch

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Adaptation,
    Segmenter,
    Uncertainty,
    adapt,
    render_scene,
)
from clearclip_core.adaptation.similarity import DistinctImages, ImageLayout, cluster
from clearclip_core.wording.diversity import image_vector, k_center
from tests.bench.annotation_world import Picture, World, drawn, street
from tests.bench.conftest import Report
from tests.bench.test_annotators import MEAN_LOSS, NONSENSE

PROJECTS = int(os.environ.get("TASK_ORDER_PROJECTS", "2"))
COUNTS = tuple(map(int, os.environ.get("TASK_ORDER_COUNTS", "5,10").split(",")))
#: Random orders of a project. Their mean is what other orders are compared with.
LOTS = int(os.environ.get("TASK_ORDER_LOTS", "4"))
#: Share of the corrections of random order with which an order is to gain as much.
GOAL = 0.7
#: Pictures of a first batch that is not chosen by a score.
FIRST = 5

SCENES, DRIVES = HELD_OUT_SEEDS[2360:2560], HELD_OUT_SEEDS[6000:6020]
#: Frames of a drive, and the size of the scene that they are cut from.
FRAMES, WHOLE_HW, FRAME_HW = 10, (470, 660), (448, 597)

#: (C, 2) gains in points of mIoU after each of `COUNTS`, on either half of the unseen pictures.
Gains = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """An order of the tasks.

    Attributes:
        score: the attribute of `Uncertainty` that the highest of comes first; "": in random order.
        first: how the first `FIRST` are chosen: "random", "k-center" or, by the score too, "".
        learns: rank anew after each count, by what is live then; else by the words alone.
        apart: a near-duplicate comes after all pictures of which fewer near-duplicates came.
        offered: those that the product offers come first: no near-duplicates of each other or of
            corrected ones, as far as the pictures tell that were looked at until then.
    """

    score: str = ""
    first: str = ""
    learns: bool = False
    apart: bool = False
    offered: bool = False


ORDERS = {
    "random, near-duplicates apart": Order(apart=True),
    "as offered": Order(offered=True),
    "effort": Order("effort"),
    "effort, near-duplicates apart": Order("effort", apart=True),
    "random, then effort": Order("effort", "random", learns=True),
    "k-center, then effort, near-duplicates apart": Order("effort", "k-center", True, True),
}


@dataclass(eq=False)
class Pool:
    """The pictures that projects are drawn from.

    Attributes:
        world: pictures and labels.
        groups: number of groups that a project has.
        size: pictures of a group, which follow each other.
    """

    world: World
    groups: int
    size: int = 1

    @cached_property
    def _halves(self) -> list[World]:
        return [replace(self.world, unseen=self.world.unseen[half::2]) for half in (0, 1)]

    def project(self, seed: int) -> Project:
        """Draw a project."""
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(self.world.corrected) // self.size)[: self.groups]
        pictures = (chosen[:, None] * self.size + np.arange(self.size)).ravel()
        return Project(self, pictures.tolist(), rng)

    def gain(self, adaptation: Adaptation | None) -> npt.NDArray[np.float64]:
        """Return (2,) the points of mIoU gained on either half of the unseen pictures."""
        if adaptation is None:
            return np.zeros(2)
        return np.array([(half.ious(adaptation) - half.before).mean() for half in self._halves])


class Project:
    """Pictures that are corrected in several orders.

    Args:
        pool: where they come from.
        pictures: their places there.
        rng: draws the random orders.
    """

    def __init__(self, pool: Pool, pictures: Sequence[int], rng: np.random.Generator) -> None:
        self._pool = pool
        self._features = [pool.world.corrected[picture][0] for picture in pictures]
        self._examples = [pool.world.corrected_cleanly(picture) for picture in pictures]
        self._clusters = cluster(self._examples)
        self._lots = [rng.permutation(len(pictures)).tolist() for _ in range(LOTS)]
        self._learned: dict[frozenset[int], tuple[Adaptation | None, Gains]] = {}

    def gains(self) -> dict[str, Gains]:
        """Return what each order gains.

        The best random order is chosen by one half of the unseen pictures and judged by the other.
        """
        lots = np.array([self._follow(Order(), lot) for lot in self._lots])  # (L, C, 2)
        best = np.take_along_axis(lots, lots.argmax(axis=0)[None, :, ::-1], axis=0)[0]
        others = {name: self._follow(order, self._lots[0]) for name, order in ORDERS.items()}
        return {"random": lots.mean(axis=0), f"best of {LOTS} random orders": best} | others

    def shared(self, count: int) -> int:
        """Count the pictures that are among the first by uncertainty and by effort."""
        one, other = (
            set(self._ranked(Order(score), self._lots[0], [], None)[:count])
            for score in ("uncertainty", "effort")
        )
        return len(one & other)

    def _follow(self, order: Order, lot: Sequence[int]) -> Gains:
        """Correct in an order."""
        done = self._first(order, lot)
        live, gains = None, []
        for count in COUNTS:
            left = self._ranked(order, lot, done, live)
            left = self._offered(left, done, count) if order.offered else left
            done = [*done, *left][:count]
            adaptation, gain = self._learn(frozenset(done))
            live = adaptation if order.learns else None
            gains.append(gain)
        return np.array(gains)

    def _first(self, order: Order, lot: Sequence[int]) -> list[int]:
        if order.first == "k-center":
            return k_center(torch.stack([image_vector(each) for each in self._features]), FIRST)
        return list(lot[:FIRST]) if order.first else []

    def _offered(self, left: Sequence[int], done: Sequence[int], count: int) -> list[int]:
        """Return the tasks that are left, first those that `TaskPicker` would pick for a count."""
        layouts = [ImageLayout.of_example(example) for example in self._examples]
        images = DistinctImages([layouts[task] for task in done], count - len(done))
        for task in left:
            if images.add(layouts[task]):
                break
        first = [left[index] for index in images.distinct()]
        return [*first, *(task for task in left if task not in first)]

    def _ranked(
        self, order: Order, lot: Sequence[int], done: Sequence[int], live: Adaptation | None
    ) -> list[int]:
        """Return the tasks that are left, in an order."""
        world = self._pool.world
        left = [task for task in lot if task not in done]
        if order.score:
            scores = {
                task: Uncertainty.of(
                    world.segmenter.score(self._features[task], world.vocabulary, adaptation=live)
                )
                for task in left
            }
            left.sort(key=lambda task: getattr(scores[task], order.score), reverse=True)
        if not order.apart:
            return left
        came = np.bincount(self._clusters[list(done)], minlength=len(lot))
        turns = {}
        for task in left:
            turns[task] = came[self._clusters[task]]
            came[self._clusters[task]] += 1
        return sorted(left, key=lambda task: turns[task])

    def _learn(self, tasks: frozenset[int]) -> tuple[Adaptation | None, Gains]:
        """Fit the corrections of tasks: what goes live, and what that gains."""
        if tasks not in self._learned:
            world = self._pool.world
            examples = [self._examples[task] for task in tasks]
            live = adapt(examples, world.segmenter.embed, world.vocabulary).adaptation
            self._learned[tasks] = live, self._pool.gain(live)
        return self._learned[tasks]


def scenes(renamed: Mapping[str, str]) -> Pool:
    """Make a pool of drawn scenes, which have nothing in common."""
    world = drawn(SCENE_LABELS, renamed)
    return Pool(replace(world, corrected=_scenes(world.segmenter)), groups=80)


def drives(renamed: Mapping[str, str]) -> Pool:
    """Make a pool of drives through drawn scenes."""
    world = drawn(SCENE_LABELS, renamed)
    name = world.name.replace("scenes", "drives")
    return Pool(replace(world, name=name, corrected=_frames(world.segmenter)), 8, FRAMES)


def photographs(renamed: Mapping[str, str]) -> Pool:
    """Make a pool of frames of few drives."""
    return Pool(street(renamed), groups=60)


@cache
def _scenes(segmenter: Segmenter) -> list[Picture]:
    found = map(render_scene, SCENES)
    return [(segmenter.encode(each.image), each.label_map.astype(np.uint8)) for each in found]


@cache
def _frames(segmenter: Segmenter) -> list[Picture]:
    """Cut frames from larger scenes, each a little further on, lighter or darker, with noise."""
    rng = np.random.default_rng(0)
    height, width = FRAME_HW
    frames = []
    for seed in DRIVES:
        whole = render_scene(seed, WHOLE_HW)
        for step in np.linspace(0, 1, FRAMES):
            y, x = (int(step * (a - b)) for a, b in zip(WHOLE_HW, FRAME_HW, strict=True))
            window = slice(y, y + height), slice(x, x + width)
            noise = rng.normal(0, 4, (height, width, 1))
            image = np.clip(whole.image[window] * rng.uniform(0.92, 1.08) + noise, 0, 255)
            truth = whole.label_map[window].astype(np.uint8)
            frames.append((segmenter.encode(image.astype(np.uint8)), truth))
    return frames


def report_orders(report: Report, name: str, projects: Sequence[Mapping[str, Gains]]) -> None:
    """Report the mean gains of each order beside those of random order, with standard errors."""
    table = {
        order: np.array([each[order].mean(axis=1) for each in projects]) for order in projects[0]
    }
    lot = table["random"]  # (P, C)
    more = [min(count / GOAL, COUNTS[-1]) for count in COUNTS]
    goal = np.array([np.interp(more, (0, *COUNTS), (0, *each)) for each in lot])
    for order, gains in table.items():
        short = f", {_with_errors((gains - goal)[:, :-1])} more than the goal but for the last"
        report.add(
            f"gain after {', '.join(map(str, COUNTS))} corrections, order: {order}, {name}",
            f"that of random order after 1 / {GOAL} times as many",
            ", ".join(f"{each:+.2f}" for each in gains.mean(axis=0)),
            f"points of mIoU, mean (standard error) of {len(projects)} projects: "
            f"{_with_errors(gains - lot)} more than random order{short if len(COUNTS) > 1 else ''}",
        )


def _with_errors(values: Gains) -> str:
    """Format (P, C) values as means and standard errors of C columns."""
    errors = (
        values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else values[0] * np.nan
    )
    return ", ".join(
        f"{a:+.2f} ({b:.2f})" for a, b in zip(values.mean(axis=0), errors, strict=True)
    )


@pytest.fixture(scope="module", params=[NONSENSE, {}], ids=["renamed", "own words"])
def renamed(request: pytest.FixtureRequest) -> Mapping[str, str]:
    names: Mapping[str, str] = request.param
    return names


@pytest.fixture(
    scope="module", params=[scenes, drives, photographs], ids=lambda kind: kind.__name__
)
def pool(request: pytest.FixtureRequest, renamed: Mapping[str, str]) -> Pool:
    made: Pool = request.param(renamed)
    return made


def test_uncertainty_and_effort_choose_the_same(report: Report, pool: Pool) -> None:
    """So no order by uncertainty is measured beside that by effort."""
    count = 10
    shared = [pool.project(seed).shared(count) for seed in range(PROJECTS)]
    report.add(
        f"of the first {count} tasks by effort, those among the first {count} by uncertainty, "
        f"{pool.world.name}",
        "",
        f"{np.mean(shared):.1f}",
        f"{len(shared)} projects, {min(shared)} at least",
    )
    assert min(shared) > count / 2


def test_orders(report: Report, pool: Pool) -> None:
    projects = [pool.project(seed).gains() for seed in range(PROJECTS)]
    report_orders(report, pool.world.name, projects)
    means = [gains.mean() for each in projects for gains in each.values()]
    assert min(means) > -MEAN_LOSS
