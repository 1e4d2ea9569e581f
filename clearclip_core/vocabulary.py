"""Labels, their prompts, files of their names, and the vocabulary of labels and contrast words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

#: Cosines with words are multiplied by this before the softmax (the paper's released settings).
TEMPERATURE = 50.0

#: Names of a label that stands for all that no other label names, in lower case.
BACKGROUND_NAMES = ("background", "other")

#: Lines of a file of names that name no label, and what `MapNames.indices` has for them.
_UNNAMED: dict[str, int | None] = {"-": -1, "?": None}

_MAX_NAMES = 254  # lines that a file of names has at most


@dataclass(frozen=True)
class Label:
    """A class and the words that describe it.

    Raises:
        ValueError: an empty name or prompt, or a string in place of a tuple of prompts.

    >>> Label("sofa", ("sofa", "couch")).prompts
    ('sofa', 'couch')
    """

    name: str
    #: words or phrases that describe it. Each is a query of its own, and the best one counts. By
    #: default the name.
    prompts: tuple[str, ...] = ()
    #: whether the class stands for all that no other label names. It then takes over the contrast
    #: words of its `Vocabulary`.
    background: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str):
            raise ValueError(
                f"Expected argument `prompts` to be a tuple of words, but got {self.prompts!r}."
            )
        object.__setattr__(self, "prompts", tuple(self.prompts) or (self.name,))
        if not all(word.strip() for word in (self.name, *self.prompts)):
            raise ValueError(
                "Expected arguments `name` and `prompts` to hold words, but got "
                f"{self.name!r} and {self.prompts!r}."
            )


@dataclass(frozen=True)
class Vocabulary:
    """Labels, and contrast words that compete with them but never appear in a result.

    Without contrast words every pixel gets some label: with the one label "dog" a softmax over
    one class labels the whole image. Contrast words win where no label fits. A contrast word that
    a label has as a prompt is left out.

    Raises:
        ValueError: no labels, two labels of one name, or two background labels.

    >>> words = Vocabulary((Label("dog"), Label("lawn", ("grass",))), contrast=("grass", "sky"))
    >>> words.queries
    ('dog', 'grass', 'sky')
    >>> words.query_labels
    (0, 1, -1)
    """

    labels: tuple[Label, ...]
    contrast: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [label.name for label in self.labels]
        if not names or len(set(names)) != len(names):
            raise ValueError(
                f"Expected argument `labels` to hold one or more different names, but got {names}."
            )
        if sum(label.background for label in self.labels) > 1:
            raise ValueError("Expected at most one background label, but got several.")

    @classmethod
    def of(cls, labels: Labels, contrast: Iterable[str] = ()) -> Vocabulary:
        """Build a vocabulary from names, labels or words by name; one is returned unchanged.

        Args:
            labels: names, `Label` values, words by name, or a `Vocabulary`.
            contrast: words that compete with the labels and are none.

        Raises:
            ValueError: a single string, which would be read letter by letter, a set, whose order
                is another in each process, or something else than names, labels and words.

        >>> Vocabulary.of(["sky", Label("tree")]).names
        ('sky', 'tree')
        >>> Vocabulary.of({"sofa": ["sofa", "couch"], "cat": "kitten"}).queries
        ('sofa', 'couch', 'kitten')
        """
        if isinstance(labels, Vocabulary):
            return labels
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise ValueError(f"Expected argument `labels` to be several names, but got {labels!r}.")
        if isinstance(labels, AbstractSet):
            raise ValueError(
                "Expected argument `labels` to be in an order, which is that of the label map, but "
                f"got a set: give sorted({labels!r})."
            )
        given = labels.items() if isinstance(labels, Mapping) else labels
        return cls(tuple(map(_label, given)), tuple(contrast))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the labels, in their order."""
        return tuple(label.name for label in self.labels)

    @property
    def queries(self) -> tuple[str, ...]:
        """Every prompt of every label, then the contrast words that no label uses.

        A background label's contrast words follow its own prompts, so that the queries of one
        class are consecutive.
        """
        return tuple(query for query, _ in self._pairs)

    @property
    def query_labels(self) -> tuple[int, ...]:
        """The index of each query's label; -1 for a contrast word."""
        return tuple(index for _, index in self._pairs)

    @cached_property
    def _pairs(self) -> tuple[tuple[str, int], ...]:
        prompts = [(word, i) for i, label in enumerate(self.labels) for word in label.prompts]
        used = {_normal_form(prompt) for prompt, _ in prompts}
        unused = dict.fromkeys(word for word in self.contrast if _normal_form(word) not in used)
        backgrounds = [i for i, label in enumerate(self.labels) if label.background]
        label_of_contrast = backgrounds[0] if backgrounds else -1
        pairs = (*prompts, *((word, label_of_contrast) for word in unused))
        return tuple(sorted(pairs, key=lambda pair: pair[1] % (len(self.labels) + 1)))  # -1 last


