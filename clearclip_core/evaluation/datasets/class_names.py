"""Class names of the benchmarks, and name files of one's own.

The files in ``classes/`` hold the names as evaluations of CLIP ask for them, one line a class in
the order of the data sets' indices: VOC's boat is a "ship", and names of two words are mostly
written as one ("tvmonitor", "trafficlight"). No names are expanded (Sec. 4.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from clearclip_core.vocabulary import Label

#: The class of all that no other names, in the benchmarks that have one.
BACKGROUND = "background"


def class_names(name: str) -> tuple[str, ...]:
    """The lines of one of the files in ``classes/``.

    >>> class_names("voc20")[3:6]
    ('ship', 'bottle', 'bus')
    """
    text = files(__package__).joinpath("class_names", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def as_labels(classes: Sequence[str]) -> tuple[Label, ...]:
    """Each class asked for by its own name."""
    return tuple(Label(name) for name in classes)


def read_labels(path: Path, classes: Sequence[str]) -> tuple[Label, ...]:
    """Other words for the classes of a benchmark, from a file.

    Args:
        path: a text file in UTF-8, one line a class in the order of `classes`; several words of a
            class are divided by commas, and each is a query of its own.
        classes: the benchmark's names, which results go on to use.

    Raises:
        ValueError: not as many lines as classes, or a line without a word.
        OSError: the file cannot be read.
    """
    lines = path.read_text(encoding="utf-8-sig").strip("\n").split("\n")
    if len(lines) != len(classes):
        raise ValueError(
            f"Expected {path} to have {len(classes)} lines, one a class from {classes[0]!r} to "
            f"{classes[-1]!r}, but got {len(lines)}."
        )
    labels = []
    for number, (name, line) in enumerate(zip(classes, lines, strict=True), 1):
        words = tuple(filter(None, (word.strip() for word in line.split(","))))
        if not words:
            raise ValueError(f"Expected line {number} of {path} to name {name!r}, but it is empty.")
        labels.append(Label(name, words))
    return tuple(labels)
