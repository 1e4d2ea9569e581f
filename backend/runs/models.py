"""Models: what other methods, second encoders and sizes would do on a project's annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np

from backend.annotations.annotated_image import LEAVE_OUT
from backend.annotations.annotated_project import AnnotatedProject
from backend.inference.engine import Engine
from backend.label_studio.label_config import least_thresholds, prediction_rule
from backend.runs.run_store import AskedNothing, Progress, Run, RunKind, RunParts
from backend.settings import Settings
from clearclip_core import (
    DenseFeatures,
    HeldOutAdaptations,
    Method,
    RGBArray,
    Segmenter,
    WeightsNotFoundError,
    known_second_encoders,
)
from clearclip_core.devices import measure_peak_bytes
from clearclip_core.evaluation.comparison import (
    Candidate,
    CandidateFigures,
    LabelledFolder,
    compare,
    learn_held_out,
)
from clearclip_core.evaluation.trial import Counts, judge

MOST_PICTURES: Final = 24  # annotated pictures that are compared, taken evenly from all
FEWEST_PICTURES: Final = 10  # with fewer, no model is called the better one

#: Published methods that can learn, in the order of their figures; see docs/library/methods.md.
_METHODS: Final = ("clearclip", "naclip", "pearl", "sfp", "scclip", "rfclip")

_MOST_SECOND: Final = 3  # second encoders on disk that are tried
_LARGER: Final = 1.5  # size of pictures that is tried beside today's, as a multiple of it
_MEGABYTE: Final = 1 << 20


# ---- what is found -------------------------------------------------------------------------------


class ComparedModel(msgspec.Struct, frozen=True):
    """What one choice of settings predicts of the pictures, IoUs in [0, 1]."""

    name: str  # what is chosen otherwise than now, for people
    lines: tuple[str, ...]  # of the settings to copy; none for those in use
    words_iou: float | None  # mean over the labels; None where no label is there
    learned_iou: float | None  # the same of what the other pictures teach
    saved_paint: float | None  # of what the other pictures teach
    seconds: float  # a picture, from its pixels to its masks; median
    weights_mb: float  # of all its networks, in the memory of the model's device
    #: What a picture takes there beside them while it is encoded, see `measure_peak_bytes`.
    picture_mb: float
    #: What it gains in mean IoU beside the settings in use, both learned, and its range: one draw
    #: of these pictures in twenty is below, one above.
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    losing: tuple[str, ...] = ()  # names of labels that surely lose by it


class ModelsReport(msgspec.Struct, frozen=True):
    """What was compared; the settings in use are the first."""

    pictures: int
    labels: int
    models: tuple[ComparedModel, ...]
    refused: dict[str, str] = {}  # what cannot be chosen here -> why
    left_out: dict[int, str] = {}  # task -> why it was not measured
    left_out_count: int = 0

    @property
    def best(self) -> ComparedModel:
        """The one with the largest mean IoU once it has learned; the first of equals."""
        return max(self.models, key=lambda each: each.learned_iou or 0.0)

    @property
    def is_sure(self) -> bool:
        """Whether the best is better than the settings in use, beyond chance; no label loses."""
        return self.pictures >= FEWEST_PICTURES and self.best.low > 0 and not self.best.losing


# ---- what may be chosen --------------------------------------------------------------------------


def choices(
    settings: Settings, second_encoders: Sequence[str] = (), second_px: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return what may be chosen otherwise, one thing at a time: name for people -> settings.

    Args:
        settings: those in use.
        second_encoders: names of those that are on disk.
        second_px: short side of the pictures that the second encoder in use gets.

    >>> [*choices(Settings(model="demo", method="pearl"))][-2:]
    ['scores drawn together', 'pictures at 504 px']
    """
    found: dict[str, dict[str, Any]] = {
        f"method {each}": {"method": each} for each in _other_methods(settings)
    }
    together = "scores not drawn together" if settings.propagate else "scores drawn together"
    found[together] = {"propagate": not settings.propagate}
    if settings.click_model:
        votes = "regions that do not vote" if settings.regions else "regions that vote"
        found[votes] = {"regions": not settings.regions}
    larger = round(_LARGER * settings.resized_px)
    found[f"pictures at {larger} px"] = {"short_side_px": larger}

    others = [each for each in second_encoders if each != settings.second_model]
    for name in others[:_MOST_SECOND]:
        found[f"second encoder {name}"] = {"second_model": name, "second_short_side_px": None}
    if settings.second_model:
        found |= _without_second(settings, second_px)
    return found


