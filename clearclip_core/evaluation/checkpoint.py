"""The checkpoint of a pass over a data set."""

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
    """The file from which an interrupted pass is resumed.

    One file holds all tallies and the number of images that they count, and is written atomically:
    if the process dies, no image is counted twice. The file also holds the versions of the
    packages; a pass is not resumed under other versions.

    Attributes:
        path: path of the file.
        key: digest of the run's configuration; a checkpoint with another key is ignored.
    """

    path: Path
    key: str

    @classmethod
    def beside(cls, result: Path, key: str) -> Checkpoint:
        """Return the checkpoint of a result file; each key has a file of its own."""
        return cls(result.with_name(f"{result.name}.{key[:12]}.partial"), key)

    def save(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies.

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
        """Read the tallies; None where there is no checkpoint of this key.

        Args:
            methods: number of tallies.

        Raises:
            ValueError: the checkpoint was written under other versions.
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
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # no file, or not a checkpoint
        if others:
            raise ValueError(
                f"{self.path} was counted under other versions ({others}). Go on with those, or "
                "remove it to begin anew."
            )
        return tallies

    def remove(self) -> None:
        """Remove the file, as the pass is complete."""
        remove_whole(self.path)
