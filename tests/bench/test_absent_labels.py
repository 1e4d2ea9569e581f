"""A vocabulary of 150 words, of which a picture shows few: what absent labels take from the others.

Most of the words are made: each lies in the middle between two or three words that the model
knows, so that it fits what is between their things, and much of the things themselves. Measured
are drawn scenes of at most six labels and street photographs; see `tests.bench.street`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import SCENE_LABELS, RGBArray, ScoreOptions, Segmenter, render_scene
from clearclip_core.images.label_maps import IGNORE, Truth
from tests.bench.conftest import Report
from tests.bench.street import Encoded, encoded, load_street

#: Words of the vocabulary, labels that a drawn scene shows at most, and pictures.
WORDS, SHOWN, PICTURES = 150, 6, 24
#: The scenes on which the filter's constants were chosen have smaller seeds.
FIRST_SEED = 10_001_000

OPTIONS = {
    "off": ScoreOptions(),
    "presence 0.1": ScoreOptions(presence=0.1),
}


class MadeWords:
    """A text encoder that knows some words, and words between them: ``"a|b"``.

    Args:
        embed: the model's own text encoder.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._embed = segmenter.embed

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        rows = (self._embed(prompt.split("|")).sum(dim=0) for prompt in prompts)
        return torch.stack([F.normalize(row, dim=0) for row in rows])


@dataclass(frozen=True, eq=False)
class World:
    """A model with pictures that it has not seen, and the names of their labels."""

    name: str
    segmenter: Segmenter
    known: tuple[str, ...]
    pictures: list[Encoded]


def scenes() -> Iterator[tuple[RGBArray, Truth]]:
    """Yield drawn scenes of few labels."""
    for seed in itertools.count(FIRST_SEED):
        scene = render_scene(seed=seed)
        if len(np.unique(scene.label_map)) <= SHOWN:
            yield scene.image, scene.label_map.astype(np.uint8)


@pytest.fixture(scope="module", params=["drawn scenes", "street photographs"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    if request.param == "drawn scenes":
        segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
        name, known, read = "demo model, drawn scenes", SCENE_LABELS, scenes()
    else:
        segmenter, folder = load_street(tmp_path_factory.mktemp("street"), PICTURES)
        name = "street model (no CLIP), photographs"
        known = tuple(label.name for label in folder.labels)
        read = (picture.read() for picture in folder.pictures)
    pictures = encoded(segmenter, itertools.islice(read, PICTURES))
    segmenter.embed = MadeWords(segmenter)  # type: ignore[assignment]
    return World(name, segmenter, known, pictures)


def vocabulary(known: Sequence[str]) -> list[str]:
    """The words that the model knows, then words between two of them, then between three."""
    between = (
        "|".join(some) for size in (2, 3) for some in shuffled(itertools.combinations(known, size))
    )
    return [*known, *itertools.islice(between, WORDS - len(known))]


def shuffled(items: Iterator[tuple[str, ...]]) -> list[tuple[str, ...]]:
    every = list(items)
    return [every[index] for index in np.random.default_rng(0).permutation(len(every))]


def measure(world: World, words: Sequence[str] | None, options: ScoreOptions) -> tuple[float, ...]:
    """Return the mIoU over the known labels and the share of pixels of absent labels, in %.

    The third figure is the mean CPU time to score a picture, in seconds.

    Args:
        world: the pictures.
        words: the vocabulary; None: the labels that each picture shows.
        options: of the scores.
    """
    count = len(world.known)
    confusion = np.zeros((count, count + 1))
    absent = total = 0
    seconds = 0.0
    for picture in world.pictures:
        counted = picture.truth != IGNORE
        shown = [int(index) for index in np.unique(picture.truth[counted])]
        names = words or [world.known[index] for index in shown]
        began = time.process_time()
        scores = world.segmenter.score(picture.features, names, options=options)
        seconds += time.process_time() - began
        index_of = {name: index for index, name in enumerate(world.known)}
        indices = np.array([index_of.get(name, count) for name in names])
        made = indices[scores.label_map()][counted]
        np.add.at(confusion, (picture.truth[counted], made), 1)
        absent += np.count_nonzero(~np.isin(made, shown))
        total += made.size
    right = np.diag(confusion[:, :count])
    truth = confusion.sum(axis=1)
    union = truth + confusion[:, :count].sum(axis=0) - right
    miou = 100 * float(np.mean(right[truth > 0] / union[truth > 0]))
    return miou, 100 * absent / total, seconds / len(world.pictures)


def test_absent_labels(world: World, report: Report) -> None:
    many = vocabulary(world.known)
    shown = np.mean([len(np.unique(each.truth[each.truth != IGNORE])) for each in world.pictures])
    detail = f"{len(world.pictures)} pictures that show {shown:.1f} labels on average"
    best, *_ = measure(world, None, ScoreOptions())
    report.add(f"mIoU of the labels that are there, {world.name}", "", f"{best:.1f} %", detail)
    known = measure(world, world.known, ScoreOptions())
    rows = {f"{len(world.known)} known words, off": known} | {
        f"{len(many)} words, {name}": measure(world, many, options)
        for name, options in OPTIONS.items()
    }
    for name, (miou, absent, seconds) in rows.items():
        goal = f"≥ {best - 1:.1f} %, ≤ 2 %"
        figure = f"mIoU, pixels of absent labels: {name}, {world.name}"
        report.add(
            figure, goal, f"{miou:.1f} %, {absent:.1f} %", f"{seconds:.2f} s of CPU a picture"
        )
