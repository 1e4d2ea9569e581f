"""Learning from annotators of all kinds: what it gains or costs on pictures nobody annotated.

Ten pictures are annotated by each behaviour of `tests.bench.annotators`, drawn by a seed, and the
label maps of unseen pictures are compared with the truth, at every fourth pixel of every fourth
row. ``ANNOTATOR_SEEDS`` says how many seeds (20). The seeds of the scenes are not those on which
the constants of `clearclip_core.adaptation` were chosen. Street photographs are those of
`tests.bench.test_street`, which says how to get them: of the frames of the sequences that the
street model has not seen, the first half is annotated, and every second of the others is unseen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
import torch

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Adaptation,
    DenseFeatures,
    Example,
    Segmenter,
    Vocabulary,
    adapt,
    render_scene,
)
from clearclip_core.adaptation.adaptation import query_names
from tests.bench.annotators import Behaviour, Masks, Moment, behaviours, clean, half
from tests.bench.conftest import Report
from tests.bench.test_street import load_street

SEEDS = int(os.environ.get("ANNOTATOR_SEEDS", "20"))
ANNOTATED = 10
STEP = 4
#: Numbers of annotated pictures, and the most orders of each.
COUNTS, FEW_SEEDS = (1, 2, 5, 10, 20, 50), 5
CORRECTED, UNSEEN = HELD_OUT_SEEDS[1200:1280], HELD_OUT_SEEDS[2300:2360]
#: Labels of a project that leaves some things of the scenes unlabelled, as projects do.
PROJECT = ("sky", "tree", "house", "road", "grass", "mountain", "water", "car", "person", "fence")
NONSENSE = {"tree": "blicket", "road": "dax"}

#: Points of mIoU, and of one label's IoU, that no behaviour may cost.
MEAN_LOSS, LABEL_LOSS = 1.0, 3.0


#: Features and (H, W) truth of a picture.
Encoded = tuple[DenseFeatures, npt.NDArray[np.uint8]]


@dataclass(eq=False)
class World:
    """A project with annotated and unseen pictures.

    Attributes:
        name: for the table.
        segmenter: as the backend asks it, with contrast words.
        labels: names of the labels, as the truth counts them.
        corrected: features and (H, W) truth of the pictures that annotators get.
        unseen: the same of the others; all of one size.
        renamed: true name -> the project's name of it.
    """

    name: str
    segmenter: Segmenter
    labels: Sequence[str]
    corrected: Sequence[tuple[DenseFeatures, npt.NDArray[np.uint8]]]
    unseen: Sequence[tuple[DenseFeatures, npt.NDArray[np.uint8]]]
    renamed: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the labels in the project."""
        return tuple(self.renamed.get(label, label) for label in self.labels)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The project's labels, with contrast words."""
        return self.segmenter.vocabulary(self.names, contrast=True)

    @cached_property
    def before(self) -> npt.NDArray[np.float64]:
        """IoU of each label by the words alone, in percent."""
        return self.ious(None)

    def ious(self, adaptation: Adaptation | None) -> npt.NDArray[np.float64]:
        """Measure the (K,) IoUs of the labels on the unseen pictures, in percent."""
        embeddings = self.segmenter.embed(self.vocabulary.queries)
        bias = torch.zeros(len(embeddings))
        if adaptation is not None:
            embeddings, bias = adaptation.apply(embeddings, self.vocabulary)
        owners = np.array(
            [
                self.names.index(name) if name else len(self.names)
                for name in query_names(self.vocabulary)
            ]
        )
        count = len(self.names) + 1
        confusion = np.zeros((count, count))
        plan = self.unseen[0][0].plan
        rows, columns = (
            torch.from_numpy(axis.matrix[::STEP]).float() for axis in (plan.rows, plan.columns)
        )
        for features, truth in self.unseen:
            mosaic = plan.mosaic(features.patches.permute(0, 3, 1, 2))
            scores = torch.einsum("qd,dhw->qhw", embeddings, mosaic) + bias[:, None, None]
            made = owners[(rows @ scores @ columns.T).argmax(dim=0).numpy()]
            true = truth[::STEP, ::STEP].astype(int)
            valid = true < count
            pairs = np.bincount((true * count + made)[valid], minlength=count**2)
            confusion += pairs.reshape(count, count)
        both = confusion.diagonal()
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
        ious: npt.NDArray[np.float64] = 100 * (both / np.maximum(union, 1))[:-1]
        return ious

    def examples(
        self, behaviour: Behaviour, seed: int, twice: bool = False, count: int = ANNOTATED
    ) -> list[Example]:
        """Let pictures be annotated; `twice` two of them over and over, as video frames are."""
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(self.corrected))[:count]
        if twice:
            chosen = np.repeat(chosen[:2], ANNOTATED // 2)
        made = []
        for index, picture in enumerate(chosen.tolist()):
            features, truth = self.corrected[picture]
            masks, annotator = behaviour(self._masks(truth), Moment(index, count, self.names, rng))
            name = f"{picture}-{index}"
            made.append(Example.of(features, masks, self.names, name, annotator=annotator))
        return made

    def accepted(self, seed: int) -> list[Example]:
        """Let every prediction of the words be accepted as it is."""
        made = []
        for picture in np.random.default_rng(seed).permutation(len(self.corrected))[:ANNOTATED]:
            features, _ = self.corrected[picture]
            scores = self.segmenter.score(features, self.vocabulary)
            shown = np.asarray(self.segmenter.decide(scores, refine=False).label_map)
            masks = {name: shown == index for index, name in enumerate(self.names)}
            some = {name: mask for name, mask in masks.items() if mask.any()}
            made.append(Example.of(features, some, self.names, f"{picture}", kept=some))
        return made

    def gain(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """Measure what learning from examples gains for each label, in points of IoU."""
        fit = adapt(examples, self.segmenter.embed, self.vocabulary)
        if fit.adaptation is None:
            return np.zeros(len(self.names))
        return self.ious(fit.adaptation) - self.before

    def _masks(self, truth: npt.NDArray[np.uint8]) -> Masks:
        return {
            name: truth == index for index, name in enumerate(self.names) if (truth == index).any()
        }


def drawn(labels: Sequence[str], renamed: Mapping[str, str]) -> World:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    numbers = np.full(256, len(labels), np.uint8)
    for index, label in enumerate(labels):
        numbers[SCENE_LABELS.index(label)] = index

    def encoded(seeds: Sequence[int]) -> list[tuple[DenseFeatures, npt.NDArray[np.uint8]]]:
        scenes = [render_scene(seed) for seed in seeds]
        return [(segmenter.encode(s.image), numbers[s.label_map.astype(np.uint8)]) for s in scenes]

    name = f"drawn scenes, {len(labels)} labels{', two renamed' if renamed else ''}"
    return World(name, segmenter, labels, encoded(CORRECTED), encoded(UNSEEN), renamed)


@cache
def street_pictures() -> tuple[Segmenter, Sequence[str], Sequence[Encoded], Sequence[Encoded]]:
    """Encode the frames that are annotated, and those that are unseen."""
    with TemporaryDirectory() as folder:
        segmenter, found = load_street(Path(folder), None)
    half = len(found.pictures) // 2
    some = found.pictures[:half], found.pictures[half::2]
    annotated, unseen = (
        [(segmenter.encode(rgb), truth) for rgb, truth in (each.read() for each in pictures)]
        for pictures in some
    )
    return segmenter, [label.name for label in found.labels], annotated, unseen


def street(renamed: Mapping[str, str]) -> World:
    segmenter, labels, annotated, unseen = street_pictures()
    name = f"street photographs, {len(labels)} labels{', two renamed' if renamed else ''}"
    return World(name, segmenter, labels, annotated, unseen, renamed)


def make_world(labels: Sequence[str], renamed: Mapping[str, str]) -> World:
    return drawn(labels, renamed) if labels else street(renamed)


KINDS = pytest.mark.parametrize(
    "labels", [PROJECT, SCENE_LABELS, ()], ids=["10 labels", "18 labels", "street photographs"]
)


def report_gains(
    report: Report, world: World, name: str, gains: Sequence[npt.NDArray[np.float64]]
) -> None:
    table = np.array(gains)
    means = table.mean(axis=1)
    report.add(
        f"learning from {ANNOTATED} pictures, {world.name}: {name}",
        f"gain (mean above -{MEAN_LOSS:g}, each label above -{LABEL_LOSS:g})",
        f"mean {means.mean():+.2f}, worst {means.min():+.2f}, worst label {table.min():+.1f}",
        f"points of IoU on unseen pictures, {len(gains)} seeds, {int(table.any(axis=1).sum())} "
        f"live; words alone {world.before.mean():.1f}",
    )


@KINDS
def test_whoever_annotates_however(report: Report, labels: Sequence[str]) -> None:
    """Every behaviour, with a table; those that cost too much fail at the end."""
    world = make_world(labels, {})
    failed = []
    ground = "grass" if labels else "building"
    for name, behaviour in behaviours("sky", "road", "tree", ground).items():
        gains = [world.gain(world.examples(behaviour, seed)) for seed in range(SEEDS)]
        report_gains(report, world, name, gains)
        failed += costly(name, gains)
    for name, behaviour in (("clean", clean), ("sky and road exchanged", EXCHANGED)):
        gains = [world.gain(world.examples(behaviour, seed, twice=True)) for seed in range(SEEDS)]
        report_gains(report, world, f"two frames five times, {name}", gains)
        failed += costly(name, gains)
    gains = [world.gain(world.accepted(seed)) for seed in range(SEEDS)]
    report_gains(report, world, "accepted as predicted", gains)
    failed += costly("accepted", gains)
    assert not failed


@KINDS
def test_renamed_labels(report: Report, labels: Sequence[str]) -> None:
    world = make_world(labels, NONSENSE)
    gains = [world.gain(world.examples(clean, seed)) for seed in range(SEEDS)]
    report_gains(report, world, "clean and complete", gains)
    assert not costly("renamed", gains)


@pytest.mark.parametrize(
    ("kind", "renamed", "behaviour"),
    [
        ("clean and complete", {}, clean),
        ("two labels renamed to nonsense words", NONSENSE, clean),
        ("each label left out by half", {}, half),
    ],
    ids=["clean", "renamed", "half"],
)
@pytest.mark.parametrize("labels", [PROJECT, ()], ids=["10 labels", "street photographs"])
def test_gain_by_corrected_pictures(
    report: Report,
    labels: Sequence[str],
    kind: str,
    renamed: Mapping[str, str],
    behaviour: Behaviour,
) -> None:
    world = make_world(labels, renamed)
    gains = {
        count: [
            world.gain(world.examples(behaviour, seed, count=count)).mean()
            for seed in range(min(SEEDS, FEW_SEEDS))
        ]
        for count in COUNTS
    }
    numbers = ", ".join(map(str, COUNTS))
    report.add(
        f"learning from 0, {numbers} pictures, {world.name}: {kind}",
        "never below -1",
        f"{world.before.mean():.1f}, then "
        + ", ".join(f"{np.mean(each):+.1f}" for each in gains.values()),
        f"mIoU on unseen pictures, {min(SEEDS, FEW_SEEDS)} orders; worst order "
        + ", ".join(f"{min(each):+.1f}" for each in gains.values()),
    )
    assert min(np.mean(each) for each in gains.values()) > -MEAN_LOSS


EXCHANGED = behaviours("sky", "road", "tree", "grass")["sky and road exchanged"]


def costly(name: str, gains: Sequence[npt.NDArray[np.float64]]) -> list[str]:
    """Say which seeds cost more than may be."""
    return [
        f"{name}, seed {seed}: mean {each.mean():+.2f}, label {each.min():+.1f}"
        for seed, each in enumerate(gains)
        if each.mean() < -MEAN_LOSS or each.min() < -LABEL_LOSS
    ]
