"""A stand-in for the model whose answers a person can foresee: labels are the names of colours."""

import base64
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from backend.inference.engine import Engine
from clearclip_core import (
    METHODS,
    TEMPLATES,
    Adaptation,
    ClickModel,
    DenseFeatures,
    Label,
    PreparedImage,
    RGBArray,
    Scores,
    Segmentation,
    Vocabulary,
)
from clearclip_core.segmentation.windows import WindowPlan

Work = tuple[str, tuple[str, ...] | tuple[int, ...]]

RGB = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
#: The colour of a word that is none.
OTHER = (1, 2, 3)
#: Words that mean a colour.
ALIKE = {"crimson": "red", "scarlet": "red", "navy": "blue"}


def colour_of(phrase: str) -> tuple[int, int, int]:
    """The colour that is named first in a phrase, such as "red" in "the red car"."""
    colours = (RGB.get(ALIKE.get(word, word)) for word in phrase.split())
    return next(filter(None, colours), OTHER)


@dataclass(frozen=True, eq=False, kw_only=True)
class ColourScores(Scores):
    """What `ColourSegmenter.decide` makes a segmentation of; the cosine is 1 where it fits."""

    image: RGBArray
    labels: tuple[Label, ...]
    taught: dict[str, str]


class ColourWords:
    """The stand-in's text encoder: knows what it has been asked for before."""

    def __init__(self, log: list[Work]) -> None:
        self.templates = TEMPLATES
        self.known: set[str] = set()
        self.fault: Callable[[Sequence[str]], None] = lambda _: None
        self._log = log

    def missing(self, prompts: Sequence[str]) -> list[str]:
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        if self.missing(prompts):
            self._log.append(("embed", tuple(prompts)))
            self.fault(prompts)
            self.known.update(prompts)
        colours = [colour_of(prompt) for prompt in prompts]
        return F.normalize(torch.tensor(colours).float(), dim=-1)


