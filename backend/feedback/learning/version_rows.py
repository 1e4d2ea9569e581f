"""Insert, read and delete the rows of learned versions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, not_, select, update

from backend.feedback.learning.tables import FITTED_PICTURES, STATES, VERSIONS, in_project
from backend.feedback.learning.versions import SetAsideAnnotation, Version
from clearclip_core import Adaptation

#: Versions that are kept of a project: the newest, and the live one.
MOST_VERSIONS: Final = 50


def insert_version(
    connection: Connection,
    project: int,
    model: str,
    version: Version,
    adaptation: Adaptation | None,
    now: float,
) -> Version:
    """Insert a version under the next number, unless it equals the newest one.

    Args:
        connection: a transaction in which the project's row is locked.
        project: its id.
        model: the key of the model in use.
        version: without number and time.
        adaptation: what it adds to scores; None where it is not better than the words alone.
        now: the time of the version, in seconds since the epoch.

    Returns:
        The version as it is kept: the new one, or the newest one that equals it.
    """
    newest = _newest_row(connection, project, model)
    if newest is not None and (newest.digest, newest.origin) == (version.digest, version.origin):
        return _refresh(connection, version_from_row(newest), project, model, version)
    number = 1 if newest is None else newest.number + 1
    kept = replace(version, number=number, created=now)
    connection.execute(
        insert(VERSIONS).values(
            project=project,
            model=model,
            number=kept.number,
            origin=kept.origin,
            digest=kept.digest,
            adaptation=None if adaptation is None else adaptation.to_bytes(),
            better=int(kept.better),
            annotations=kept.annotations,
            pictures=kept.pictures,
            facts=json.dumps(kept.facts),
            created=kept.created,
        )
    )
    return kept


def _refresh(
    connection: Connection, kept: Version, project: int, model: str, version: Version
) -> Version:
    """Give a version that is kept the reasons of an equal one that was made later."""
    names = ("refused", "set_aside", "presence", "synonyms", "objection")
    reasons = {name: getattr(version, name) for name in names}
    fresh = replace(kept, **reasons)
    if fresh != kept:
        its = (*in_project(VERSIONS, project, model), VERSIONS.c.number == kept.number)
        facts = {"facts": json.dumps(fresh.facts)}
        connection.execute(update(VERSIONS).where(*its).values(facts))
    return fresh


def delete_old_versions(connection: Connection, project: int, model: str) -> None:
    """Delete the oldest versions of a project beyond `MOST_VERSIONS`, but not the live one."""
    versions = in_project(VERSIONS, project, model)
    newest = select(VERSIONS.c.number).where(*versions).order_by(VERSIONS.c.number.desc())
    last = connection.execute(newest.offset(MOST_VERSIONS).limit(1)).scalar()
    if last is None:
        return
    live = select(STATES.c.live).where(*in_project(STATES, project, model)).scalar_subquery()
    for table in (VERSIONS, FITTED_PICTURES):
        old = in_project(table, project, model)
        is_live = table.c.number == func.coalesce(live, 0)
        connection.execute(delete(table).where(*old, table.c.number <= last, not_(is_live)))


def version_from_row(row: Row[Any]) -> Version:
    """Build a version from its row, with or without the column of its adaptation."""
    facts = json.loads(row.facts)
    return Version(
        annotations=row.annotations,
        pictures=row.pictures,
        digest=row.digest,
        better=bool(row.better),
        origin=row.origin,
        created=row.created,
        number=row.number,
        text_iou=facts.get("text_iou"),
        adapted_iou=facts.get("adapted_iou"),
        text_ious=facts.get("text_ious", {}),
        adapted_ious=facts.get("adapted_ious", {}),
        thresholds=facts.get("thresholds", {}),
        adapted_thresholds=facts.get("adapted_thresholds", {}),
        refused=facts.get("refused", {}),
        set_aside=tuple(SetAsideAnnotation(**each) for each in facts.get("set_aside", ())),
        presence=facts.get("presence", ""),
        synonyms=facts.get("synonyms", ""),
        objection=facts.get("objection", ""),
    )


def adaptation_from_row(row: Row[Any]) -> Adaptation | None:
    """Build the adaptation of a version from its row; None where the version has none.

    Raises:
        ValueError: the bytes are none of this release.
    """
    return None if row.adaptation is None else Adaptation.from_bytes(row.adaptation)


def _newest_row(connection: Connection, project: int, model: str) -> Row[Any] | None:
    query = select(VERSIONS).where(*in_project(VERSIONS, project, model))
    return connection.execute(query.order_by(VERSIONS.c.number.desc()).limit(1)).first()
