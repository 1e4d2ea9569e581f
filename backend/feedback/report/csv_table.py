"""Writes the report as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from backend.feedback.report.safe_scores import SafeScore
from backend.feedback.report.statistics import LabelStatistics, PrelabelReport, Seconds
from backend.telemetry.logs import printable

Json = dict[str, Any]


def to_csv(report: PrelabelReport) -> str:
    """Return the report as CSV: one line for each label, in all, by period and by model version.

    Lines with the label "all" sum up all labels; only they have seconds. Lines of one label over
    all periods and versions have its safe score. A name that a spreadsheet
    would take for a formula gets a ' in front.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    groups = [("all", "all", report.all)]
    groups += [(group.name, "all", group) for group in report.periods]
    groups += [("all", group.name, group) for group in report.versions]
    for period, version, group in groups:
        where = {"period": period, "model_version": _cell(version)}
        figures = {"annotations": group.annotations, **_seconds(group.seconds)}
        writer.writerow({**where, "label": "all", **figures, **_flat(group.total)})
        for label, statistics in group.labels.items():
            safe = _safe_score(report.safe_scores.get(label)) if group is report.all else {}
            writer.writerow({**where, "label": _cell(label), **_flat(statistics), **safe})
    return file.getvalue()


def _cell(text: str) -> str:
    """Return a name as a cell that no spreadsheet takes for a formula.

    >>> _cell("=1+1"), _cell("car")
    ("'=1+1", 'car')
    """
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


_COLUMNS: Final = (
    "period",
    "model_version",
    "label",
    "annotations",
    "pictures",
    "prelabels",
    "accepted",
    "corrected",
    "deleted",
    "relabelled",
    "added",
    "received",
    "false",
    "missed",
    "accepted_share",
    "mean_iou",
    "mean_boundary_iou",
    "saved_paint",
    "predicted_px",
    "true_px",
    "shared_px",
    "seconds_with_prelabel",
    "seconds_without_prelabel",
    "safe_score",
    "safe_masks",
    "safe_share",
    "safe_lower_bound",
)


def _flat(statistics: LabelStatistics) -> Json:
    return statistics.to_json() | {"relabelled": sum(statistics.relabelled.values())}


def _seconds(seconds: Seconds) -> Json:
    return {
        "seconds_with_prelabel": seconds.with_prelabel,
        "seconds_without_prelabel": seconds.without_prelabel,
    }


def _safe_score(found: SafeScore | None) -> Json:
    return {f"safe_{name}": value for name, value in found.to_json().items()} if found else {}
