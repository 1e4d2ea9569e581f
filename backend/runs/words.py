"""Words: try wordings of a label on pictures of a project, or check the words of all labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Final

import msgspec
import numpy as np
import torch

from backend.annotations.annotated_image import LEAVE_OUT, AnnotatedImage, find_chosen_image
from backend.errors import BadRequest, LabelConfigError
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.set_up import with_words
from backend.label_studio.task_filter import TaskFilter
from backend.learning.predicted_masks import MaskPredictor
from backend.learning.unlabelled import UnlabelledImages, fit_words
from backend.runs.crops import crop_of
from backend.runs.run_store import MOST_WORD_IMAGES, Progress, Run, RunKind, RunParts
from clearclip_core import Adaptation, BoolMask, Label, PreparedImage, RGBArray
from clearclip_core.evaluation.comparison import draw_masks
from clearclip_core.evaluation.metrics import MaskOverlap, mask_overlaps
from clearclip_core.images.drawing import thumbnail
from clearclip_core.images.label_maps import Truth
from clearclip_core.images.opening import to_data_url
from clearclip_core.wording import Swallowed, Swallowing, VocabularyCheck, check_vocabulary

MAX_WORDINGS: Final = 12
MAX_WORDS: Final = 10
MAX_LETTERS: Final = 200

_SHOWN: Final = 6  # pictures whose masks are shown side by side
_CROPS: Final = 3  # crops of what each label finds
_CROP_PX: Final = 160  # long side of a crop in px
PREVIEW_PX: Final = 256  # long side of a small picture in px
_COLOUR: Final = np.array([[255, 32, 96]], np.uint8)  # of the mask on it

MOST_TASKS: Final = 1000  # tasks that are listed; pictures are chosen among them
_READ_PER_CHOSEN: Final = 4  # annotations that are read for each picture that is chosen


# ---- what is asked for ---------------------------------------------------------------------------


class AskedWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure on a project."""

    #: Name of the label; empty to check the words of all labels.
    label: Annotated[str, msgspec.Meta(max_length=MAX_LETTERS)] = ""
    #: The words to try beside those of the labeling config, each wording with commas.
    wordings: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_WORDINGS)] = ()
    pictures: Annotated[int, msgspec.Meta(ge=1, le=MOST_WORD_IMAGES)] = 8

    def __post_init__(self) -> None:
        if self.words and not self.label.strip():
            raise BadRequest('Expected "label" to name the label that the words are for.')

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The words of each wording, each once."""
        return tuple(dict.fromkeys(parse_words(each) for each in self.wordings))


def parse_words(text: str) -> tuple[str, ...]:
    """Return the words of a wording, which are separated by commas.

    Raises:
        BadRequest: there is none, or too many or too long ones.

    >>> parse_words("traffic light, signal ,")
    ('traffic light', 'signal')
    """
    words = tuple(dict.fromkeys(filter(None, (" ".join(each.split()) for each in text.split(",")))))
    if not words or len(words) > MAX_WORDS or any(len(word) > MAX_LETTERS for word in words):
        raise BadRequest(
            f"Expected a try to be 1 to {MAX_WORDS} words, separated by commas, of at most "
            f"{MAX_LETTERS} letters each."
        )
    if not all(character.isprintable() for word in words for character in word):
        raise BadRequest("Expected words of letters and signs, but got control characters.")
    return words


# ---- what is found -------------------------------------------------------------------------------


class WordsOnImage(msgspec.Struct, frozen=True):
    """A wording on one picture."""

    task: int
    iou: float | None  # of the label; None: not corrected, or nobody sees the label
    preview: str  # the picture with the label's mask, as a data URL


class Crop(msgspec.Struct, frozen=True):
    """A place that a label's words find."""

    task: int
    share: float  # of the picture that the label's mask covers, in [0, 1]
    picture: str  # the largest part of the mask, with what is around it, as a data URL


class TriedWords(msgspec.Struct, frozen=True):
    """A wording on all pictures."""

    row: int  # its number: 0 for what the labeling config has
    words: tuple[str, ...]
    line: str  # the ``<Label>`` tag to write into the labeling config
    iou: float | None  # of the label; None where nobody has corrected the pictures
    saved_paint: float | None  # of all labels; None as `iou`
    share: float  # share of the pictures that the label covers, in [0, 1]
    pictures: tuple[WordsOnImage, ...] = ()


