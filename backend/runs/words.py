"""Words: try wordings of a label on pictures of a project, or check the words of all labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice, product
from statistics import fmean, median
from typing import Annotated, Final, Literal, TypeVar

import msgspec
import numpy as np
import torch

from backend.errors import BadRequest, LabelConfigError
from backend.inference.engine import Engine
from backend.inference.queue import EncodedImage, Priority
from backend.label_studio.annotations import LEAVE_OUT, AnnotatedPicture, AnnotatedProject
from backend.label_studio.label_config import (
    LabelConfig,
    least_thresholds,
    prediction_rule,
    score_options,
)
from backend.label_studio.label_config_edit import with_words
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.runs.run import MOST_WORD_PICTURES, Progress, Run, RunKind, RunParts
from clearclip_core import BoolMask, Label, PreparedImage, RGBArray, resolve_method
from clearclip_core.evaluation.comparison import (
    LabelFigures,
    PredictionRule,
    draw_masks,
    mask_overlaps,
)
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.images.label_maps import Truth, thumbnail
from clearclip_core.images.opening import to_data_url
from clearclip_core.wording.vocabulary_check import (
    LabelResponse,
    Swallowed,
    Swallowing,
    VocabularyCheck,
    check_vocabulary,
    image_vector,
    k_center,
    rank_wordings,
)

#: Which pictures words are tried on.
On = Literal["auto", "corrected", "diverse"]

MAX_TRIALS: Final = 12
MAX_WORDS: Final = 10
MAX_LETTERS: Final = 200

#: Pictures whose masks are shown side by side.
SHOWN: Final = 6

#: Long side of a small picture in px, and the colour of the mask on it.
PREVIEW_PX: Final = 256
_COLOUR: Final = np.array([[255, 32, 96]], np.uint8)

#: Tasks that are listed; pictures are chosen among them.
MOST_TASKS: Final = 1000

#: So many times as many pictures are read as are chosen.
_READ_PER_CHOSEN: Final = 4

_T = TypeVar("_T")


# ---- what is asked for ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Wording:
    """Words, a threshold and a method that are tried for a label.

    Attributes:
        words: the words; empty for those of the label config.
        threshold: probability from which the label is drawn, in [0, 1]; None for that of the label
            config.
        method: name of the method; empty for the backend's own.
    """

    words: tuple[str, ...] = ()
    threshold: float | None = None
    method: str = ""


_Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_TRIALS)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class AskedWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure on a project.

    Attributes:
        label: name of the label; empty to check the words of all labels.
        wordings: the words to try, each wording with commas; none to try those of the label config.
        thresholds: the thresholds to try with each; none to try that of the label config.
        methods: the methods to try with each; none to try the backend's own.
        on: ``"corrected"`` for pictures with an annotation, ``"diverse"`` for pictures that differ
            from each other, ``"auto"`` for the first where there are any.
    """

    label: Annotated[str, msgspec.Meta(max_length=MAX_LETTERS)] = ""
    wordings: _Texts = ()
    thresholds: Annotated[tuple[_Share, ...], msgspec.Meta(max_length=MAX_TRIALS)] = ()
    methods: _Texts = ()
    pictures: Annotated[int, msgspec.Meta(ge=1, le=MOST_WORD_PICTURES)] = 8
    on: On = "auto"

    def __post_init__(self) -> None:
        if not self.label.strip() and (self.wordings or self.thresholds or self.methods):
            raise BadRequest('Expected "label" to name the label that the words are for.')
        if len(self.trials) > MAX_TRIALS:
            raise BadRequest(
                f"Wordings, thresholds and methods make {len(self.trials)} trials with the words "
                f"of today, more than {MAX_TRIALS}: ask for fewer at once."
            )
        for method in self.methods:
            try:
                resolve_method(method)
            except ValueError as error:
                raise BadRequest(str(error)) from None

    @property
    def trials(self) -> tuple[Wording, ...]:
        """What is tried: what the project has today first, then all combinations, each once."""
        if not self.label.strip():
            return ()
        wordings = [parse_words(each) for each in self.wordings] or [()]
        thresholds: Sequence[float | None] = [round(each, 4) for each in self.thresholds] or (None,)
        tried = product(wordings, thresholds, self.methods or ("",))
        return tuple(dict.fromkeys((Wording(), *(Wording(*each) for each in tried))))


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
            f"Expected a wording to be 1 to {MAX_WORDS} words, separated by commas, of at most "
            f"{MAX_LETTERS} letters each."
        )
    if not all(character.isprintable() for word in words for character in word):
        raise BadRequest("Expected a wording of letters and signs, but got control characters.")
    return words


