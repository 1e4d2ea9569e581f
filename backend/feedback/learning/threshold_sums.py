"""The sums of the threshold counts of all training examples of a project, in one row.

A row changes in the transaction that changes examples, so that a page reads one row in place of the
counts of a thousand examples. The counts are whole numbers of pixels, so that taking them away
again leaves nothing behind. A row says of how many examples it is the sum. Where that is not their
number, as after an upgrade, it is made anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)

from backend.database.database import METADATA
from backend.feedback.learning.tables import EXAMPLES, in_project
from backend.feedback.sums import add_count

THRESHOLD_SUMS: Final = Table(
    "threshold_sums",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("examples", Integer, nullable=False),
    Column("sums", Text, nullable=False),  # JSON
)

_NONE: Final = "{}"


@dataclass
class LabelThresholdSums:
    """Sums of a label over examples.

    Attributes:
        examples: how many count the label.
        right: pixels by confidence that the label has and should have.
        wrong: pixels by confidence that it has and should not have.
        true_px: pixels that it should have.
        shown: key of a picture that shows it -> how many examples are of that picture.
    """

    examples: int = 0
    right: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)
    true_px: float = 0.0
    shown: Counter[str] = field(default_factory=Counter)

    def add(self, counts: Mapping[str, Any], times: int) -> None:
        """Add the counts of an example; with ``times=-1``, take them away."""
        self.examples += times
        self.right = _added(self.right, counts["right"], times)
        self.wrong = _added(self.wrong, counts["wrong"], times)
        self.true_px += times * counts["true_px"]
        for picture in counts["shown"]:
            add_count(self.shown, picture, times)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that databases keep; these names stay."""
        return {
            "examples": self.examples,
            "right": self.right,
            "wrong": self.wrong,
            "true_px": self.true_px,
            "shown": dict(self.shown),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelThresholdSums:
        """Read what `to_json` has written."""
        shown = Counter(value["shown"])
        return cls(value["examples"], value["right"], value["wrong"], value["true_px"], shown)


def change_threshold_sums(
    connection: Connection, project: int, model: str, removed: Iterable[str], added: Iterable[str]
) -> None:
    """Bring the sums up to date with examples that have just changed.

    Args:
        connection: to the database, in the transaction that has changed them.
        project: whose examples.
        model: for which they are.
        removed: the `TrainingExample.threshold_counts` of those that are gone.
        added: the `TrainingExample.threshold_counts` of those that are new.
    """
    gone, new = list(removed), list(added)
    ours = in_project(THRESHOLD_SUMS, project, model)
    row = connection.execute(select(THRESHOLD_SUMS).where(*ours).with_for_update()).first()
    connection.execute(delete(THRESHOLD_SUMS).where(*ours))
    examples = _count(connection, project, model)
    counted, text = (0, _NONE) if row is None else (row.examples, row.sums)
    if examples and counted == examples - len(new) + len(gone):
        _insert(connection, project, model, examples, _change(text, gone, new))


def recount_threshold_sums(connection: Connection, project: int, model: str) -> str:
    """Add up all examples of a project anew; return the sums.

    Args:
        connection: to the database, in a transaction that has locked the project's state.
        project: whose examples.
        model: for which they are.
    """
    query = select(EXAMPLES.c.paint).where(*in_project(EXAMPLES, project, model))
    counts = list(connection.scalars(query))
    sums = _change(_NONE, (), counts)
    connection.execute(delete(THRESHOLD_SUMS).where(*in_project(THRESHOLD_SUMS, project, model)))
    _insert(connection, project, model, len(counts), sums)
    return sums


def read_threshold_sums(connection: Connection, project: int, model: str) -> str | None:
    """Return the sums of a project's examples; None where they are to be added up anew.

    Returns:
        JSON: name of the label -> its counts, of the form that
        `backend.feedback.learning.thresholds.counts_from_json` reads.
    """
    query = select(THRESHOLD_SUMS).where(*in_project(THRESHOLD_SUMS, project, model))
    row = connection.execute(query).first()
    counted, sums = (0, _NONE) if row is None else (row.examples, row.sums)
    return sums if counted == _count(connection, project, model) else None


def _count(connection: Connection, project: int, model: str) -> int:
    """Count the training examples of a project."""
    query = select(func.count()).select_from(EXAMPLES)
    return int(connection.execute(query.where(*in_project(EXAMPLES, project, model))).scalar_one())


def _change(text: str, removed: Iterable[str], added: Iterable[str]) -> str:
    """Return the JSON of sums without and with the counts of some examples."""
    sums = {name: LabelThresholdSums.from_json(each) for name, each in json.loads(text).items()}
    for examples, times in ((removed, -1), (added, 1)):
        for example in examples:
            for name, counts in json.loads(example).items():
                sums.setdefault(name, LabelThresholdSums()).add(counts, times)
    kept = {name: each.to_json() for name, each in sorted(sums.items()) if each.examples}
    return json.dumps(kept, separators=(",", ":"))


def _added(sums: list[float], counts: list[float], times: int) -> list[float]:
    before = sums or [0.0] * len(counts)
    return [one + times * two for one, two in zip(before, counts, strict=True)]


def _insert(connection: Connection, project: int, model: str, examples: int, sums: str) -> None:
    row = {"project": project, "model": model, "examples": examples, "sums": sums}
    connection.execute(insert(THRESHOLD_SUMS).values(row))
