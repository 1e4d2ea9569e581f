"""Class names of the benchmarks, and files of other names.

The files in ``class_names/`` hold the names that evaluations of CLIP use, one line a class in the
order of the data sets' indices: VOC's boat is a "ship", and most names of two words are written as
one ("tvmonitor", "trafficlight"). No names are expanded (Sec. 4.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from clearclip_core.vocabulary import Label

#: Name of the class of pixels without another class.
BACKGROUND = "background"


def class_names(name: str) -> tuple[str, ...]:
    """Return the lines of a file in ``class_names/``.

    >>> class_names("voc20")[3:6]
    ('ship', 'bottle', 'bus')
    """
    text = (files(__package__) / "class_names" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def as_labels(classes: Sequence[str]) -> tuple[Label, ...]:
    """Return one label a class, whose only prompt is the class name."""
    return tuple(Label(name) for name in classes)


def read_labels(path: Path, classes: Sequence[str]) -> tuple[Label, ...]:
    """Read a file of other names for the classes of a benchmark.

    Args:
        path: a text file in UTF-8, one line a class in the order of `classes`. The words of a
            class are separated by commas; each is a query.
        classes: the benchmark's names, under which results are written.

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
