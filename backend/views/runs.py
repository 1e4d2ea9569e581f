"""The runs of a kind over a project as a value: what their pages say of them and of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from backend.dataset.dataset_report import ClassCount
from backend.feedback.report.statistics import in_percent
from backend.runs.agreement import Agreement, AgreementOnLabel, AnnotatorFigures, Dispute
from backend.runs.dataset import DatasetFile
from backend.runs.gallery import ShownImage, ShownPair, lacking_classes
from backend.runs.label_errors import LabelErrors, Suspicion
from backend.runs.models import FEWEST_PICTURES, ComparedModel, ModelsReport
from backend.runs.run_store import Run
from backend.runs.words import TriedWords, WordsReport
from backend.views.project import UrlOf
from backend.views.text import (
    Colour,
    Part,
    Pill,
    Sentence,
    ago,
    count_with_noun,
    sentence,
    size,
    with_reasons,
)
from clearclip_core.quantities import grouped, inflected

_COLOURS: Final[dict[str, Colour]] = {"done": "good", "failed": "bad", "cancelled": "soft"}

#: What somebody has done, as the last part of its route -> what that does.
_DONE: Final = {
    "confirm": "The annotation is confirmed as right: it stays off the list until it is changed.",
    "take_back": "Taken back: the annotation is listed again.",
    "cancel": "The run is cancelled.",
    "delete": "The data set is deleted; export it again to have it back.",
    "use": (
        "The words are in the labeling config of the project now, and all words are being checked "
        "again; to come back, use those that were measured as they were."
    ),
}

_OUTDATED: Final = (
    "An earlier version of the backend has made this report, and this one cannot show it: "
)

_FEW: Final = 10  # pictures below which a figure tells little
_MEGABYTE: Final = 1 << 20

RULES: Final = {
    "preferred": "the ground truth, else the newest",
    "newest": "the newest",
    "ground-truth": "the ground truth, else none",
    "majority": "the majority, pixel by pixel",
}
OVERLAPS: Final = {
    "later": "the region that was drawn later",
    "label-order": "the label that comes first in the config",
    "smallest": "the smallest region",
}


class RunsView(Struct, frozen=True, kw_only=True):
    """The runs of a kind, the newest first, and the newest report or that of one run."""

    project: int
    run: Run | None  # the one that is shown, else the newest
    runs: Sequence[Run]
    report: Any | None
    is_outdated: bool  # whether there is a report that only an earlier backend can show
    report_run: int | None  # number of the run of the report
    finished: float | None  # when it was

    @property
    def made(self) -> str:
        """When the report was made."""
        return "" if self.finished is None else ago(self.finished)

    def name_of(self, run: Run) -> str:
        """Return the name of a run in the list of all."""
        return f"Run {run.id}"

    def note_of(self, run: Run) -> str:
        """Return what stands beside the name of a run."""
        return ""

    def age_of(self, run: Run) -> str:
        """Say when a run ended, or was asked for."""
        return ago(run.finished or run.created)

    def pill_of(self, run: Run) -> Pill:
        """Return the state of a run."""
        return Pill(run.state, _COLOURS.get(run.state, "wait"))

    def reason_of(self, run: Run) -> str:
        """Say in the list of all why a run has failed, where that does not stand above."""
        is_above = self.run is not None and run.id == self.run.id and self.run.state != "done"
        return "" if is_above else run.reason

    @property
    def progress(self) -> str:
        """How far the run is; "" where nobody knows."""
        if self.run is None or self.run.is_over or not self.run.total:
            return ""
        return f"{grouped(self.run.done)} of {grouped(self.run.total)}"

    @property
    def has_confirmed(self) -> bool:
        """Whether people have confirmed something of the report."""
        return False

    def done(self, action: str) -> Sentence:
        """Say what somebody's action does; () where there was none."""
        if action not in _DONE:
            return ()
        confirmed = [" ", Part("All that are confirmed", "#confirmed")]
        return sentence(_DONE[action], *(confirmed if self.has_confirmed else ()))

    def outdated(self, url: str) -> Sentence:
        """Say that the report cannot be shown.

        Args:
            url: where it is made again; "" for this page.
        """
        return sentence(_OUTDATED, Part("make it again", url), ".")

    @property
    def left_out_note(self) -> str:
        """How many of the tasks that were left out are named; "" for all."""
        if self.report is None or self.report.left_out_count <= len(self.report.left_out):
            return ""
        named, count = len(self.report.left_out), grouped(self.report.left_out_count)
        return f"The first {named} of {count} tasks."