class Advice(msgspec.Struct, frozen=True):
    """A finding about a label, and what to try."""

    label: str
    finding: str
    remedy: str


class WordsReport(msgspec.Struct, frozen=True):
    """What was measured."""

    label: str  # the label that words were tried for; empty where all words were checked
    labels: tuple[str, ...]
    config: str
    is_corrected: bool
    pictures: int
    trials: tuple[TriedWords, ...] = ()  # the one that saves most paint first, where that is known
    advice: tuple[Advice, ...] = ()
    shares: dict[str, float] = {}  # label -> share of the pictures that it wins, in patches
    crops: dict[str, tuple[Crop, ...]] = {}  # label -> places that it finds, the largest first
    left_out: dict[int, str] = {}
    left_out_count: int = 0
    unlabelled: int = 0  # uncorrected pictures that each trial has learned from first, or 0

    def row(self, number: int) -> TriedWords:
        """Return a trial; a `BadRequest` where there is none of that number."""
        found = next((each for each in self.trials if each.row == number), None)
        if found is None:
            raise BadRequest(
                f'Expected "row" to be a number from 0 to {len(self.trials) - 1}, but got {number}.'
            )
        return found

    def config_with(self, number: int) -> str:
        """Return the labeling config with the words of a trial."""
        return with_words(self.config, self.label, self.row(number).words)[0]


def _advice(
    check: VocabularyCheck, swallowed: Sequence[Swallowed], shares: dict[str, float]
) -> Iterator[Advice]:
    for near in check.near:
        first, second = near.labels
        yield Advice(
            second,
            f"“{near.words[1]}” ({second}) means nearly the same to the model as "
            f"“{near.words[0]}” ({first}).",
            f"Write a narrower word for one of them, or make {first} and {second} one label.",
        )

    for word in check.unknown:
        yield Advice(
            word.label,
            f"“{word.word}” ({word.label}) means as little to the model as a made-up word.",
            "Try a more common word, a word for its kind, or a description of its looks.",
        )

    for each in swallowed:
        yield Advice(
            each.label,
            f"{each.by} takes {100 * each.share:.0f} % of {each.label} from it, narrowly.",
            f"Try other words for {each.label}, or fewer and narrower ones for {each.by}.",
        )

    for label in (label for label, share in shares.items() if not share):
        yield Advice(
            label,
            f"{label} is found on none of these pictures.",
            "Where it is on one of them, try other words. Where it is on none, this says "
            "nothing: check with other pictures.",
        )


# ---- how it is measured --------------------------------------------------------------------------


def try_words(parts: RunParts, run: Run, asked: AskedWords, progress: Progress) -> WordsReport:
    """Measure wordings of a label, or check all words, on pictures of a project.

    The words alone are compared, without what corrections have taught. Where predictions use a
    version from uncorrected pictures, each trial learns from these first, since its words decide
    what they teach. Nothing is written to Label Studio.
    """
    xml = parts.client.label_config(run.project)
    return _Measurement(parts, run.project, asked, xml, progress).report()


@dataclass(frozen=True, eq=False)
class _Image:
    """A picture that words are tried on."""

    task: int
    rgb: RGBArray  # (H, W, 3) uint8
    truth: Truth | None = None  # (H, W) label indices of its annotation; None where it has none


@dataclass(eq=False)
class _Trial:
    """A wording on all pictures so far."""

    words: tuple[str, ...]
    labels: tuple[Label, ...]  # of the tag, with these words
    adaptation: Adaptation | None = None
    own: MaskOverlap = field(default_factory=MaskOverlap)  # overlap of the label with the truth
    all: MaskOverlap = field(default_factory=MaskOverlap)  # overlap of all labels
    share: float = 0.0  # sum of the shares of the pictures that the label covers
    pictures: list[WordsOnImage] = field(default_factory=list)