class ColourSegmenter:
    """Each pixel gets the label that is called like its colour; its share of 255 is certain.

    Every picture is one window of patches of one pixel, whose features are its colours.

    Attributes:
        log: what the model was asked for, in order: the prompts that were embedded, and the widths
            of the pictures that were encoded together.
        gate: while it is closed, pictures that are being encoded stay so.
        started: released whenever a batch of pictures arrives at the gate.
        fault: called with each batch; may raise.
    """

    def __init__(self, notice: str | None = None, words_known: bool = True) -> None:
        self.model = SimpleNamespace(name="colours", notice=notice, contrast=("grey",))
        self.encoder = SimpleNamespace(
            device=torch.device("cpu"), dtype=torch.float32, precision="fp32"
        )
        self.method = METHODS["clearclip"]
        self.windows_at_once = 4
        self.features_id = "colours"
        self.log: list[Work] = []
        self.embed: Any = ColourWords(self.log)
        if words_known:
            self.embed.known.update([*RGB, "crash"])
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.fault: Callable[[Sequence[PreparedImage], int], None] = lambda *_: None
        self.click_model: ClickModel | None = None

    @property
    def encoded(self) -> list[tuple[int, ...]]:
        return [widths for work, widths in self.log if work == "encode"]  # type: ignore[misc]

    @property
    def embedded(self) -> list[tuple[str, ...]]:
        return [prompts for work, prompts in self.log if work == "embed"]  # type: ignore[misc]

    def prepare(self, image: RGBArray) -> PreparedImage:
        size_hw = image.shape[0], image.shape[1]
        return PreparedImage(image, WindowPlan(size_hw, size_hw, max(size_hw), 1, (1, 1)))

    def encode_batch(
        self, pictures: Sequence[PreparedImage], windows_at_once: int
    ) -> list[DenseFeatures]:
        self.log.append(("encode", tuple(picture.resized.shape[1] for picture in pictures)))
        self.started.release()
        assert self.gate.wait(60)
        self.fault(pictures, windows_at_once)
        colours = [torch.from_numpy(picture.resized.copy())[None].float() for picture in pictures]
        encoded = zip(colours, pictures, strict=True)
        return [DenseFeatures(patches, picture.plan) for patches, picture in encoded]

    def vocabulary(self, labels: tuple[Label, ...] | Vocabulary, contrast: bool) -> Vocabulary:
        return replace(Vocabulary.of(labels), contrast=self.model.contrast if contrast else ())

    def score(
        self,
        features: DenseFeatures,
        vocabulary: Vocabulary,
        contrast: bool,
        adaptation: Adaptation | None = None,
    ) -> ColourScores:
        assert contrast, "the backend asks for contrast words"
        labels = vocabulary.labels
        prompts = [prompt for label in labels for prompt in label.prompts]
        assert not self.embed.missing(prompts), "words first"
        if "crash" in prompts:
            raise ZeroDivisionError("a secret of the model")
        image = features.patches[0].byte().numpy()
        vocabulary = self.vocabulary(vocabulary, contrast)
        taught = taught_colours(adaptation)
        names = [*(label.name for label in labels), ""]
        owners = [names[index] for index in vocabulary.query_labels]
        words = [taught.get(o, q) for o, q in zip(owners, vocabulary.queries, strict=True)]
        fits = [(image == colour_of(word)).all(axis=-1) for word in words]
        cosines = torch.from_numpy(np.stack(fits)).float()
        return ColourScores(
            cosines, features.plan, vocabulary, image=image, labels=labels, taught=taught
        )

    def decide(
        self,
        scores: ColourScores,
        threshold: Sequence[float] = (),
        image: RGBArray | None = None,
        refine: bool = False,
        propagate: bool = False,
    ) -> Segmentation:
        assert image is not None
        assert image.shape == scores.image.shape
        label_map = np.full(image.shape[:2], -1, np.int16)
        confidence = np.full(image.shape[:2], 0.75, np.float16)
        for index, label in enumerate(scores.labels):
            for prompt in label.prompts:
                colour = colour_of(scores.taught.get(label.name, prompt))
                label_map[(scores.image == colour).all(axis=-1)] = index
        confidence[:, image.shape[1] // 2 :] = 0.5
        return Segmentation(label_map, confidence, tuple(label.name for label in scores.labels))


def teach(**colours: str) -> Adaptation:
    """What lets the stand-in see a label in another colour than it is called."""
    names = sorted(colours)
    directions = np.array([RGB[colours[name]] for name in names], np.float32)
    return Adaptation(tuple(names), directions, np.zeros(len(names), np.float32), pictures=1)


def taught_colours(adaptation: Adaptation | None) -> dict[str, str]:
    """Label -> the colour that `teach` has said; what a real fit has found is none."""
    if adaptation is None:
        return {}
    words = {rgb: word for word, rgb in RGB.items()}
    rows = zip(adaptation.names, adaptation.directions.astype(int).tolist(), strict=True)
    return {name: words[tuple(row)] for name, row in rows if tuple(row) in words}


def colour_engine(segmenter: ColourSegmenter | None = None, **options: Any) -> Engine:
    stand_in: Any = segmenter or ColourSegmenter()
    engine = Engine(lambda: stand_in, lambda: "colours-1", **options)
    engine.start()
    engine.segmenter()
    return engine


def flag(*columns: str, size_hw: tuple[int, int] = (40, 60)) -> RGBArray:
    """Upright stripes of equal width, one for each colour."""
    image = np.zeros((*size_hw, 3), np.uint8)
    edges = np.linspace(0, size_hw[1], len(columns) + 1).astype(int)
    for colour, left, right in zip(columns, edges, edges[1:], strict=False):
        image[:, left:right] = RGB[colour]
    return image


def data_url(image: RGBArray, kind: str = "png", **options: Any) -> str:
    """An image as Label Studio's tasks may hold it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def pixels_of(url: str) -> npt.NDArray[np.int64]:
    """The pixels (H, W, 3) of a picture that a page shows: the data URL of a JPEG."""
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int64)


def brush_config(*labels: str, attributes: str = "") -> str:
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="mask" toName="image" {attributes}>{tags}</BrushLabels></View>'
    )
