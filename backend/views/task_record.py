"""The record of a task: all that is known of it here and in Label Studio, in order of time.

It answers most questions about one picture: who predicted it, when and with which version, why it
has no mask, what was said of it in the review, and whether its annotation teaches anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final

from msgspec import Struct

from backend.errors import StudioRefused, StudioUnreachable
from backend.feedback.annotation_store import KnownAnnotation
from backend.feedback.report.statistics import ORIGINS_IN_WORDS
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import Annotation, PredictionRow
from backend.projects.failures import FailingTask
from backend.review.verdicts import Judged
from backend.runs.dataset import DATASETS
from backend.services import Services

_VERDICTS: Final = {"good": "good", "work": "in need of work", "skip": "not clear: skipped"}

#: First words of `ORIGINS_IN_WORDS`, which speak of several annotations, for one.
_SINGULAR: Final = {"were": "was", "are": "is"}


class Entry(Struct, frozen=True):
    """Something that happened to a task."""

    sentence: str
    at: float | None = None  # when, in seconds since the epoch; None: it holds now
    is_trouble: bool = False


class TaskRecord(Struct, frozen=True):
    """All that is known of a task."""

    project: int
    task: int
    entries: tuple[Entry, ...]  # what happened, the oldest first; then what holds now
    trouble: str = ""  # why Label Studio says nothing; empty where it does
    is_predicted: bool = False  # whether it has a prediction now

    @property
    def text(self) -> str:
        """The record as lines, for a terminal; times are in UTC."""
        lines = [f"Task {self.task} of project {self.project}"]
        lines += [f"{_utc(each.at):20} {each.sentence}" for each in self.entries]
        if self.trouble:
            lines.append(f"{'':20} {self.trouble}")
        return "\n".join(lines)


def task_record(services: Services, project: int, task: int) -> TaskRecord | None:
    """Put together what is known of a task.

    Args:
        services: the parts of this process; no model is loaded.
        project: number of the task's project.
        task: id of the task.

    Returns:
        The record; None where neither Label Studio nor the database knows the task.
    """
    said = _ask(services.page_client, project, task)
    happened = sorted(_happened(services, project, task, said), key=lambda entry: entry.at or 0.0)
    entries = (*happened, *_now(services, project, task))
    if entries or said.trouble:
        return TaskRecord(project, task, entries, said.trouble, bool(said.predictions))
    if said.is_there:
        return TaskRecord(project, task, (Entry("Nothing has happened to it yet."),))
    return None


class _Said(Struct, frozen=True):
    """What Label Studio says of a task."""

    predictions: Sequence[PredictionRow] = ()
    annotations: Sequence[Annotation] = ()
    names: Mapping[int, str] = {}  # of people: id -> name
    is_there: bool = False
    trouble: str = ""  # why it says nothing


def _ask(client: LabelStudioClient | None, project: int, task: int) -> _Said:
    if client is None:
        said = "Without a token for Label Studio, this is what the database knows."
        return _Said(trouble=said)
    try:
        contents = client.contents(task)
        if contents is None or contents.project != project:
            return _Said()
        annotations = client.annotations(task)
        names = client.user_names() if annotations else {}
    except (StudioRefused, StudioUnreachable) as error:
        return _Said(trouble=f"Label Studio does not say what the task holds: {error}")
    return _Said(contents.predictions, annotations, names, is_there=True)


def _happened(services: Services, project: int, task: int, said: _Said) -> Iterator[Entry]:
    """Yield what has happened to a task, in no order."""
    yield from map(_predicted, said.predictions)
    yield from map(_failed, services.task_scope.failures.of_task(project, task))
    yield from map(_judged, services.reviews.of_task(project, task))
    for annotation in said.annotations:
        yield from _annotated(annotation, said.names)

    known = services.annotations.of_task(project, task)
    taught = services.learner.examples.taught([each.annotation for each in known])
    for each in known:
        yield _read(each, taught)


def _predicted(prediction: PredictionRow) -> Entry:
    """Say that a prediction was stored.

    >>> from backend.label_studio.records import Time
    >>> _predicted(PredictionRow(4, Time(9), "v1", 0.5)).sentence
    'Prediction 4 was stored, of v1, with the score 0.50.'
    """
    version = prediction.version or "a version without a name"
    has_score = prediction.score is not None
    score = f"with the score {prediction.score:.2f}" if has_score else "without a score"
    said = f"Prediction {prediction.id} was stored, of {version}, {score}."
    return Entry(said, float(prediction.created))


def _failed(failure: FailingTask) -> Entry:
    """Say that a task could not be predicted.

    >>> _failed(FailingTask(3, 7, 5, "The picture is gone.", 9.0, 9.0)).sentence
    'Job 5 could not predict it: The picture is gone.'
    """
    who = f"Job {failure.job}" if failure.job else "A request"
    return Entry(f"{who} could not predict it: {failure.reason}", failure.at, is_trouble=True)


def _judged(judged: Judged) -> Entry:
    """Say what a person has said in the review, and what has come of it.

    >>> said = Judged("good", "Ada", 9.0, "v1", False, 12, False, False, "")
    >>> _judged(said).sentence
    'Ada called the prediction of v1 good in the review; annotation 12 was written.'
    >>> _judged(said._replace(annotation=None, trouble="It is gone.", person="")).sentence
    'Somebody called the prediction of v1 good in the review. Not done: It is gone.'
    """
    who = judged.person or "Somebody"
    said = f"{who} called the prediction of {judged.version} {_VERDICTS[judged.verdict]} in the "
    said += "review"
    if judged.is_undone:
        return Entry(f"{said}, which is being taken back.", judged.at)
    if judged.trouble:
        return Entry(f"{said}. Not done: {judged.trouble}", judged.at, is_trouble=True)
    if judged.annotation is not None:
        return Entry(f"{said}; annotation {judged.annotation} was written.", judged.at)
    if judged.is_checked:
        return Entry(f"{said}; the editor gets it all the same, as a check.", judged.at)
    if judged.is_open:
        return Entry(f"{said}; its annotation is still to be written.", judged.at)
    return Entry(f"{said}.", judged.at)


def _annotated(annotation: Annotation, names: Mapping[int, str]) -> Iterator[Entry]:
    """Say that somebody has annotated or skipped a task, and changed that since."""
    who = names.get(annotation.annotator or 0, f"user {annotation.annotator}")
    who = "Somebody" if annotation.annotator is None else who
    what = "skipped it" if annotation.skipped else f"made annotation {annotation.id}"
    work = f", in {annotation.seconds:.0f} s of work" if annotation.seconds else ""
    yield Entry(f"{who} {what}{work}.", float(annotation.created))
    if annotation.updated > annotation.created + 1:
        yield Entry(f"Annotation {annotation.id} was changed last.", float(annotation.updated))


def _read(known: KnownAnnotation, taught: Collection[int]) -> Entry:
    """Say how an annotation was read, and whether it teaches.

    >>> _read(KnownAnnotation(12, "scratch", "", "", 9.0, False), {12}).sentence
    'Annotation 12 was read: it began from nothing, and the project learns from it.'
    """
    name = f"Annotation {known.annotation}"
    if not known.kind:
        return Entry(f"{name} is still to be read.")
    if known.kind == "broken":
        return Entry(f"{name} could not be read: {known.reason}", known.updated, is_trouble=True)
    verb, _, rest = ORIGINS_IN_WORDS[known.kind].partition(" ")
    origin = f"{_SINGULAR.get(verb, verb)} {rest}"
    version = f" ({known.version})" if known.version else ""
    teaches = "the project learns from it" if known.annotation in taught else "it teaches nothing"
    again = " It is read again soon." if known.is_open else ""
    said = f"{name} was read: it {origin}{version}, and {teaches}.{again}"
    return Entry(said, known.updated)


def _now(services: Services, project: int, task: int) -> Iterator[Entry]:
    """Say what holds of a task now."""
    if task in services.experiments.withheld(project):
        yield Entry("It gets no prediction while the time that predictions save is measured.")
    polls = services.change_poller.polls.list_polls()
    unserved = next((each.unserved for each in polls if each.project == project), {}).get(task)
    if unserved is not None:
        yield Entry(f"Label Studio cannot serve it: {unserved.reason}", is_trouble=True)
    made = services.runs.last(DATASETS, project)
    if made is not None:
        run, report = made
        reason = report.left_out.get(task)
        if reason is not None:
            said = f"The newest data set (run {run.id}) has left it out: {reason}"
            yield Entry(said, is_trouble=True)


def _utc(at: float | None) -> str:
    """Return a time as 2026-01-31 12:00:00; "now" for None.

    >>> _utc(0.0), _utc(None)
    ('1970-01-01 00:00:00', 'now')
    """
    if at is None:
        return "now"
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