def _other_methods(settings: Settings) -> list[str]:
    """Return the methods that may take the place of the one in use."""
    methods = [*_METHODS, "proxyclip"] if settings.second_model else [*_METHODS]
    return [method for method in methods if method != settings.method]


def _without_second(settings: Settings, second_px: int | None) -> dict[str, dict[str, Any]]:
    """Return what may be chosen of the second encoder in use: none, or another size."""
    found: dict[str, dict[str, Any]] = {}
    if settings.method != "proxyclip":  # which cannot do without
        found["no second encoder"] = {"second_model": None, "second_short_side_px": None}
    for size_px in (settings.resized_px, 2 * settings.resized_px):
        if size_px != second_px:
            found[f"second encoder at {size_px} px"] = {"second_short_side_px": size_px}
    return found


def setting_lines(update: dict[str, Any]) -> tuple[str, ...]:
    """Return the lines of settings to copy.

    >>> setting_lines({"second_model": None, "propagate": True})
    ('SECOND_MODEL=', 'PROPAGATE=true')
    """
    texts = {None: "", True: "true", False: "false"}
    return tuple(f"{name.upper()}={texts.get(value, value)}" for name, value in update.items())


# ---- how it is measured --------------------------------------------------------------------------


def compare_models(parts: RunParts, run: Run, _: AskedNothing, progress: Progress) -> ModelsReport:
    """Compare the settings in use with others on annotated pictures of a project.

    Each is measured by the words alone, and by what the other pictures teach (held out in folds).
    Of a labeling config with several images, the first counts. The weights of CLIP stay; other
    second encoders are loaded one after the other. Nothing is written to Label Studio, and nothing
    that is learned from.

    Raises:
        ValueError: there is no annotated picture, or none can be measured.
    """
    return _Measurement(parts, run.project, progress).report()


@dataclass(frozen=True, eq=False)
class _Measured:
    words: CandidateFigures
    learned: CandidateFigures
    counts: dict[str, Counts]  # name of a picture -> what the learned masks have of it
    weights_mb: float
    picture_mb: float


@dataclass(eq=False)
class _LentEncoder:
    """Encodes images in turn with those that annotators wait for, and measures its memory once."""

    segmenter: Segmenter
    engine: Engine
    tell: Callable[[], None]  # that an image is about to be encoded
    peak_bytes: int = 0  # 0: not measured yet

    def __call__(self, rgb: RGBArray) -> DenseFeatures:
        self.tell()
        encode = partial(self.segmenter.encode, rgb)
        if self.peak_bytes:
            return self.engine.lend(encode)
        features, self.peak_bytes = self.engine.lend(partial(measure_peak_bytes, encode))
        return features


