"""What was known on drawn scenes only, on street photographs beside them; see `tests.bench.street`.

What learning gains from corrected frames: `tests.bench.test_learning`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from clearclip_core import BEST_TEMPLATES, METHODS, TEMPLATES, Label, Segmenter, Uncertainty
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.text_encoder import TextEncoder
from clearclip_core.evaluation.benchmarks import BENCHMARKS, find_samples
from clearclip_core.evaluation.comparison import (
    AS_BACKEND,
    AS_PAPER,
    Candidate,
    CandidateFigures,
    LabelledFolder,
    PredictionRule,
    compare,
    mask_overlaps,
    shares_of,
)
from clearclip_core.images.label_maps import IGNORE, NOTHING
from examples.demo_model.images import SCENE_WORDS
from tests.bench.conftest import Report
from tests.bench.street import Encoded, encoded, load_street
from tests.bench.test_prompting import add_ious, prompted

#: Pictures that are measured, spread over all.
PICTURES = 30
#: Sets of templates that are cheaper than all.
FEWER = {
    "the best 7": BEST_TEMPLATES,
    "the first of them": BEST_TEMPLATES[:1],
    "7 of 80 at equal steps": TEMPLATES[::12],
}
#: Of the pictures, each which is drawn with these.
EVERY = 3


@dataclass(frozen=True, eq=False)
class World:
    """A model, of the method ``clearclip``, with pictures that it has not seen."""

    name: str
    segmenter: Segmenter
    folder: LabelledFolder

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The pictures, each encoded once."""
        return encoded(self.segmenter, (picture.read() for picture in self.folder.pictures))

    @property
    def names(self) -> list[str]:
        """Names of the labels."""
        return [label.name for label in self.folder.labels]

    def figures(
        self, rule: PredictionRule, labels: Sequence[str] | None = None
    ) -> CandidateFigures:
        """Measure the pictures, predicted by a rule; by default all labels are asked for.

        Pixels of labels that are not asked for have none.
        """
        asked = self.names if labels is None else labels
        values = np.full(256, NOTHING, np.uint8)
        values[[self.names.index(name) for name in asked]] = range(len(asked))
        values[IGNORE] = IGNORE
        candidate = Candidate(self.segmenter, tuple(map(Label, asked)), "", "", rule)
        figures = CandidateFigures(len(asked))
        for each in self.encoded:
            masks = candidate.masks(each.features, each.rgb)
            figures.add(mask_overlaps(masks, values[each.truth], len(asked)), 0)
        return figures

    def of_method(self, method: str) -> CandidateFigures:
        """Measure the pictures as the paper does, encoded by a method."""
        model: LoadedModel = self.segmenter.model
        if model.sink_channels is None:  # small models have none
            model = replace(model, sink_channels=())
        segmenter = Segmenter(model, method, self.segmenter.preprocessing)
        candidate = Candidate(segmenter, tuple(map(Label, self.names)), "", "", AS_PAPER)
        return compare(self.folder, [candidate]).figures[0]