#: What `Vocabulary.of` takes.
Labels = Vocabulary | Mapping[str, str | Iterable[str]] | Iterable[str | Label]


def _label(given: object) -> Label:
    """Return a name, or a pair of a name and its words, as a label."""
    if isinstance(given, Label):
        return given
    name, words = given if isinstance(given, tuple) and len(given) == 2 else (given, ())
    words = tuple(words) if isinstance(words, Iterable) and not isinstance(words, str) else (words,)
    if not all(isinstance(word, str) for word in (name, *words)):
        raise ValueError(
            "Expected argument `labels` to hold names, labels or pairs of a name and its words, "
            f"but got {given!r}."
        )
    return Label(str(name), tuple(map(str, words)))


@dataclass(frozen=True)
class MapNames:
    """What the values of label maps stand for, from a file of names."""

    labels: tuple[Label, ...]
    #: For each value from 0 on, the index of its label; -1 where pixels have no label, None where
    #: they are not counted.
    indices: tuple[int | None, ...]

    @classmethod
    def read(cls, path: Path) -> MapNames:
        """Read a file of names.

        Args:
            path: a text file in UTF-8, whose first line is for value 0, the next one for value 1.
                A label's line has its words, separated by commas: the first is its name, and each
                is a prompt. The line "-" is for pixels without a label, "?" for pixels that are not
                counted. The first label called "background" or "other" is the
                background, as in a project.

        Raises:
            ValueError: no text, a line without a word, a name twice, no name, or more than 254
                lines.
            OSError: the file cannot be read.
        """
        lines = read_lines(path)
        labels: list[Label] = []
        indices: list[int | None] = []
        for number, line in enumerate(lines, 1):
            if line.strip() in _UNNAMED:
                indices.append(_UNNAMED[line.strip()])
            else:
                indices.append(len(labels))
                label = _read_label(line, f"line {number} of {path}")
                first = not any(each.background for each in labels)
                labels.append(replace(label, background=first and _is_background(label)))
        names = {label.name for label in labels}
        if not names or len(names) != len(labels) or len(lines) > _MAX_NAMES:
            raise ValueError(
                f"Expected {path} to hold one or more different names in at most {_MAX_NAMES} "
                f"lines, but got {len(lines)} lines with {len(names)} different names."
            )
        return cls(tuple(labels), tuple(indices))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: no text in UTF-8; the message names the file.
        OSError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").strip("\n").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"Expected {path} to be a text file in UTF-8, but it is not.") from None


def _read_label(line: str, where: str) -> Label:
    words = tuple(filter(None, (word.strip() for word in line.split(","))))
    if not words:
        raise ValueError(f"Expected {where} to name a label, or to be - or ?, but it is empty.")
    return Label(words[0], words)


def _is_background(label: Label) -> bool:
    return label.name.casefold() in BACKGROUND_NAMES


def _normal_form(word: str) -> str:
    return re.sub(r"[\s_-]+", " ", word).strip().lower()


#: Contrast words of models for photographs: where they win, nothing is predicted.
STUFF_WORDS: tuple[str, ...] = tuple(
    (  # noqa: SIM905 -- the formatter has a line for each item
        "sky cloud wall floor ceiling ground soil road pavement grass plant tree building water "
        "sea mountain rock sand snow fence window door curtain furniture cloth paper metal wood "
        "shadow background"
    ).split()
)

#: Contrast words of the demo model, which are all that it knows: the 18 labels of the drawn
#: scenes, in the order of their label maps.
DEMO_WORDS: tuple[str, ...] = tuple(
    (  # noqa: SIM905
        "sky cloud sun mountain grass tree house road car water boat person dog flower fence rock "
        "sand snow"
    ).split()
)