@dataclass(eq=False)
class _Measurement:
    parts: RunParts
    project: int
    progress: Progress
    left_out: dict[int, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    done: int = 0  # pictures that were encoded
    total: int = 0

    def __post_init__(self) -> None:
        client, images = self.parts.client, self.parts.images
        config = client.config(self.project)
        project = AnnotatedProject(client, images.read, self.project, config, config.images[0])
        pictures = project.pictures(MOST_PICTURES)
        if not pictures:
            raise ValueError(f"Project {self.project} has no annotated tasks.")

        self.labels = project.labels
        self.folder = LabelledFolder(pictures, project.labels)
        self.tasks = {picture.name: int(picture.task.id or 0) for picture in pictures}
        controls = [each for each in config.controls_of(project.tag.name) if each.is_predicted]
        self.thresholds = least_thresholds(controls, project.labels)

    def report(self) -> ModelsReport:
        settings = self.parts.settings
        second_px = self.parts.engine.segmenter().second_short_side_px
        updates = choices(settings, known_second_encoders(settings.model_dir), second_px)
        self.total = 2 * len(self.folder.pictures) * (1 + len(updates))
        self.parts.engine.embed(self.labels)  # in its own thread; all share the embedded words

        now = self._measure(settings)
        models = [self._compared("as it is now", {}, now, now)]
        for name, update in updates.items():
            try:
                other = self._measure(settings.model_copy(update=update))
            except (ValueError, WeightsNotFoundError) as error:
                self.refused[name] = str(error)
                self.total -= 2 * len(self.folder.pictures)
            else:
                models.append(self._compared(name, update, now, other))

        return ModelsReport(
            pictures=len(now.counts),
            labels=len(self.labels),
            models=tuple(models),
            refused=self.refused,
            left_out=self.left_out,
            left_out_count=len(self.left_out),
        )

    def _measure(self, settings: Settings) -> _Measured:
        """Measure settings by the words and by what is learned; keep no features."""
        segmenter = self.parts.engine.segmenter().variant(
            settings.method,
            settings.short_side_px,
            settings.second_model,
            second_short_side_px=settings.second_short_side_px,
            folder=settings.model_dir,
        )
        encode = _LentEncoder(segmenter, self.parts.engine, self._tell)
        if settings.regions and segmenter.click_model is None:
            raise ValueError(
                "CLICK_MODEL is loaded where clicks are answered: compare on the page."
            )
        words = Candidate(
            segmenter,
            self.labels,
            settings.encoders,
            "words",
            prediction_rule(settings, self.thresholds),
            encode_by=encode,
        )
        held_out = HeldOutAdaptations()
        if not Method.of(settings.method).remove_redundancy:  # else it cannot learn
            held_out = learn_held_out(self.folder, words, LEAVE_OUT, shows_progress=False)

        both = words, replace(words, prompts="learned", learned=held_out)
        made = compare(self.folder, both, leave_out=LEAVE_OUT, shows_progress=False)
        for name, reason in made.left_out:
            self.left_out[self.tasks[name]] = reason
        missing = dict(made.left_out)
        names = [each.name for each in self.folder.pictures if each.name not in missing]
        learned = made.figures[1]
        counts = dict(zip(names, map(_counts, learned.pictures), strict=True))
        return _Measured(
            made.figures[0],
            learned,
            counts,
            weights_mb=segmenter.weights_bytes / _MEGABYTE,
            picture_mb=encode.peak_bytes / _MEGABYTE,
        )

    def _tell(self) -> None:
        self.progress(self.done, max(self.done, self.total))
        self.done += 1

    def _compared(
        self, name: str, update: dict[str, Any], now: _Measured, other: _Measured
    ) -> ComparedModel:
        both = [key for key in now.counts if key in other.counts]
        trial = judge([now.counts[key] for key in both], [other.counts[key] for key in both])
        learned = other.learned.shares
        return ComparedModel(
            name=name,
            lines=setting_lines(update),
            words_iou=other.words.shares.iou,
            learned_iou=learned.iou,
            saved_paint=learned.saved_paint,
            seconds=median(other.learned.seconds),
            weights_mb=other.weights_mb,
            picture_mb=other.picture_mb,
            gain=trial.gain,
            low=trial.low,
            high=trial.high,
            losing=self._names(trial.losing),
        )

    def _names(self, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.labels[index].name for index in indices)


def _counts(overlaps: Sequence[Any]) -> Counts:
    """Return (K, 3) numbers of pixels of a picture's masks, as of `count_overlaps`."""
    rows = [(each.shared_px, each.predicted_px, each.true_px) for each in overlaps]
    return np.array(rows, np.int64)


MODELS: Final = RunKind(
    "models",
    "Models",
    "Annotations are read from Label Studio",
    AskedNothing,
    ModelsReport,
    compare_models,
)
