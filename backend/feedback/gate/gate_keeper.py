"""Finds the tasks of a project that pass its gate, and turns them into annotations on request.

An annotation of the gate carries the number of its import, and a note in each region, so that it
is known for what it is. It is read as "converted" (`backend.feedback.annotation_reader`): nothing
is learned from it and it counts as no correction, until somebody changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from backend.errors import BadRequest
from backend.feedback.comparison import predicted_scores
from backend.feedback.gate.acceptance_gate import AcceptanceGates
from backend.feedback.gate.audit import is_audited
from backend.feedback.gate.gate_report import GateReport
from backend.feedback.gate.gate_store import FoundTask, GateStore, TaskList
from backend.label_studio.annotation_writer import GATE_IMPORT, import_id
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import PredictionRegions
from backend.label_studio.task_filter import TaskFilter

#: What each region of an annotation of the gate says of itself.
NOTE: Final = "Accepted by the acceptance gate: nobody has looked at it."

#: Titles of the views that list tasks.
VIEW_TITLES: Final[Mapping[TaskList, str]] = {
    "listed": "Passes the acceptance gate",
    "audit": "Audit of the acceptance gate",
    "accepted": "Accepted by the gate",
}

#: Tasks that are kept at once.
_BATCH_SIZE: Final = 50

#: Annotations that Label Studio may refuse before no other is tried.
_MAX_REFUSED: Final = 10

#: Is told how many tasks are done; returns whether to go on.
Advance = Callable[[int], bool]


def _go_on(done: int) -> bool:
    return True


@dataclass
class Acceptance:
    """What became of the tasks that were to be turned into annotations, or back.

    Attributes:
        done: tasks that have an annotation of the gate now, or have none any more.
        left: tasks that were left as they are, since somebody has worked on them or their
            prediction is another by now.
        refused: id of a task -> why Label Studio refuses the annotation.
    """

    done: int = 0
    left: int = 0
    refused: dict[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        refused = {str(task): reason for task, reason in self.refused.items()}
        return {"done": self.done, "left": self.left, "refused": refused}


class GateKeeper:
    """Does what people ask of the gate in Label Studio.

    Args:
        gates: the gates.
        store: keeps the tasks.
        client: Label Studio.
    """

    def __init__(self, gates: AcceptanceGates, store: GateStore, client: LabelStudioClient) -> None:
        self._gates = gates
        self._store = store
        self._client = client

    def find(
        self, project: int, version: str | None = None, advance: Advance = _go_on
    ) -> GateReport:
        """Find the tasks without an annotation that pass the gate; it need not be open.

        Until all are found, the lists are those of the last time, as long as that was for the same
        version: tasks that are found for another one leave the lists of theirs at once.

        Args:
            project: its id.
            version: the model version; by default the one of the report.
            advance: is told of the progress.

        Raises:
            LabelConfigError: the label config cannot be read.
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        report = self._gates.report(project, version)
        gate, version = report.gate, report.version
        self._store.begin_finding(project, version)
        if gate is None:
            self._store.finish_finding(project, version)
            return report
        found = self._find(project, version, report.audit_share)
        done = 0
        while some := list(islice(found, _BATCH_SIZE)):
            tasks = [each for each in some if each is not None]
            self._store.add_tasks(project, version, tasks, gate.passes)
            done += len(some)
            if not advance(done):
                return self._gates.report(project, version)
        self._store.finish_finding(project, version)
        return self._gates.report(project, version)

    def accept(
        self, project: int, version: str | None = None, advance: Advance = _go_on
    ) -> Acceptance:
        """Turn the listed tasks into annotations; those that are audited stay for people.

        It ends early where the audit closes the gate meanwhile, where another gate takes its place,
        and after ten refusals: the reason is most likely one for all.

        Raises:
            GateClosed: the gate is not open.
            LabelConfigError: the label config cannot be read.
            StudioRefused: the token may not see a task.
            StudioUnreachable: Label Studio does not answer.
        """
        report, made = self._gates.open_gate(project, version), Acceptance()
        config, drafted = self._config(project), self._drafted(project)
        for number, task in enumerate(self._store.tasks(project, report.version, "listed")):
            stored = self._store.get(project, report.version)
            if stored.alarm is not None or stored.gate != report.gate or not advance(number):
                break
            if task in drafted:
                self._leave(project, task, made)
            else:
                self._accept(report, task, config, made)
            if len(made.refused) >= _MAX_REFUSED:
                break
        return made

    def withdraw(
        self, project: int, version: str | None = None, advance: Advance = _go_on
    ) -> Acceptance:
        """Delete the annotations of the gate that nobody has changed or begun to change.

        Raises:
            StudioRefused: the token may not remove one.
            StudioUnreachable: Label Studio does not answer.
        """
        report, made = self._gates.report(project, version), Acceptance()
        drafted = self._drafted(project)
        for number, task in enumerate(self._store.tasks(project, report.version, "accepted")):
            if not advance(number):
                break
            if task in drafted:  # it would be deleted with the annotation
                made.left += 1
            else:
                self._withdraw(project, task, made)
        return made

    def show(self, project: int, which: TaskList, version: str | None = None) -> int:
        """Make a view of the data manager with the tasks of a list; return its id.

        Raises:
            StudioRefused: the token may not make views there.
            StudioUnreachable: Label Studio does not answer.
        """
        report = self._gates.report(project, version)
        tasks = self._store.tasks(project, report.version, which)
        return self._client.views.show(project, VIEW_TITLES[which], tasks)

    # ---- inside ------------------------------------------------------------------------------

    def _find(self, project: int, version: str, audit_share: float) -> Iterator[FoundTask | None]:
        """Read the predictions of tasks without an annotation; None where one does not count."""
        config = self._config(project)
        wanted = TaskFilter(unlabeled=True, with_version=version)
        for task in self._client.ids(project, wanted):
            scores = _scores(self._newest(task), version, config)
            yield None if scores is None else FoundTask(task, scores, is_audited(task, audit_share))

    def _accept(self, report: GateReport, task: int, config: LabelConfig, made: Acceptance) -> None:
        writer = self._client.annotation_writer
        try:
            own, others = writer.find(task, GATE_IMPORT)
        except BadRequest:  # too large to be read: people have annotated it
            self._leave(report.project, task, made)
            return
        prediction = self._newest(task)
        scores = _scores(prediction, report.version, config)
        passes = scores is not None and report.gate is not None and report.gate.passes(scores)
        if prediction is None or others or not (own or passes):
            self._leave(report.project, task, made)
            return
        refusal = "" if own else writer.write(task, GATE_IMPORT, with_note(prediction.result))
        if refusal:
            made.refused[task] = refusal
            return
        self._store.accept(report.project, task)
        made.done += 1

    def _withdraw(self, project: int, task: int, made: Acceptance) -> None:
        try:
            annotations = self._client.contents.annotations(task)
        except BadRequest:  # too large to be read: others are among them
            self._leave(project, task, made)
            return
        unchanged = [
            each.id
            for each in annotations
            if each.import_id == import_id(GATE_IMPORT) and each.seconds is None
        ]
        for annotation in unchanged:
            self._client.annotation_writer.delete(annotation)
        if len(unchanged) < len(annotations):
            self._leave(project, task, made)
        else:
            self._store.take_back(project, task)
            made.done += 1

    def _leave(self, project: int, task: int, made: Acceptance) -> None:
        self._store.leave(project, task)
        made.left += 1

    def _drafted(self, project: int) -> set[int]:
        """Return the tasks on which somebody has a draft."""
        return set(self._client.ids(project, TaskFilter(drafted=True)))

    def _newest(self, task: int) -> PredictionRegions | None:
        """Return the newest prediction of a task.

        None where there is none or no such task, or where it is too large to be read.
        """
        try:
            stored = self._client.stored(task)
            return self._client.prediction(stored[-1].id) if stored else None
        except BadRequest:
            return None

    def _config(self, project: int) -> LabelConfig:
        return parse_label_config(self._client.label_config(project))


def with_note(result: Sequence[Any]) -> list[Any]:
    """Return the regions of a result, each with `NOTE` in its meta information."""
    return [
        {**region, "meta": {"text": [NOTE]}} if isinstance(region, dict) else region
        for region in result
    ]


def _scores(
    prediction: PredictionRegions | None, version: str, config: LabelConfig
) -> Mapping[str, float] | None:
    """Return the scores of a prediction of that version; None where they cannot be told."""
    if prediction is None or prediction.version != version:
        return None
    try:
        return predicted_scores(prediction.result, config)
    except BadRequest:
        return None
