"""The sums of all projects in the database: one row for each group of annotations.

A row changes in the transaction that changes an annotation. So a report reads a few rows, however
many annotations there are, and always agrees with what was read of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from backend.database.database import MAX_KEYS, METADATA, Database
from backend.feedback.annotation_table import (
    ANNOTATIONS,
    ReadAnnotation,
    read_in,
    write_annotations,
)
from backend.feedback.sums import (
    Grouping,
    GroupSums,
    ProjectSums,
    Step,
    check_period,
    choose_step,
    groups_of,
    in_order,
)

_SUMS: Final = Table(
    "annotation_sums",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("grouping", String(8), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sums", Text, nullable=False),  # JSON
)

_ROW: Final = _SUMS.c
_READ: Final = ANNOTATIONS.c

#: Rows of which the parsed sums are kept in memory, with the figures that a report has made of
#: them; each takes about 0.15 MB with 20 labels.
_MAX_PARSED: Final = 256

_Key = tuple[int, Grouping, str]


def change_sums(
    connection: Connection, before: ReadAnnotation | None, now: ReadAnnotation | None
) -> None:
    """Take away what was read of an annotation before, and add what is read of it now.

    Args:
        connection: to the database, in a transaction that `write_annotations` has opened.
        before: None where nothing was read.
        now: None where it is gone.
    """
    if before == now:
        return
    signed = [(read, sign) for read, sign in ((before, -1), (now, 1)) if read is not None]
    keys = {key for read, _ in signed for key in _keys(read)}
    groups = _load(connection, keys)
    for read, sign in signed:
        for key in _keys(read):
            groups.setdefault(key, GroupSums()).add(read, sign)
    for key in sorted(keys):
        _write(connection, key, groups[key])


def recount_sums(database: Database, project: int) -> bool:
    """Add up all that was read of a project's annotations anew.

    Nobody waits for it: it only writes where no sum has changed meanwhile.

    Args:
        database: where the annotations are kept.

    Returns:
        Whether it could write.
    """
    groups: dict[_Key, GroupSums] = {}
    query = select(ANNOTATIONS).where(_READ.project == project, _READ.kind != "")
    with database.stream() as connection:
        before = _texts(connection, project)
        for row in connection.execute(query.execution_options(yield_per=MAX_KEYS)):
            read = read_in(row)
            for key in _keys(read):
                groups.setdefault(key, GroupSums()).add(read)
    with write_annotations(database) as connection:
        if _texts(connection, project) != before:
            return False
        connection.execute(delete(_SUMS).where(_ROW.project == project))
        if groups:
            connection.execute(insert(_SUMS), [_row(key, sums) for key, sums in groups.items()])
    return True


def read_sums(connection: Connection, project: int, step: Step | None) -> ProjectSums:
    """Return the sums of a project.

    Args:
        step: the length of a period, see `ProjectSums.of`.
    """
    check_period(step)
    chosen = step or _choose_step(connection, project)
    wanted = _ROW.grouping.in_(("all", chosen, "version"))
    found: dict[str, dict[str, GroupSums]] = {"all": {}, chosen: {}, "version": {}}
    for row in connection.execute(select(_SUMS).where(_ROW.project == project, wanted)):
        found[row.grouping][row.name] = _parsed(row.sums)
    whole, versions = found["all"].get("", GroupSums()), found["version"]
    # PostgreSQL shows each statement what was committed before it: a version may be newer.
    first_seen, last_seen = (_seen(connection, project, end) for end in (func.min, func.max))
    known = versions.keys() & first_seen.keys() & last_seen.keys()
    return ProjectSums(
        whole,
        chosen,
        dict(sorted(found[chosen].items())),
        {name: versions[name] for name in in_order(first_seen) if name in known},
        {name: last_seen[name] for name in in_order(last_seen) if name in known},
        _broken(connection, project) if whole.kinds["broken"] else {},
    )


def read_totals(connection: Connection) -> dict[int, GroupSums]:
    """Return project -> the sums over all that was read of it, by ascending project."""
    query = select(_ROW.project, _ROW.sums).where(_ROW.grouping == "all").order_by(_ROW.project)
    return {row.project: _parsed(row.sums) for row in connection.execute(query)}


@lru_cache(maxsize=_MAX_PARSED)
def _parsed(sums: str) -> GroupSums:
    """Parse the sums of a row, for reading alone: most rows are as they were at the last look."""
    return GroupSums.from_json(json.loads(sums))


def _keys(read: ReadAnnotation) -> Iterator[_Key]:
    return ((read.project, grouping, name) for grouping, name in groups_of(read))


def _texts(connection: Connection, project: int) -> dict[tuple[str, str], str]:
    rows = connection.execute(select(_SUMS).where(_ROW.project == project))
    return {(row.grouping, row.name): row.sums for row in rows}


def _is(key: _Key) -> ColumnElement[bool]:
    project, grouping, name = key
    return and_(_ROW.project == project, _ROW.grouping == grouping, _ROW.name == name)


def _load(connection: Connection, keys: Iterable[_Key]) -> dict[_Key, GroupSums]:
    rows = connection.execute(select(_SUMS).where(or_(*map(_is, keys))))
    return {
        (row.project, row.grouping, row.name): GroupSums.from_json(json.loads(row.sums))
        for row in rows
    }


def _write(connection: Connection, key: _Key, sums: GroupSums) -> None:
    if sums.is_empty:
        connection.execute(delete(_SUMS).where(_is(key)))
        return
    row = _row(key, sums)
    changed = connection.execute(update(_SUMS).where(_is(key)).values(sums=row["sums"]))
    if not changed.rowcount:
        connection.execute(insert(_SUMS).values(row))


def _row(key: _Key, sums: GroupSums) -> dict[str, Any]:
    project, grouping, name = key
    text = json.dumps(sums.to_json(), separators=(",", ":"))
    return {"project": project, "grouping": grouping, "name": name, "sums": text}


def _choose_step(connection: Connection, project: int) -> Step:
    query = select(func.min(_ROW.name), func.max(_ROW.name))
    days = query.where(_ROW.project == project, _ROW.grouping == "day")
    first, last = connection.execute(days).one()
    return "day" if first is None else choose_step(first, last)


def _seen(
    connection: Connection, project: int, end: Callable[[ColumnElement[float]], Any]
) -> dict[str, float]:
    """Return model version -> when an annotation began with it, first or last.

    The index finds each of them; without `scalar_subquery` all annotations would be read.
    """
    times = select(end(_READ.created)).where(
        _READ.project == project, _READ.version == _ROW.name, _READ.kind == "compared"
    )
    query = select(_ROW.name, times.scalar_subquery())
    rows = connection.execute(query.where(_ROW.project == project, _ROW.grouping == "version"))
    return {name: time for name, time in rows if time is not None}


def _broken(connection: Connection, project: int) -> dict[int, str]:
    query = select(_READ.annotation, _READ.reason)
    broken = query.where(_READ.project == project, _READ.kind == "broken")
    rows = connection.execute(broken.order_by(_READ.created, _READ.annotation))
    return {row.annotation: row.reason for row in rows}
