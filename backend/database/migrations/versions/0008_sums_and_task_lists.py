"""Make the tables of sums over annotations and of the jobs' lists of tasks, and fill them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_PARTS = 1 << 36  # of an IoU
_COUNTS = (
    "accepted",
    "corrected",
    "deleted",
    "added",
    "received",
    "predicted_px",
    "true_px",
    "shared_px",
)
_READ = ("annotation", "project", "kind", "version", "seconds", "created", "changes")


def upgrade() -> None:
    """Make both tables and their rows."""
    _move_task_lists()
    _sum_up_annotations()


def _move_task_lists() -> None:
    """Move the lists out of the rows of jobs, which are written with each step."""
    op.create_table(
        "job_tasks",
        sa.Column("job", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("tasks", sa.Text()),
        sa.Column("scope", sa.Text()),
    )
    op.execute(
        "INSERT INTO job_tasks (job, tasks, scope) SELECT id, tasks, scope FROM jobs "
        "WHERE tasks IS NOT NULL OR scope IS NOT NULL"
    )
    with op.batch_alter_table("jobs", table_kwargs={"sqlite_autoincrement": True}) as jobs:
        jobs.drop_column("tasks")
        jobs.drop_column("scope")


def _sum_up_annotations() -> None:
    """Make the table of sums, its rows, and the indexes that a report asks."""
    sums = op.create_table(
        "annotation_sums",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("grouping", sa.String(8), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("sums", sa.Text(), nullable=False),
    )
    # PostgreSQL indexes no text that is much longer; such a version names no model of this backend.
    op.execute("UPDATE annotations SET kind = 'foreign', version = '' WHERE length(version) > 500")
    op.create_index("ix_annotations_kind", "annotations", ["project", "kind"])
    op.create_index("ix_annotations_seen", "annotations", ["project", "version", "created"])
    annotations = sa.table("annotations", *map(sa.column, _READ))
    connection = op.get_bind()
    read = sa.select(annotations).where(annotations.c.kind != "")
    groups: dict[tuple[int, str, str], dict[str, Any]] = {}
    for row in connection.execute(read.execution_options(yield_per=400)):
        changes = json.loads(row.changes)
        for grouping, name in _groups(row):
            group = groups.setdefault((row.project, grouping, name), _empty_group())
            _add(group, row, changes)
    for (project, grouping, name), group in groups.items():
        for times in ("with", "without"):
            group[times] = [number for pair in sorted(group[times].items()) for number in pair]
        values = {"project": project, "grouping": grouping, "name": name}
        connection.execute(sums.insert().values(**values, sums=json.dumps(group)))


def _groups(row: Any) -> Iterator[tuple[str, str]]:
    yield "all", ""
    if row.kind == "skipped":
        return
    day = datetime.fromtimestamp(row.created, timezone.utc).date()
    yield "day", day.isoformat()
    yield "week", (day - timedelta(day.weekday())).isoformat()
    if row.kind == "compared":
        yield "version", row.version


def _empty_group() -> dict[str, Any]:
    empty: dict[str, Any] = {"kinds": Counter(), "pictures": 0, "labels": {}}
    empty["total"] = _empty_sums()
    return empty | {"with": Counter(), "without": Counter()}


def _empty_sums() -> list[Any]:
    return [0] * (5 + len(_COUNTS)) + [{}]


def _add(group: dict[str, Any], row: Any, changes: list[dict[str, Any]]) -> None:
    group["kinds"][row.kind] += 1
    if row.kind == "skipped":
        return
    images, labels = set(), Counter[str]()
    for change in changes:
        _add_change(group["total"], change)
        sums = group["labels"].setdefault(change["label"], _empty_sums())
        if _add_change(sums, change):
            images.add(change.get("image", 0))
            labels[change["label"]] += 1
    group["pictures"] += max(len(images), *labels.values(), 0)
    times = {"compared": "with", "scratch": "without"}.get(row.kind)
    if times is not None and row.seconds is not None and row.seconds > 0:
        group[times][float(f"{row.seconds:.3g}")] += 1


def _add_change(sums: list[Any], change: dict[str, Any]) -> bool:
    """Add what became of a label on an image; return whether it covers anything there."""
    counts = [change.get(name, 0) for name in _COUNTS]
    predicted, true, shared = counts[-3:]
    sums[0] += 1
    if predicted + true - shared:
        sums[1] += 1
        sums[2] += round(shared / (predicted + true - shared) * _PARTS)
    if change.get("band_px", 0):
        sums[3] += 1
        sums[4] += round(change.get("band_shared_px", 0) / change["band_px"] * _PARTS)
    for at, count in enumerate(counts, start=5):
        sums[at] += count
    for label, count in change.get("relabelled", {}).items():
        sums[-1][label] = sums[-1].get(label, 0) + count
    return bool(predicted + true - shared)
