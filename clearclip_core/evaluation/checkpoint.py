"""Where an interrupted pass over a data set goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearclip_core.evaluation.atomic_write import remove_whole, write_whole
from clearclip_core.evaluation.confusion_matrix import Confusion
from clearclip_core.evaluation.results import Tally, dump, other_versions, versions


@dataclass(frozen=True)
class Checkpoint:
    """The file from which an interrupted pass goes on.

    All tallies and how many pictures they have counted stand in one file, which is written whole
    or not at all: whenever the process dies, nothing is counted twice. So do the versions of the
    packages that counted: no pass goes on under others.

    Attributes:
        path: of the file.
        key: of all settings; what was written under others is not taken up.
    """

    path: Path
    key: str

    @classmethod
    def beside(cls, result: Path, key: str) -> Checkpoint:
        """The bookmark of a result that is to be; runs of other settings have their own."""
        return cls(result.with_name(f"{result.name}.{key[:12]}.partial"), key)

    def save(self, tallies: Sequence[Tally]) -> None:
        """Keep what has been counted.

        Raises:
            OSError: the file cannot be written.
        """
        content: dict[str, Any] = {
            "key": self.key,
            "versions": versions(),
            "pictures": tallies[0].pictures,
        }
        for index, tally in enumerate(tallies):
            content[f"seconds {index}"] = tally.seconds
            content[f"confusion {index}"] = tally.confusion.counts.tolist()
        write_whole(self.path, dump(content))

    def load(self, methods: int) -> tuple[Tally, ...] | None:
        """What has been counted; None where there is nothing to go on from.

        Args:
            methods: how many tallies there are to be.

        Raises:
            ValueError: it was counted under other versions.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["key"] != self.key:
                return None
            others = other_versions(content["versions"])
            tallies = tuple(
                Tally(
                    Confusion(np.array(content[f"confusion {index}"], np.int64)),
                    int(content["pictures"]),
                    float(content[f"seconds {index}"]),
                )
                for index in range(methods)
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # none, or no file of ours
            return None
        if others:
            raise ValueError(
                f"{self.path} was counted under other versions ({others}). Go on with those, or "
                "remove it to begin anew."
            )
        return tallies

    def remove(self) -> None:
        """The pass is through."""
        remove_whole(self.path)