class DatasetRuns(RunsView, frozen=True, kw_only=True):
    """The data sets of a project."""

    report: DatasetFile | None

    def name_of(self, run: Run) -> str:
        asked = run.asked
        parts = [f"Data set {run.id}: {', '.join(asked.get('formats', ()))}"]
        for field, words in (
            ("split", "split {}"),
            ("near_duplicates", "near-duplicates from {}"),
            ("view", "view {}"),
        ):
            if asked.get(field):
                parts.append(words.format(asked[field]))
        if not asked.get("pictures"):
            parts.append("without pictures")
        return ", ".join(parts)

    @property
    def _asked(self) -> Mapping[str, Any]:
        """What was asked of the run of the report."""
        of_report = (run.asked for run in self.runs if run.id == self.report_run)
        return next(of_report, {} if self.run is None else self.run.asked)

    @property
    def facts(self) -> dict[str, str]:
        """What is in the newest data set: name of a figure -> its text."""
        report, asked = self.report, self._asked
        if report is None:
            return {}

        facts = {f"Pictures, {part}": self._share(part, n) for part, n in report.parts.items()}
        annotations = str(asked.get("annotations"))
        facts |= {
            "Regions": grouped(report.regions),
            "Tasks not annotated": grouped(report.unlabelled),
            "Of several annotations": RULES.get(annotations, f"those of annotator {annotations}"),
        }
        if renamed := asked.get("renamed"):
            told = (f"{old}: {new or 'left out'}" for old, new in renamed.items())
            facts["Renamed labels"] = ", ".join(told)
        facts["Pixels of several regions"] = OVERLAPS.get(str(asked.get("overlap")), "")
        return facts

    def _share(self, part: str, count: int) -> str:
        assert self.report is not None
        if part not in self.report.asked:
            return grouped(count)
        percent = round(100 * count / (self.report.pictures or 1))
        return f"{grouped(count)} ({percent} %, {self.report.asked[part]} % asked)"

    @property
    def file(self) -> str:
        """How large its file is, and when it was made."""
        if self.report is None:
            return ""
        n_bytes = self.report.size_bytes
        large = size(n_bytes) if n_bytes >= _MEGABYTE else "under 1 MB"
        return f"{count_with_noun(self.report.pictures, 'picture')}, {large}, made {self.made}."

    def lacked(self) -> dict[str, str]:
        """Return name -> which parts have how many pictures, of classes that some parts lack."""
        if self.report is None:
            return {}
        classes = self.report.classes
        return {name: _spread(classes[name]) for name in lacking_classes(classes)}

    def caption(self, image: ShownImage) -> str:
        """Say which picture is shown, and in which part it is, where there are several."""
        parts = () if self.report is None else self.report.parts
        return f"Task {image.task}, {image.part}" if len(parts) > 1 else f"Task {image.task}"

    def likeness(self, pair: ShownPair) -> str:
        """Say how alike two pictures are."""
        return f"A likeness of {pair.correlation:.2f}"


def _spread(counts: Mapping[str, ClassCount]) -> str:
    """Say which parts have pictures of a class, and which have none.

    >>> _spread({"train": ClassCount(3, 3, 100), "val": ClassCount(), "test": ClassCount()})
    'no picture in val and test, 3 pictures in train'
    """
    without = " and ".join(part for part, each in counts.items() if not each.pictures)
    having = " and ".join(
        f"{count_with_noun(each.pictures, 'picture')} in {part}"
        for part, each in counts.items()
        if each.pictures
    )
    return f"no picture in {without}, {having}"


