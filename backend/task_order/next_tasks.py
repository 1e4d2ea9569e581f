"""The tasks that were chosen to be corrected next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from clearclip_core.quantities import quantity

Json = dict[str, Any]

#: Tasks that are asked for at once, by default and at most.
DEFAULT_COUNT: Final = 20
MOST_TASKS: Final = 100

#: Pictures that are looked at, at most: so many for each task, within these bounds.
LOOKED_AT_PER_TASK: Final = 20
LEAST_LOOKED_AT: Final = 200
MOST_LOOKED_AT: Final = 1000


def most_looked_at(count: int) -> int:
    """Return how many pictures are looked at, at most, for so many tasks.

    >>> most_looked_at(5), most_looked_at(20), most_looked_at(100)
    (200, 400, 1000)
    """
    return min(MOST_LOOKED_AT, max(LEAST_LOOKED_AT, LOOKED_AT_PER_TASK * count))


@dataclass(frozen=True)
class NextTask:
    """A task to correct.

    Attributes:
        task: its id.
        picture: its picture, small, as a data URL.
    """

    task: int
    picture: str = field(default="", repr=False)


@dataclass(frozen=True)
class NextTasks:
    """Tasks without annotations whose pictures are no near-duplicates.

    Attributes:
        asked: number of tasks that were asked for.
        tasks: the tasks, in the order of the lots.
        unlabeled: number of all tasks of the project without an annotation or a draft.
        looked_at: number of their pictures that were compared.
        near_duplicates: number of these that were passed over as near-duplicates.
        examples: number of corrected pictures that they were compared with.
        seconds: time that it took.
        left_out: task -> why its picture was not compared; of the first tasks only.
        left_out_count: the number of all such tasks.
    """

    asked: int
    tasks: tuple[NextTask, ...]
    unlabeled: int
    looked_at: int
    near_duplicates: int
    examples: int
    seconds: float
    left_out: Mapping[int, str] = field(default_factory=dict)
    left_out_count: int = 0

    @property
    def shortage(self) -> str:
        """Why there are fewer tasks than were asked for; "" where there are as many."""
        if len(self.tasks) >= self.asked:
            return ""
        if not self.unlabeled:
            return "Each task of the project has an annotation or a draft."
        tried = self.looked_at + self.left_out_count
        if tried >= self.unlabeled:
            all_tried = (
                f"There are no more: {quantity(self.unlabeled, 'task')} without an annotation or "
                "a draft, all tried."
            )
            if not self.near_duplicates and not self.left_out_count:
                return all_tried
            return f"{all_tried} Those that are left look nearly like another, or cannot be read."
        return (
            f"{quantity(tried, 'picture')} of {quantity(self.unlabeled, 'task')} were tried, which "
            f"is the most for {quantity(self.asked, 'task')}. Ask again for others."
        )

    def to_json(self, *, pictures: bool = True) -> Json:
        """Return it as JSON.

        Args:
            pictures: with the pictures of the tasks.
        """
        return {
            "asked": self.asked,
            "tasks": [
                {"task": each.task} | ({"picture": each.picture} if pictures else {})
                for each in self.tasks
            ],
            "unlabeled": self.unlabeled,
            "looked_at": self.looked_at,
            "near_duplicates": self.near_duplicates,
            "examples": self.examples,
            "seconds": round(self.seconds, 3),
            "shortage": self.shortage,
            "left_out": [{"task": task, "reason": why} for task, why in self.left_out.items()],
            "left_out_count": self.left_out_count,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> NextTasks:
        """Read what `to_json` has written with pictures."""
        return cls(
            told["asked"],
            tuple(NextTask(each["task"], each["picture"]) for each in told["tasks"]),
            told["unlabeled"],
            told["looked_at"],
            told["near_duplicates"],
            told["examples"],
            told["seconds"],
            {each["task"]: each["reason"] for each in told["left_out"]},
            told["left_out_count"],
        )