# ---- what is found -------------------------------------------------------------------------------


class WordsOnPicture(msgspec.Struct, frozen=True):
    """A wording on one picture.

    Attributes:
        share: share of the picture that the label covers, in [0, 1].
        iou: of the label; None where the picture has no truth, or nobody sees the label there.
        preview: the picture with the label's mask, as a data URL; empty where it is not shown.
    """

    task: int
    share: float
    iou: float | None = None
    is_corrected: bool = False
    preview: str = ""


class TriedWords(msgspec.Struct, frozen=True):
    """A wording on all pictures.

    Attributes:
        row: its number: 0 for what the label config has.
        rank: from 1 on, see `rank_wordings`; None where no picture has a truth.
        is_in_config: whether it has the words and the threshold of the label config.
        threshold: probability from which the label is drawn, in [0, 1].
        new_threshold: the one that `line` sets; None: as it is.
        line: the ``<Label>`` tag to write into the label config.
        iou: of the label; None without a truth, as the next two.
        share: share of the pictures that the label covers, in [0, 1].
        milliseconds: the median time of a picture, from its cached features to the masks, in ms.
    """

    row: int
    rank: int | None
    is_current: bool
    is_in_config: bool
    words: tuple[str, ...]
    threshold: float
    new_threshold: float | None
    method: str
    line: str
    iou: float | None
    saved_paint: float | None
    saved_paint_all: float | None
    share: float
    milliseconds: float
    pictures: tuple[WordsOnPicture, ...] = ()


class Advice(msgspec.Struct, frozen=True):
    """A finding about a label, and what to try."""

    label: str
    finding: str
    remedy: str


