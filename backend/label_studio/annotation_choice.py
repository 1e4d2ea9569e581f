"""Choose which annotations of a task count: for a training set, an evaluation, or a label map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from backend.errors import BadRequest
from backend.label_studio.records import Annotation

Rule = Literal["preferred", "newest", "ground-truth", "annotator", "majority"]


@dataclass(frozen=True)
class AnnotationChoice:
    """Says which annotations count where a task has several; skipped ones never do.

    Attributes:
        rule: "preferred", the newest that is marked as ground truth, else the newest; "newest", the
            one that was changed last; "ground-truth", the newest that is marked as such;
            "annotator", the newest of one annotator; "majority", the newest of each.
        annotator: id of the annotator, for that rule.
    """

    rule: Rule = "preferred"
    annotator: int | None = None

    @classmethod
    def parse(cls, text: str) -> AnnotationChoice:
        """Read what a person has typed: the name of a rule, or the number of an annotator.

        Raises:
            BadRequest: it is neither.

        >>> AnnotationChoice.parse("5")
        AnnotationChoice(rule='annotator', annotator=5)
        """
        for rule in get_args(Rule):
            if text == rule != "annotator":
                return cls(rule)
        if text.isascii() and text.isdecimal() and len(text) < 19:
            return cls("annotator", int(text))
        raise BadRequest(
            "Expected the annotations to be preferred, newest, ground-truth, majority or the "
            f'number of an annotator, but got "{text[:50]}".'
        )

    def __str__(self) -> str:
        return self.rule if self.annotator is None else str(self.annotator)

    def choose(self, annotations: Iterable[Annotation]) -> list[Annotation]:
        """Return the annotations that count: several only for "majority".

        >>> old, new = Annotation(1, 1, 1, (), updated=5.0), Annotation(2, 1, 1, (), updated=6.0)
        >>> [each.id for each in AnnotationChoice().choose([new, old])]
        [2]
        >>> marked = Annotation(3, 1, 1, (), updated=1.0, ground_truth=True)
        >>> [each.id for each in AnnotationChoice().choose([new, marked, old])]
        [3]
        """
        ordered = sorted(annotations, key=lambda each: (each.updated, each.id))
        left = [each for each in ordered if not each.skipped]
        if self.rule == "preferred":
            left.sort(key=lambda each: each.ground_truth)  # the order of equals stays
        if self.rule == "ground-truth":
            left = [each for each in left if each.ground_truth]
        if self.rule == "annotator":
            left = [each for each in left if each.annotator == self.annotator]
        if self.rule == "majority":
            # An annotation without an annotator, such as an imported one, has a vote of its own.
            own = {each.id if each.annotator is None else (each.annotator,): each for each in left}
            return sorted(own.values(), key=lambda each: each.id)
        return left[-1:]