@dataclass(eq=False)
class _Measurement:
    parts: RunParts
    project: int
    asked: AskedWords
    xml: str
    progress: Progress
    left_out: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = parse_label_config(self.xml, self.parts.settings)
        self.tag = self.config.images[0]
        self.labels = self.config.labels_of(self.tag.name)
        names = [label.name for label in self.labels]
        self.label = self.asked.label if self.asked.label in names else self.asked.label.strip()
        if self.label and self.label not in names:
            raise LabelConfigError(
                f"The project has no label {self.label!r}; it has {', '.join(names)}."
            )
        self.index = names.index(self.label) if self.label else None
        wanted = TaskFilter(labeled=True)
        self.is_corrected = bool(self.parts.client.tasks(self.project, wanted, size=1))

    def report(self) -> WordsReport:
        names = tuple(label.name for label in self.labels)
        report = WordsReport(self.label, names, self.xml, self.is_corrected, 0)
        report = self._check(report) if self.index is None else self._try_words(report, self.index)
        if not report.pictures:
            raise ValueError(
                f"No picture can be measured. {next(iter(self.left_out.values()))}"
                if self.left_out
                else "The project has no task with a picture."
            )
        return msgspec.structs.replace(
            report, left_out=self.left_out, left_out_count=len(self.left_out)
        )

    def _check(self, report: WordsReport) -> WordsReport:
        engine, swallowing, count = self.parts.engine, Swallowing(report.labels), 0
        crops: dict[str, tuple[Crop, ...]] = dict.fromkeys(report.labels, ())
        rule = self._predictor.rule(self.tag.name)
        for count, image in enumerate(self._images(), 1):
            segmenter = engine.segmenter()
            prepared = segmenter.prepare(image.rgb)
            encoded = engine.encode(prepared, self.labels, Priority.BATCH, self.project)
            swallowing.add(encoded.scores)
            masks = draw_masks(segmenter, encoded.scores, image.rgb, rule)
            for index, mask in masks.items():
                name = report.labels[index]
                crops[name] = _with_crop(crops[name], image, mask)
            self.progress(count, self.asked.pictures)

        def embed(words: Sequence[str]) -> torch.Tensor:
            return engine.embed((Label("words", tuple(words)),))

        check = check_vocabulary(embed, self.labels, engine.segmenter().model.contrast)
        shares = swallowing.shares()
        advice = tuple(_advice(check, swallowing.found(), shares))
        return msgspec.structs.replace(
            report, advice=advice, shares=shares, crops=crops, pictures=count
        )

    def _try_words(self, report: WordsReport, index: int) -> WordsReport:
        words = dict.fromkeys((self.labels[index].prompts, *self.asked.words))
        trials, count = [_Trial(each, self._labels_with(each)) for each in words], 0
        unlabelled = self._learn_unlabelled(trials)

        for count, image in enumerate(self._images(), 1):
            prepared = self.parts.engine.segmenter().prepare(image.rgb)
            for trial in trials:
                self._measure(trial, index, image, prepared)
            self.progress(count, self.asked.pictures)

        rows = list(enumerate(trials))
        if self.is_corrected:
            rows.sort(key=lambda each: each[1].all.wrong_px)  # the order of equal ones stays

        told = tuple(
            TriedWords(
                row=row,
                words=trial.words,
                line=with_words(self.xml, self.label, trial.words)[1],
                iou=trial.own.iou if self.is_corrected else None,
                saved_paint=trial.all.saved_paint if self.is_corrected else None,
                share=trial.share / max(1, count),
                pictures=tuple(trial.pictures),
            )
            for row, trial in rows
        )
        return msgspec.structs.replace(report, trials=told, pictures=count, unlabelled=unlabelled)

    def _labels_with(self, words: tuple[str, ...]) -> tuple[Label, ...]:
        return tuple(
            replace(label, prompts=words) if label.name == self.label else label
            for label in self.labels
        )

    def _learn_unlabelled(self, trials: Sequence[_Trial]) -> int:
        """Let trials learn from uncorrected images, where predictions do; return how many."""
        parts, images = self.parts, 0
        active = parts.versions.active(self.project, self.config.adapt)
        if active is None or active.annotations:
            return 0
        unlabelled = UnlabelledImages(
            parts.engine, parts.images.read, parts.client, self.project, self.config
        )
        examples = list(unlabelled.examples())
        for trial in trials:
            fit = fit_words(parts.engine, examples, trial.labels)
            trial.adaptation, images = fit.adaptation, fit.images
        return images

    @property
    def _predictor(self) -> MaskPredictor:
        return MaskPredictor(self.parts.engine, self.parts.settings, self.config, self.project)

    def _measure(self, trial: _Trial, index: int, image: _Image, prepared: PreparedImage) -> None:
        masks = self._predictor.predict(
            self.tag.name,
            image.rgb,
            prepared=prepared,
            adaptation=trial.adaptation,
            labels=trial.labels,
        )
        mask, iou = masks.get(index), None
        if image.truth is not None:
            overlaps = mask_overlaps(masks, image.truth, len(self.labels))
            iou = overlaps[index].iou
            trial.own += overlaps[index]
            trial.all += sum(overlaps, MaskOverlap())
        trial.share += 0.0 if mask is None else float(mask.mean())
        if len(trial.pictures) < _SHOWN:
            trial.pictures.append(WordsOnImage(image.task, iou, preview(image.rgb, mask)))

    # ---- the pictures ----------------------------------------------------------------------------

    def _images(self) -> Iterator[_Image]:
        """Read the pictures, one at a time; note the reason for each that cannot be read."""
        for image in self._corrected() if self.is_corrected else self._uncorrected():
            number = int(image.task.id or 0)
            try:
                rgb = image.read(self.parts.images.read)
                truth = self._truth(image) if image.versions else None
            except LEAVE_OUT as error:
                self.left_out[number] = str(error)
            else:
                yield _Image(number, rgb, truth)

    def _truth(self, image: AnnotatedImage) -> Truth:
        return image.label_map().truth([label.name for label in self.labels])

    def _uncorrected(self) -> list[AnnotatedImage]:
        tasks, tag = self._tasks(TaskFilter(), 1), self.tag
        return [AnnotatedImage(each, tag, tag.indices(each.data)[0], ()) for each in tasks]

    def _corrected(self) -> list[AnnotatedImage]:
        """Choose pictures with an annotation; a quarter lacks the label, where there are enough.

        A wording that finds the label where it is not must not look good.
        """
        client, config, tag = self.parts.client, self.config, self.tag
        having: list[AnnotatedImage] = []
        lacking: list[AnnotatedImage] = []
        for task in self._tasks(TaskFilter(labeled=True), _READ_PER_CHOSEN):
            try:
                image = find_chosen_image(client, task, config, tag, tag.indices(task.data)[0])
                truth = self._truth(image)
            except LEAVE_OUT as error:
                self.left_out[int(task.id or 0)] = str(error)
                continue
            has_label = self.index is None or bool((truth == self.index).any())
            (having if has_label else lacking).append(image)
        count = self.asked.pictures
        chosen = having[: count - min(count // 4, len(lacking))]
        return chosen + lacking[: count - len(chosen)]

    def _tasks(self, wanted: TaskFilter, times: int) -> list[Task]:
        """List `times` tasks for each picture, spread over the first `MOST_TASKS`."""
        listed = self.parts.client.all_tasks(self.project, wanted)
        tasks, count = list(islice(listed, MOST_TASKS)), times * self.asked.pictures
        if count >= len(tasks):
            return tasks
        return [tasks[index * len(tasks) // count] for index in range(count)]


def _with_crop(crops: tuple[Crop, ...], image: _Image, mask: BoolMask) -> tuple[Crop, ...]:
    """Return the crops of a label with one of another image, where that covers more of it."""
    share = float(mask.mean())
    if len(crops) == _CROPS and share <= crops[-1].share:
        return crops
    made = Crop(image.task, share, crop_of(image.rgb, mask, _COLOUR, _CROP_PX))
    return tuple(sorted((*crops, made), key=lambda crop: -crop.share)[:_CROPS])


def preview(rgb: RGBArray, mask: BoolMask | None) -> str:
    """Return a picture (H, W, 3) uint8, shrunk, with a mask (H, W) bool over it, as a data URL."""
    shown = np.full(rgb.shape[:2], -1, np.int16) if mask is None else mask.astype(np.int16) - 1
    return to_data_url(thumbnail(rgb, shown, _COLOUR, PREVIEW_PX))


WORDS: Final = RunKind(
    "words",
    "Words",
    "Words are tried on the pictures of Label Studio",
    AskedWords,
    WordsReport,
    try_words,
)