class WordsReport(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        label: the label that words were tried for; empty where the vocabulary was checked.
        on: ``"corrected"`` or ``"diverse"`` pictures.
        trials: the wordings, the best first; in their order where there is no truth.
        check: the findings on the words; None where wordings were tried.
        left_out: task -> reason, for pictures that could not be read.
        used: the ``<Label>`` tag of the trial that was written into the label config; else empty.
    """

    label: str
    labels: tuple[str, ...]
    on: str
    config: str = ""
    trials: tuple[TriedWords, ...] = ()
    check: VocabularyCheck | None = None
    swallowed: tuple[Swallowed, ...] = ()
    responses: tuple[LabelResponse, ...] = ()
    advice: tuple[Advice, ...] = ()
    pictures: int = 0
    left_out: dict[int, str] = {}
    left_out_count: int = 0
    used: str = ""

    def row(self, number: int) -> TriedWords:
        """Return a trial.

        Raises:
            BadRequest: there is no such trial.
        """
        found = next((each for each in self.trials if each.row == number), None)
        if found is None:
            raise BadRequest(
                f'Expected "row" to be a number from 0 to {len(self.trials) - 1}, but got {number}.'
            )
        return found

    def config_with(self, number: int) -> str:
        """Return the label config with the words, and the threshold, of a trial."""
        row = self.row(number)
        return with_words(self.config, self.label, row.words, row.new_threshold)[0]


def _advice(
    check: VocabularyCheck, swallowed: Sequence[Swallowed], responses: Sequence[LabelResponse]
) -> Iterator[Advice]:
    """Yield what is found, the label that it is about, and what to try."""
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
    for response in responses:
        if not response.share:
            yield Advice(
                response.label,
                f"{response.label} is found on none of these pictures.",
                "Where it is on one of them, try other words. Where it is on none, this says "
                "nothing: check with other pictures.",
            )


# ---- the trials ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """A wording on one picture, with the figures of the label and of all; None without a truth."""

    shown: WordsOnPicture
    milliseconds: float
    own: LabelFigures | None = None
    all: LabelFigures | None = None


@dataclass(frozen=True)
class _Trial:
    """A wording on all pictures so far."""

    wording: Wording
    words: tuple[str, ...]
    threshold: float
    method: str
    line: str
    pictures: tuple[_Measured, ...] = ()

    def told(self, row: int, rank: int | None, now: _Trial) -> TriedWords:
        """Return its figures; `now` is what the label config has."""
        own, all_ = (
            _sum([each.own for each in self.pictures]),
            _sum([each.all for each in self.pictures]),
        )
        return TriedWords(
            row,
            rank,
            self.wording == Wording(),
            (self.words, self.threshold) == (now.words, now.threshold),
            self.words,
            self.threshold,
            self.wording.threshold,
            self.method,
            self.line,
            None if own is None else own.overlap.iou,
            None if own is None else own.overlap.saved_paint,
            None if all_ is None else all_.overlap.saved_paint,
            fmean(each.shown.share for each in self.pictures) if self.pictures else 0.0,
            median(each.milliseconds for each in self.pictures) if self.pictures else 0.0,
            tuple(each.shown for each in self.pictures),
        )


def _ranked(trials: Sequence[_Trial]) -> tuple[TriedWords, ...]:
    """Return the figures of trials, the best first; in their order where there is no truth."""
    if not trials:
        return ()
    ranks: Sequence[int | None] = [None] * len(trials)
    if all(each.all is not None for trial in trials for each in trial.pictures):
        wrong_px = [
            [each.all.overlap.wrong_px for each in trial.pictures if each.all is not None]
            for trial in trials
        ]
        raised = [trial.threshold > trials[0].threshold for trial in trials]
        ranks = rank_wordings(wrong_px, raised) if trials[0].pictures else ranks
    rows = [each.told(row, ranks[row], trials[0]) for row, each in enumerate(trials)]
    return tuple(sorted(rows, key=lambda each: (each.rank or 0, each.row)))


def _sum(figures: Sequence[LabelFigures | None]) -> LabelFigures | None:
    known = [each for each in figures if each is not None]
    return sum(known, LabelFigures()) if known else None


def try_words(parts: RunParts, run: Run, asked: AskedWords, progress: Progress) -> WordsReport:
    """Measure wordings of a label, or check all words, on pictures of a project.

    What the project has learned is left out: the words alone are compared. Nothing is written to
    Label Studio.
    """
    with ExitStack() as stack:
        xml = parts.client.label_config(run.project)
        return _Measurement(parts, run.project, asked, xml, progress, stack).report()


@dataclass(eq=False)
class _Measurement:
    """One request on one label config."""

    parts: RunParts
    project: int
    asked: AskedWords
    xml: str
    progress: Progress
    stack: ExitStack
    engines: dict[str, Engine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config: LabelConfig = parse_label_config(self.xml)
        self.tag = self.config.images[0]
        self.labels = self.config.labels_of(self.tag.name)
        parts = self.parts
        project = AnnotatedProject(
            parts.client, parts.images.read, self.project, self.config, self.tag
        )
        self.chooser = _PictureChooser(project, self._describe)
        names = [label.name for label in self.labels]
        label = self.asked.label if self.asked.label in names else self.asked.label.strip()
        if label and label not in names:
            raise LabelConfigError(
                f"The project has no label {label!r}; it has {', '.join(names)}."
            )
        self.label = label
        self.index = names.index(label) if label else None

    def report(self) -> WordsReport:
        on: str = self.asked.on
        if on == "auto":
            on = "corrected" if self.chooser.has_corrected() else "diverse"
        names = tuple(label.name for label in self.labels)
        report = WordsReport(self.label, names, on, self.xml)
        report = (self._try_words if self.label else self._check)(report, self._pictures(on))
        left_out = self.chooser.left_out
        if not report.pictures:
            raise ValueError(
                f"No picture can be measured. {next(iter(left_out.values()))}"
                if left_out
                else "The project has no task with a picture."
                if on == "diverse"
                else "The project has no annotated task: try words on diverse pictures."
            )
        return msgspec.structs.replace(report, left_out=left_out, left_out_count=len(left_out))

    def _pictures(self, on: str) -> Iterator[_ProjectPicture]:
        if on == "corrected":
            return self.chooser.corrected(self.asked.pictures, self.index)
        return self.chooser.diverse(self.asked.pictures, self.progress)

    def _check(self, report: WordsReport, pictures: Iterator[_ProjectPicture]) -> WordsReport:
        engine, swallowing, count = self._engine(""), Swallowing(report.labels), 0
        for count, picture in enumerate(pictures, 1):
            prepared = engine.segmenter().prepare(picture.rgb)
            swallowing.add(self._encode(prepared, "", self.labels).scores)
            self.progress(count, self.asked.pictures)

        def embed(words: Sequence[str]) -> torch.Tensor:
            return engine.embed((Label("words", tuple(words)),))

        contrast = engine.segmenter().model.contrast
        check = check_vocabulary(embed, self.labels, contrast)
        swallowed, responses = tuple(swallowing.found()), tuple(swallowing.responses())
        return msgspec.structs.replace(
            report,
            check=check,
            swallowed=swallowed,
            responses=responses,
            advice=tuple(_advice(check, swallowed, responses)),
            pictures=count,
        )

    def _try_words(self, report: WordsReport, pictures: Iterator[_ProjectPicture]) -> WordsReport:
        distinct: dict[tuple[tuple[str, ...], float, str], _Trial] = {}
        for trial in map(self._trial, self.asked.trials):  # of today first, which may be asked for
            distinct.setdefault((trial.words, trial.threshold, trial.method), trial)
        trials = list(distinct.values())
        for count, picture in enumerate(pictures, 1):
            # Methods differ in how pictures are encoded, and not in how they are prepared.
            prepared = self._engine("").segmenter().prepare(picture.rgb)
            for method in dict.fromkeys(trial.wording.method for trial in trials):
                self._encode(prepared, method, self.labels)  # now: trials are timed without it
            measured = [self._measure(trial, picture, prepared, count) for trial in trials]
            trials = [
                replace(trial, pictures=(*trial.pictures, figures))
                for trial, figures in zip(trials, measured, strict=True)
            ]
            self.progress(count, self.asked.pictures)
        count = len(trials[0].pictures)
        return msgspec.structs.replace(report, trials=_ranked(trials), pictures=count)

    def _trial(self, wording: Wording) -> _Trial:
        assert self.index is not None
        words = wording.words or self.labels[self.index].prompts
        threshold = self._thresholds()[self.index]
        return _Trial(
            wording,
            words,
            threshold if wording.threshold is None else wording.threshold,
            wording.method or self.parts.settings.method,
            with_words(self.xml, self.label, words, wording.threshold)[1],
        )

    def _measure(
        self, trial: _Trial, picture: _ProjectPicture, prepared: PreparedImage, number: int
    ) -> _Measured:
        """Measure a wording on a picture; the features are in the cache before it is timed."""
        assert self.index is not None
        method, labels = trial.wording.method, self._labels(trial)
        engine, rule = self._engine(method), self._rule(trial)
        segmenter = engine.segmenter()
        engine.embed(labels)
        began = time.perf_counter()
        scores = self._encode(prepared, method, labels).scores
        masks = draw_masks(segmenter, scores, picture.rgb, rule)
        milliseconds = 1000 * (time.perf_counter() - began)
        mask = masks.get(self.index)
        own = all_ = None
        if picture.truth is not None:
            found = mask_overlaps(masks, picture.truth, len(labels))
            own = LabelFigures.of(found[self.index])
            all_ = LabelFigures.of(sum(found, MaskOverlap()))
        shown = WordsOnPicture(
            picture.task,
            0.0 if mask is None else float(np.count_nonzero(mask) / mask.size),
            None if own is None else own.overlap.iou,
            own is not None,
            preview(picture.rgb, mask) if number <= SHOWN else "",
        )
        return _Measured(shown, milliseconds, own, all_)

    def _labels(self, trial: _Trial) -> tuple[Label, ...]:
        return tuple(
            replace(label, prompts=trial.words) if label.name == self.label else label
            for label in self.labels
        )

    def _rule(self, trial: _Trial) -> PredictionRule:
        assert self.index is not None
        thresholds = self._thresholds()
        thresholds[self.index] = trial.threshold
        return prediction_rule(self.parts.settings, thresholds)

    def _thresholds(self) -> list[float]:
        controls = [each for each in self.config.controls_of(self.tag.name) if each.is_predicted]
        return least_thresholds(controls, self.labels)

    def _engine(self, method: str) -> Engine:
        """Return the engine of a method; one for another method than the backend's is started."""
        own = self.parts.engine
        if method in ("", self.parts.settings.method):
            return own
        if method not in self.engines:
            self.engines[method] = self.stack.enter_context(own.of_method(method))
        return self.engines[method]

    def _encode(
        self, prepared: PreparedImage, method: str, labels: tuple[Label, ...]
    ) -> EncodedImage:
        settings = self.parts.settings
        if method:
            settings = settings.model_copy(update={"method": method})
        return self._engine(method).encode(
            prepared,
            labels,
            Priority.BATCH,
            self.project,
            options=score_options(settings, self.config),
        )

    def _describe(self, rgb: RGBArray) -> torch.Tensor:
        prepared = self._engine("").segmenter().prepare(rgb)
        return image_vector(self._encode(prepared, "", self.labels).features)


# ---- the pictures --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _ProjectPicture:
    """A picture that words are tried on.

    Attributes:
        rgb: (H, W, 3) uint8.
        truth: (H, W) label indices of its annotation; None where it has none.
    """

    task: int
    rgb: RGBArray
    truth: Truth | None = None


@dataclass(eq=False)
class _PictureChooser:
    """Reads the pictures of a project that words are tried on, one at a time.

    Args:
        describe: picture -> (D,) vector of its features, by which pictures are told apart.
        left_out: filled with the task and the reason of each picture that cannot be read.
    """

    project: AnnotatedProject
    describe: Callable[[RGBArray], torch.Tensor]
    left_out: dict[int, str] = field(default_factory=dict)

    def has_corrected(self) -> bool:
        wanted = TaskFilter(labeled=True)
        return bool(self.project.client.tasks(self.project.project, wanted, size=1))

    def corrected(self, count: int, index: int | None) -> Iterator[_ProjectPicture]:
        """Yield pictures with an annotation, spread over the project.

        A quarter of them lacks the label where there are enough: a wording that finds the label
        where it is not must not look good.

        Args:
            index: of the label in label maps; None for all labels alike.
        """
        lacking = count if index is None else count // 4
        left = {True: count - lacking, False: lacking}  # by whether they have the label
        spare: list[AnnotatedPicture] = []
        for task in self._tasks(TaskFilter(labeled=True), count * _READ_PER_CHOSEN):
            annotated = AnnotatedPicture(self.project, task, self.project.tag.indices(task.data)[0])
            truth = self._unless_left_out(task, annotated.read_truth)
            if truth is None:
                continue
            has_label = index is not None and bool((truth == index).any())
            if not left[has_label]:
                spare.append(annotated)
                continue
            picture = self._annotated(annotated, truth)
            if picture is not None:
                left[has_label] -= 1
                yield picture
            if not any(left.values()):
                return
        for annotated in spare[: sum(left.values())]:
            truth = self._unless_left_out(annotated.task, annotated.read_truth)
            picture = None if truth is None else self._annotated(annotated, truth)
            if picture is not None:
                yield picture

    def diverse(self, count: int, progress: Progress) -> Iterator[_ProjectPicture]:
        """Yield pictures that differ from each other: k-center over their features.

        Args:
            progress: is told how many pictures were read, of how many.
        """
        tasks = self._tasks(TaskFilter(), count * _READ_PER_CHOSEN)
        seen: list[Task] = []
        vectors: list[torch.Tensor] = []
        for number, task in enumerate(tasks):
            progress(number, len(tasks))
            picture = self._plain(task)
            if picture is not None:
                seen.append(task)
                vectors.append(self.describe(picture.rgb))
        for index in k_center(torch.stack(vectors), count) if vectors else ():
            picture = self._plain(seen[index])  # again: all of them would take gigabytes
            if picture is not None:
                yield picture

    def _tasks(self, wanted: TaskFilter, count: int) -> list[Task]:
        """List tasks, spread evenly over the first `MOST_TASKS`."""
        listed = self.project.client.all_tasks(self.project.project, wanted)
        tasks = list(islice(listed, MOST_TASKS))
        if count >= len(tasks):
            return tasks
        return [tasks[index * len(tasks) // count] for index in range(count)]

    def _annotated(self, picture: AnnotatedPicture, truth: Truth) -> _ProjectPicture | None:
        rgb = self._unless_left_out(picture.task, lambda: picture.read_image(truth.shape))
        return None if rgb is None else _ProjectPicture(int(picture.task.id or 0), rgb, truth)

    def _plain(self, task: Task) -> _ProjectPicture | None:
        def read() -> RGBArray:
            return self.project.read_image(self.project.tag.sources(task.data)[0], task)

        rgb = self._unless_left_out(task, read)
        return None if rgb is None else _ProjectPicture(int(task.id or 0), rgb)

    def _unless_left_out(self, task: Task, read: Callable[[], _T]) -> _T | None:
        """Return what is read of a task; None where it cannot be, with the reason noted."""
        try:
            return read()
        except LEAVE_OUT as error:
            self.left_out[int(task.id or 0)] = str(error)
            return None


def preview(rgb: RGBArray, mask: BoolMask | None) -> str:
    """Return a picture of at most 256 px with a mask laid over it, as a data URL of a JPEG.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool; None for an empty one.
    """
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
