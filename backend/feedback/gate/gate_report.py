"""What people are told of an acceptance gate: on the page, by the command and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from backend.feedback.gate.gate import LOOKS, Gate
from backend.feedback.gate.gate_store import TaskList

Json = dict[str, Any]

#: What a gate is doing: it has too few corrections, lets nothing pass, is open, or was closed.
GateState = Literal["waiting", "shut", "open", "closed"]

#: What each state means.
STATES: Final[Mapping[GateState, str]] = {
    "waiting": "There are too few corrected pictures yet.",
    "shut": "No prediction is safe enough: look at all of them.",
    "open": "It is open: tasks that pass need no look, but for those that are audited.",
    "closed": "Its audit has closed it: too many tasks that passed needed a change.",
}

#: The order of annotation is mentioned where checked pictures count for less than that.
_IN_FULL: Final = 0.9


@dataclass(frozen=True)
class GateReport:
    """The acceptance gate of a model version in a project.

    Attributes:
        project: its id.
        version: the model version whose predictions are judged; empty where none was corrected.
        versions: model version -> annotations that began with a prediction of it.
        share: the wanted share of passing tasks that need no change.
        confidence: the wanted confidence.
        audit_share: share of the passing tasks that are corrected as before.
        gate: as it was made last; None before that.
        unscored: tasks left out, as their annotations were read before scores were kept.
        tasks: list -> its number of tasks, as they were found last.
        audited: audited tasks that were corrected since the gate was made or opened again.
        audited_changed: those of them that needed a change.
        alarm: when the audit closed the gate, in seconds since the epoch; None where it did not.
    """

    project: int
    version: str
    versions: Mapping[str, int]
    share: float
    confidence: float
    audit_share: float
    gate: Gate | None = None
    unscored: int = 0
    tasks: Mapping[TaskList, int] = field(default_factory=dict)
    audited: int = 0
    audited_changed: int = 0
    alarm: float | None = None

    @property
    def annotations(self) -> int:
        """Annotations that began with a prediction of the version."""
        return self.versions.get(self.version, 0)

    @property
    def state(self) -> GateState:
        """What the gate is doing."""
        if self.gate is None:
            return "waiting"
        if self.alarm is not None:
            return "closed"
        return "open" if self.gate.is_open else "shut"

    @property
    def next_look(self) -> int | None:
        """Corrected pictures at which the gate is made anew; None after the last time."""
        made_from = 0 if self.gate is None else self.gate.pictures
        return next((each for each in LOOKS if each > made_from), None)

    @property
    def promise(self) -> str | None:
        """What an open gate promises, in a sentence; None where it is not open."""
        if self.state != "open":
            return None
        return (
            f"Of the tasks that pass, at least {100 * self.share:.3g} % need no change at all, "
            f"with a confidence of {100 * self.confidence:.3g} %."
        )

    @property
    def order(self) -> str | None:
        """What the order of annotation costs, in sentences; None where that is little."""
        gate = self.gate
        if gate is None or gate.independent is None:
            return None
        if gate.independent >= _IN_FULL * gate.checked:
            return None
        return (
            f"The {gate.checked} pictures that checked it count as {gate.independent:.0f} only: "
            "neighbours in the order of annotation are alike, as they are drive after drive or by "
            "score. In random order each counts in full."
        )

    def to_json(self) -> Json:
        """Return the report as JSON."""
        gate = None
        if self.gate is not None:
            gate = self.gate.to_json() | {"coverage": round(self.gate.coverage, 6)}
        return {
            "project": self.project,
            "version": self.version,
            "versions": dict(self.versions),
            "state": self.state,
            "meaning": STATES[self.state],
            "promise": self.promise,
            "order": self.order,
            "share": self.share,
            "confidence": self.confidence,
            "audit_share": self.audit_share,
            "annotations": self.annotations,
            "next_look": self.next_look,
            "unscored": self.unscored,
            "gate": gate,
            "tasks": dict(self.tasks),
            "audited": self.audited,
            "audited_changed": self.audited_changed,
            "alarm": self.alarm,
        }