@pytest.fixture(scope="module", params=["drawn scenes", "street photographs"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    if request.param == "drawn scenes":
        pictures = tuple(find_samples(BENCHMARKS["demo"], None)[:PICTURES])
        segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
        name = f"demo model, {PICTURES} drawn scenes"
        return World(name, segmenter, LabelledFolder(pictures, SCENE_WORDS))
    segmenter, folder = load_street(tmp_path_factory.mktemp("street"), PICTURES)
    name = f"street model (no CLIP), {len(folder.pictures)} photographs"
    return World(name, segmenter, folder)


def row(figures: CandidateFigures) -> tuple[str, str]:
    """Format mIoU, and the other figures as detail."""
    iou, *others = (f"{100 * (share or 0):.1f} %" for share in figures.shares)
    names = ("boundary IoU", "saved paint", "accepted")
    return iou, ", ".join(map(" ".join, zip(names, others, strict=True)))


@pytest.mark.parametrize("method", list(METHODS))
def test_methods(report: Report, world: World, method: str) -> None:
    measured, detail = row(world.of_method(method))
    report.add(f"mIoU of {method}: {world.name}", "", measured, detail)


def test_refinement(report: Report, world: World) -> None:
    rules = {
        "as the paper": AS_PAPER,
        "refined": PredictionRule(contrast=False, min_island_share=0),
        "as the backend": AS_BACKEND,
    }
    for name, rule in rules.items():
        figures = world.figures(rule)
        measured, detail = row(figures)
        report.add(f"mIoU {name}: {world.name}", "", measured, detail)
        for label, each in zip(world.folder.labels, figures.labels, strict=True):
            print(f"{label.name} {100 * (shares_of(each)[0] or 0):.1f}", end=", ")


def test_contrast_words(report: Report, world: World) -> None:
    """Half of the labels are asked for; the contrast words are those that the model knows."""
    half = world.names[::2]
    for name, contrast in (("without", False), ("with", True)):
        measured, detail = row(world.figures(PredictionRule(contrast=contrast), half))
        asked = f"{len(half)} of {len(world.names)} labels asked for"
        report.add(f"mIoU {name} contrast words, {asked}: {world.name}", "", measured, detail)


def test_fewer_templates_draw_nearly_the_same(report: Report, world: World) -> None:
    """Compare with label maps of all templates: of all labels, and of half with contrast words."""
    segmenter = Segmenter(world.segmenter.model, preprocessing=world.segmenter.preprocessing)
    whole = segmenter.embed(world.names)
    every, half = (tuple(map(Label, names)) for names in (world.names, world.names[::2]))
    pictures = world.encoded[::EVERY]

    def maps(labels: tuple[Label, ...], contrast: bool) -> list[npt.NDArray[np.int16]]:
        return [
            segmenter.decide(
                segmenter.score(each.features, labels, contrast), image=each.rgb, refine=True
            ).label_map
            for each in pictures
        ]

    asked = ((every, False), (half, True))
    expected = [maps(*each) for each in asked]
    for name, templates in FEWER.items():
        segmenter.embed = TextEncoder(segmenter.model.embed, templates)
        cosines = (segmenter.embed(world.names) * whole).sum(dim=1)
        made = [maps(*each) for each in asked]
        same = [
            100 * statistics.mean(float((a == b).mean()) for a, b in zip(*pair, strict=True))
            for pair in zip(expected, made, strict=True)
        ]
        report.add(
            f"pixels with the label of all templates, words in {name}: {world.name}",
            "",
            f"{same[0]:.2f} %, {same[1]:.2f} % of half of the labels",
            f"{len(pictures)} of them; cosine with all templates {cosines.min():.4f} at least",
        )


def test_prompts(report: Report, world: World) -> None:
    ious = prompted(world.segmenter, world.names, world.encoded)
    add_ious(report, ious, world.name, "simulated annotator")


def test_effort_foretells_what_is_wrong(report: Report, world: World) -> None:
    rows = []
    for each in world.encoded:
        scores = world.segmenter.score(each.features, world.names, contrast=True)
        made = world.segmenter.decide(scores, image=each.rgb, refine=True).label_map
        foretold = Uncertainty.of(scores)
        wrong = (made != each.truth)[each.truth != IGNORE].mean()
        rows.append((wrong, foretold.effort, foretold.uncertainty))
    wrong_share, effort, uncertainty = np.array(rows).T
    report.add(
        f"rank correlation of effort with the share of wrong pixels: {world.name}",
        "",
        f"{spearmanr(wrong_share, effort).statistic:.2f}",
        f"uncertainty {spearmanr(wrong_share, uncertainty).statistic:.2f}; effort says "
        f"{100 * effort.mean():.1f} % of pixels, {100 * wrong_share.mean():.1f} % are wrong",
    )