class WordsRuns(RunsView, frozen=True, kw_only=True):
    """Words that were tried for a label, or checks of all words."""

    report: WordsReport | None

    def name_of(self, run: Run) -> str:
        return str(run.asked.get("label") or "All words")

    def note_of(self, run: Run) -> str:
        return "; ".join(run.asked.get("wordings", ()))

    def head(self, is_one: bool) -> str:
        """Return the head of the page; `is_one` where one run is shown."""
        if not is_one or self.run is None:
            return "Find the right words"
        return f"Words for {self.run.asked['label']}" if self._label else "All words, checked"

    def next(self, is_one: bool, url_of: UrlOf) -> Sentence:
        """Say below the head what may be done."""
        if not is_one:
            return sentence("Nothing is written to Label Studio until you say so.")
        url = url_of("words.page", project=self.project, label=self._label or None)
        return sentence(Part("Try other words", url))

    @property
    def _label(self) -> str:
        return "" if self.run is None else str(self.run.asked.get("label") or "")

    @property
    def measured(self) -> str:
        """On what words were tried."""
        report = self.report
        if report is None:
            return ""
        if report.is_corrected:
            pictures = count_with_noun(report.pictures, "corrected picture")
            return f"Measured on {pictures}, the best first"
        them = "it" if report.pictures == 1 else "them"
        pictures = count_with_noun(report.pictures, "picture")
        return f"On {pictures}: nobody has corrected {them}, so judge by eye"

    @property
    def checked(self) -> str:
        """On what all words were checked."""
        if self.report is None:
            return ""
        noun = "corrected picture" if self.report.is_corrected else "picture"
        return f"on {count_with_noun(self.report.pictures, noun)}"

    @property
    def learned(self) -> str:
        """What each trial has learned from."""
        if self.report is None or not self.report.unlabelled:
            return "What the project has learned is left out."
        pictures = count_with_noun(self.report.unlabelled, "picture")
        return (
            f"Each of them has learned from {pictures} that nobody has corrected, as predictions "
            "do now."
        )

    @property
    def shown(self) -> str:
        """How many of the pictures are shown; "" for all."""
        first = None if self.report is None else next(iter(self.report.trials), None)
        if self.report is None or first is None or self.report.pictures <= len(first.pictures):
            return ""
        return f"the first {len(first.pictures)} of {self.report.pictures} pictures"

    def when(self, row: TriedWords) -> str:
        """Say that words are those of the labeling config."""
        return "" if row.row else "(when measured)"

    def figure(self, iou: float | None) -> str:
        """Say how well the words do on a picture, where people have corrected some."""
        if self.report is None or not self.report.is_corrected:
            return ""
        return "not there" if iou is None else f"IoU {in_percent(iou)}"


class Confirmed(Struct, frozen=True):
    """An annotation that somebody has confirmed as right."""

    annotation: int
    task: int


class LabelErrorRuns(RunsView, frozen=True, kw_only=True):
    """Searches for label errors."""

    report: LabelErrors | None
    confirmed: list[Confirmed]
    people: list[str]  # what is said of annotators, a sentence each

    @property
    def has_confirmed(self) -> bool:
        return bool(self.confirmed)

    @property
    def compared(self) -> str:
        """What was compared, and with what."""
        report = self.report
        if report is None:
            return ""
        by = "with the words alone, since there is nothing to learn from"
        if report.examples:
            by = "each with what the other corrected pictures teach"
        annotations = count_with_noun(report.annotations, "annotation")
        pictures = count_with_noun(report.pictures, "picture")
        return f"Compared {self.made}: {annotations} of {pictures}, {by}."

    def where(self, found: Suspicion) -> str:
        """Say which annotation a suspicion is of, and which picture of its task."""
        told = f"annotation {found.annotation}"
        return told if found.item_index is None else f"{told}, picture {found.item_index + 1}"

    def confirmation(self, found: Suspicion) -> tuple[str, str]:
        """Return the text of the button that confirms an annotation, and its full name."""
        assert self.report is not None
        alike = sum(each.annotation == found.annotation for each in self.report.suspicions)
        if alike > 1:
            name = f"The whole annotation {found.annotation} is right"
            return "The whole annotation is right", name
        return "This is right", f"Annotation {found.annotation} is right"


