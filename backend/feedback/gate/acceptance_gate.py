"""The acceptance gates of projects: made when enough is corrected, and closed by their audits."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, get_args

from backend.errors import BadRequest, GateClosed
from backend.feedback.annotation_queries import AnnotationQueries
from backend.feedback.gate.audit import has_drifted
from backend.feedback.gate.gate import looks_reached, make_gate
from backend.feedback.gate.gate_report import STATES, GateReport
from backend.feedback.gate.gate_store import GateStore, StoredGate, TaskList
from backend.feedback.gate.outcomes import task_outcomes
from backend.label_studio.quick_version import is_quick
from backend.settings import Settings

log = logging.getLogger(__name__)

#: New annotations after which tasks are counted again, where the next look was not reached.
_COUNT_AGAIN: Final = 10

#: How often audits are looked at where nobody asks, in seconds.
_CHECK_EVERY_S: Final = 60.0


class AcceptanceGates:
    """Answers which predictions of projects need no look.

    Most answers read a few rows. A gate is made from all corrections a few times in the life of a
    model version, see `backend.feedback.gate.gate.LOOKS`.

    Args:
        settings: the wanted share and confidence, and the share that is audited.
        annotations: the sums over annotations.
        store: keeps gates.

    Attributes:
        remakes: whether a gate that was made for another share or confidence than the settings say
            is made anew, and with it its audit. A command, whose settings may be those of a shell,
            leaves it as it is.
    """

    remakes: bool = True

    def __init__(
        self,
        settings: Settings,
        annotations: AnnotationQueries,
        store: GateStore,
    ) -> None:
        self._settings = settings
        self._annotations = annotations
        self._store = store
        self._next_check = 0.0

    def report(self, project: int, version: str | None = None) -> GateReport:
        """Report on a gate, which is made, made anew or closed where that is due.

        Args:
            project: its id.
            version: the model version; by default the one that most annotations began with.

        Raises:
            BadRequest: no annotation began with a prediction of that version, and it has no gate.
                Quick versions never have one: their tasks are predicted anew.
        """
        groups = self._annotations.sums(project).versions
        versions = {
            name: sums.kinds["compared"] for name, sums in groups.items() if not is_quick(name)
        }
        for kept in self._store.versions(project):
            versions.setdefault(kept, 0)  # what is accepted can always be withdrawn
        if version is None:
            version = max(reversed([*versions]), key=lambda name: versions[name], default="")
        elif version not in versions:
            raise BadRequest(f"No annotation of project {project} began with such a version.")
        stored = self._look(project, version, versions.get(version, 0))
        audits = self._audit(project, version, stored)
        share, confidence = self._wanted(stored)
        if stored.alarm is None and has_drifted(audits, share):
            self._close(project, version, audits)
            stored = self._store.get(project, version)
        return GateReport(
            project,
            version,
            versions,
            share,
            confidence,
            self._settings.gate_audit_share,
            stored.gate,
            stored.unscored,
            self._store.count_tasks(project, version),
            len(audits),
            sum(audits),
            stored.alarm,
        )

    def open_gate(self, project: int, version: str | None = None) -> GateReport:
        """Return the report on a gate that is open.

        Raises:
            GateClosed: it is not.
        """
        report = self.report(project, version)
        if report.state != "open":
            raise GateClosed(
                f"The acceptance gate of project {project} lets nothing pass. "
                f"{STATES[report.state]}"
            )
        return report

    def reopen(self, project: int, version: str | None = None) -> GateReport:
        """Open a gate again that its audit has closed, and begin the audit anew.

        Raises:
            GateClosed: it was not closed.
        """
        report = self.report(project, version)
        if not self._store.reopen(project, report.version):
            raise GateClosed(f"No audit has closed the acceptance gate of project {project}.")
        return self.report(project, report.version)

    def describe(self, report: GateReport) -> dict[str, Any]:
        """Return a report with the numbers of the tasks in its lists, as JSON."""
        lists: tuple[TaskList, ...] = get_args(TaskList)
        ids = {each: self._store.tasks(report.project, report.version, each) for each in lists}
        return report.to_json() | {"task_ids": ids}

    def tasks(self, report: GateReport, which: TaskList, limit: int) -> list[int]:
        """Return the first tasks of a list, in ascending order."""
        return self._store.tasks(report.project, report.version, which, limit)

    def check_audits(self) -> bool:
        """Close the gates whose audits ask for it, once a minute; return False: it can wait."""
        now = time.monotonic()
        if now < self._next_check:
            return False
        self._next_check = now + _CHECK_EVERY_S
        for project, version in self._store.open_gates():
            stored = self._store.get(project, version)
            audits = self._audit(project, version, stored)
            if has_drifted(audits, self._wanted(stored)[0]):
                self._close(project, version, audits)
        return False

    def _look(self, project: int, version: str, annotations: int) -> StoredGate:
        """Return the gate of a version, made now where its next look is reached.

        Where other shares are wanted than those that it was made for, it is made anew as well.
        """
        stored = self._store.get(project, version)
        wanted = self._wanted(stored)
        is_other = stored.gate is not None and wanted != (
            stored.gate.share,
            stored.gate.confidence,
        )
        is_due = looks_reached(annotations) > stored.looks
        is_counted = stored.annotations and annotations < stored.annotations + _COUNT_AGAIN
        if not is_other and (not is_due or is_counted):
            return stored
        outcomes, unscored = task_outcomes(self._store.compared(project, version))
        looks = looks_reached(len(outcomes))
        counted = replace(stored, annotations=annotations, unscored=unscored, gate=None)
        if looks > stored.looks or is_other:
            gate = make_gate(outcomes, *wanted)
            log.info(
                "Project %d: the acceptance gate is made from %d tasks", project, len(outcomes)
            )
            counted = replace(counted, looks=max(looks, stored.looks), gate=gate)
        self._store.keep(project, version, counted)
        return self._store.get(project, version)

    def _wanted(self, stored: StoredGate) -> tuple[float, float]:
        """Return the share and the confidence that a gate is to have."""
        if stored.gate is not None and not self.remakes:
            return stored.gate.share, stored.gate.confidence
        return self._settings.gate_share, self._settings.gate_confidence

    def _audit(self, project: int, version: str, stored: StoredGate) -> list[bool]:
        """Return of each audited task whether it needed a change, in the order of correction."""
        if stored.gate is None:
            return []
        reads = self._store.audits(project, version, stored.since)
        outcomes = {each.task: each for each in task_outcomes(reads)[0]}
        tasks = dict.fromkeys(read.task for read in reads if read.task in outcomes)
        return [bool(outcomes[task].changed) for task in tasks]

    def _close(self, project: int, version: str, audits: Sequence[bool]) -> None:
        if self._store.close(project, version):
            log.warning(
                "Project %d: the acceptance gate is closed: %d of %d audited tasks needed a change",
                project,
                sum(audits),
                len(audits),
            )
