"""Small pictures in reports that a database keeps: found, and taken out once they may not stay."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from backend.database.database import Database

_PICTURE: Final = re.compile("data:image/jpeg;base64,[A-Za-z0-9+/=]*")

_SVG: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="240" viewBox="0 0 320 240">'
    '<rect width="320" height="240" fill="#80808033"/><text x="160" y="126" fill="#808080" '
    'text-anchor="middle" font-family="sans-serif" font-size="22">Picture not kept</text></svg>'
)

#: Data URL of what pages show in place of a picture that is not kept.
NOT_KEPT: Final = f"data:image/svg+xml;base64,{base64.b64encode(_SVG.encode()).decode()}"


def without_pictures(text: str) -> str:
    """Return a report, as JSON, with `NOT_KEPT` in place of each picture.

    >>> without_pictures('{"picture": "data:image/jpeg;base64,/9j/4A=="}') == (
    ...     '{"picture": "' + NOT_KEPT + '"}'
    ... )
    True
    """
    return _PICTURE.sub(NOT_KEPT, text)


def encode_report(report: msgspec.Struct, *, keeps_pictures: bool) -> str:
    """Encode a report as JSON, with or without its pictures."""
    text = msgspec.json.encode(report).decode()
    return text if keeps_pictures else without_pictures(text)


def has_pictures(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a column's report has a picture."""
    return column.like("%data:image/jpeg;base64,%")


def forget_pictures(
    database: Database, column: sa.Column[Any], rows: Iterable[Sequence[Any]]
) -> int:
    """Take the pictures out of a column's reports, each in a transaction of its own.

    Args:
        database: that has the table.
        column: the reports, as JSON.
        rows: the values of the table's primary key, of each row.

    Returns:
        How many rows have lost theirs.
    """
    changed = 0
    for row in rows:
        keys = zip(column.table.primary_key, row, strict=True)
        its = [key == value for key, value in keys]
        with database.write() as connection:
            report = connection.scalar(sa.select(column).where(*its))
            if report:
                kept = {column.name: without_pictures(report)}
                connection.execute(sa.update(column.table).where(*its).values(kept))
                changed += 1
    return changed