class AgreementRuns(RunsView, frozen=True, kw_only=True):
    """Comparisons of annotators."""

    report: Agreement | None

    def few(self, each: AgreementOnLabel | AnnotatorFigures) -> str:
        """Say that a figure is of few pictures."""
        return "few" if each.pictures < _FEW else ""

    def where(self, dispute: Dispute) -> str:
        """Say which picture of a task a dispute is about, and of how many people."""
        people = f"{dispute.people} people"
        if dispute.item_index is None:
            return people
        return f"picture {dispute.item_index + 1}, {people}"


#: The columns of compared models; a heading that begins with ">" is of numbers.
MODEL_COLUMNS: Final = (
    "What is chosen",
    ">Words",
    ">Learned",
    ">Beside now",
    ">Saved paint",
    ">Seconds",
    ">MB",
)


def model_rows(report: ModelsReport) -> list[list[str]]:
    """Return the rows of compared models, those in use first, for the page and the command."""
    return [_model_row(each) for each in report.models]


def _model_row(model: ComparedModel) -> list[str]:
    weights_mb, picture_mb = (grouped(round(each)) for each in (model.weights_mb, model.picture_mb))
    return [
        model.name,
        in_percent(model.words_iou),
        in_percent(model.learned_iou),
        _gain(model) if model.lines else "",
        in_percent(model.saved_paint),
        f"{model.seconds:.2f}",
        f"{weights_mb} + {picture_mb}",
    ]


def _gain(model: ComparedModel) -> str:
    """Tell what a model gains, in points of mean IoU, and its range.

    >>> _gain(ComparedModel("", (), 0, 0, 0, 0, 0, 0, 0.021, -0.004, 0.03, ("car",)))
    '+2.1 (-0.4 to +3.0); car loses'
    """
    low, high = (f"{100 * each:+.1f}" for each in (model.low, model.high))
    lost = "; " + ", ".join(model.losing) if model.losing else ""
    loses = lost and inflected(len(model.losing), " loses", " lose")
    return f"{100 * model.gain:+.1f} ({low} to {high}){lost}{loses}"


def model_verdict(report: ModelsReport) -> str:
    """Say which of the compared models is the best, and whether that may be chance."""
    best = report.best
    if report.pictures < FEWEST_PICTURES:
        pictures = count_with_noun(report.pictures, "picture")
        return f"{pictures}: too few to tell. Correct {FEWEST_PICTURES} or more, and compare again."
    if not best.lines:
        return "Nothing that was tried is better than the settings in use."
    if not report.is_sure:
        return (
            f"Too few pictures to tell: “{best.name}” looks best, and that may be chance. Keep "
            "what is in use, or correct more pictures and compare again."
        )
    return (
        f"The best is “{best.name}”. Copy its lines to the settings and start the backend again; "
        "what was learned is learned again by itself."
    )


class ModelsRuns(RunsView, frozen=True, kw_only=True):
    """Comparisons of the settings in use with others."""

    report: ModelsReport | None

    @property
    def verdict(self) -> str:
        return "" if self.report is None else model_verdict(self.report)

    @property
    def rows(self) -> list[list[str]]:
        """The table, see `MODEL_COLUMNS`."""
        return [] if self.report is None else model_rows(self.report)

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """The headings, and whether the column is of numbers."""
        return [(each.removeprefix(">"), each.startswith(">")) for each in MODEL_COLUMNS]

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of settings of the best; () where it may be no better."""
        return self.report.best.lines if self.report is not None and self.report.is_sure else ()

    @property
    def refusals(self) -> list[str]:
        """What could not be compared, and why."""
        return [] if self.report is None else with_reasons(self.report.refused)

    @property
    def compared(self) -> str:
        """What was compared, and when."""
        if self.report is None:
            return ""
        pictures = count_with_noun(self.report.pictures, "annotated picture")
        labels = count_with_noun(self.report.labels, "label")
        return f"Compared {self.made} on {pictures} with {labels}."


#: Name of a kind -> how its runs are shown; others as `RunsView`.
VIEWS: Final[Mapping[str, type[RunsView]]] = {
    "datasets": DatasetRuns,
    "words": WordsRuns,
    "label-errors": LabelErrorRuns,
    "agreement": AgreementRuns,
    "models": ModelsRuns,
}
