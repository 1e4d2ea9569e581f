"""Projects with pictures to annotate and pictures to be judged by, drawn ones and photographs.

Drawn scenes have other seeds than those on which the constants of `clearclip_core.adaptation` were
chosen. Street photographs are those of `tests.bench.test_street`, which says how to get them: of
the frames of the sequences that the street model has not seen, the first half is annotated, and
every second of the others is unseen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
from tests.bench.annotators import Annotation, Behaviour, Masks, Moment
from tests.bench.test_street import load_street

ANNOTATED = 10
STEP = 4
CORRECTED, UNSEEN = HELD_OUT_SEEDS[1200:1280], HELD_OUT_SEEDS[2300:2360]
#: Labels of a project that leaves some things of the scenes unlabelled, as projects do.
PROJECT = ("sky", "tree", "house", "road", "grass", "mountain", "water", "car", "person", "fence")
#: Short side that is small beside the usual 448 px.
SMALL_PX = 224

#: Features and (H, W) truth of a picture; the value of a label is its place in the list of all.
Picture = tuple[DenseFeatures, npt.NDArray[np.uint8]]


@dataclass(eq=False)
class World:
    """A project with annotated and unseen pictures.

    Attributes:
        name: for the table.
        segmenter: as the backend asks it, with contrast words.
        labels: names of the labels, as the truth counts them.
        corrected: the pictures that annotators get.
        unseen: the others; all of one size.
        blank: features of a black picture of the size of the others.
        renamed: true name -> the project's name of it.
    """

    name: str
    segmenter: Segmenter
    labels: Sequence[str]
    corrected: Sequence[Picture]
    unseen: Sequence[Picture]
    blank: DenseFeatures
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
        self,
        behaviour: Behaviour,
        seed: int,
        *,
        twice: bool = False,
        blank_share: float = 0.0,
        count: int = ANNOTATED,
    ) -> list[Example]:
        """Let pictures be annotated.

        Args:
            behaviour: the annotator.
            seed: draws the pictures, and what is left to chance.
            twice: annotate two of them over and over, as video frames are.
            blank_share: share of the pictures that are black; nobody paints there.
            count: pictures that are annotated, where it is not `twice`.
        """
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(self.corrected))[:count]
        if twice:
            chosen = np.repeat(chosen[:2], ANNOTATED // 2)
        made = []
        for index, picture in enumerate(chosen.tolist()):
            features, truth = self.corrected[picture]
            predict = partial(self._predicted, picture)
            moment = Moment(index, len(chosen), self.names, rng, predict)
            if index < blank_share * len(chosen):
                features, annotation = self.blank, Annotation({})
            else:
                annotation = behaviour(self._masks(truth), moment)
            made.append(self._example(features, annotation, f"{picture}-{index}"))
        return made

    def corrected_cleanly(self, picture: int) -> Example:
        """Return the example of a picture that is annotated cleanly and completely."""
        features, truth = self.corrected[picture]
        return self._example(features, Annotation(self._masks(truth)), str(picture))

    def gain(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """Measure what learning from examples gains for each label, in points of IoU."""
        fit = adapt(examples, self.segmenter.embed, self.vocabulary)
        if fit.adaptation is None:
            return np.zeros(len(self.names))
        return self.ious(fit.adaptation) - self.before

    def _example(self, features: DenseFeatures, annotation: Annotation, name: str) -> Example:
        return Example.of(
            features,
            annotation.masks,
            self.names,
            name,
            annotator=annotation.annotator,
            kept=annotation.kept,
            removed=annotation.removed,
        )

    def _masks(self, truth: npt.NDArray[np.uint8]) -> Masks:
        return {
            name: truth == index for index, name in enumerate(self.names) if (truth == index).any()
        }

    def _predicted(self, picture: int) -> Masks:
        """Return the masks that the words predict on an annotated picture."""
        scores = self.segmenter.score(self.corrected[picture][0], self.vocabulary)
        shown = np.asarray(self.segmenter.decide(scores, refine=False).label_map)
        masks = {name: shown == index for index, name in enumerate(self.names)}
        return {name: mask for name, mask in masks.items() if mask.any()}


def drawn(labels: Sequence[str], renamed: Mapping[str, str], short_side_px: int = 448) -> World:
    """Make a world of drawn scenes with some of their labels."""
    segmenter, corrected, unseen, blank = _drawn_pictures(short_side_px)
    numbers = np.full(256, len(labels), np.uint8)
    for index, label in enumerate(labels):
        numbers[SCENE_LABELS.index(label)] = index
    some, others = (
        [(features, numbers[truth]) for features, truth in each] for each in (corrected, unseen)
    )
    size = "" if short_side_px == 448 else f", short side {short_side_px} px"
    name = f"drawn scenes, {len(labels)} labels{', two renamed' if renamed else ''}{size}"
    return World(name, segmenter, labels, some, others, blank, renamed)


def street(renamed: Mapping[str, str]) -> World:
    """Make a world of street photographs."""
    segmenter, labels, pictures, blank = _street_pictures()
    half = len(pictures) // 2
    name = f"street photographs, {len(labels)} labels{', two renamed' if renamed else ''}"
    some, others = pictures[:half], pictures[half::2]
    return World(name, segmenter, labels, some, others, blank, renamed)


@cache
def _drawn_pictures(
    short_side_px: int,
) -> tuple[Segmenter, Sequence[Picture], Sequence[Picture], DenseFeatures]:
    """Encode the scenes once for all worlds: the segmenter, corrected, unseen and black ones."""
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=short_side_px)

    def encoded(seeds: Sequence[int]) -> list[Picture]:
        scenes = [render_scene(seed) for seed in seeds]
        return [(segmenter.encode(s.image), s.label_map.astype(np.uint8)) for s in scenes]

    black = np.zeros_like(render_scene(CORRECTED[0]).image)
    return segmenter, encoded(CORRECTED), encoded(UNSEEN), segmenter.encode(black)


@cache
def _street_pictures() -> tuple[Segmenter, list[str], Sequence[Picture], DenseFeatures]:
    """Encode the photographs once for all worlds: segmenter, labels, pictures, a black one."""
    with tempfile.TemporaryDirectory() as made:
        segmenter, folder = load_street(Path(made), None)
        read = [picture.read() for picture in folder.pictures]
        pictures = [(segmenter.encode(rgb), truth) for rgb, truth in read]
        black = segmenter.encode(np.zeros_like(read[0][0]))
    return segmenter, [label.name for label in folder.labels], pictures, black
