"""Labels and the prompts that stand for them: the vocabulary that competes for pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Label:
    """A class of a project and the words that stand for it.

    Attributes:
        name: how the class is called in results.
        prompts: words or phrases that describe it; each is a query of its own and the best one
            counts. Empty means the name itself.
        background: the class stands for all that no other label names, and takes over the
            contrast words of its `Vocabulary`.

    Raises:
        ValueError: an empty name or prompt, or prompts that are one string.

    >>> Label("sofa", ("sofa", "couch")).prompts
    ('sofa', 'couch')
    """

    name: str
    prompts: tuple[str, ...] = ()
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
    one class paints the whole picture. Contrast words win where no label fits. Those that a label
    uses as a prompt itself are left out.

    Attributes:
        labels: at least one, names all different.
        contrast: words that stand for everything else.

    Raises:
        ValueError: no labels, a name that stands twice, or two background labels.

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
    def of(
        cls, labels: Vocabulary | Iterable[str | Label], contrast: Iterable[str] = ()
    ) -> Vocabulary:
        """Build a vocabulary from names or labels; one that is built already passes through.

        Raises:
            ValueError: one string, which would be read letter by letter.

        >>> [label.name for label in Vocabulary.of(["sky", Label("tree")]).labels]
        ['sky', 'tree']
        """
        if isinstance(labels, Vocabulary):
            return labels
        if isinstance(labels, str):
            raise ValueError(f"Expected argument `labels` to be several names, but got {labels!r}.")
        made = tuple(Label(label) if isinstance(label, str) else label for label in labels)
        return cls(made, tuple(contrast))

    @property
    def queries(self) -> tuple[str, ...]:
        """Every prompt of every label, then the contrast words that no label uses.

        Those that a background label takes over stand behind its own prompts: what belongs to one
        class follows one another.
        """
        return tuple(query for query, _ in self._pairs)

    @property
    def query_labels(self) -> tuple[int, ...]:
        """For each query the index of its label; -1 for a contrast word."""
        return tuple(index for _, index in self._pairs)

    @cached_property
    def _pairs(self) -> tuple[tuple[str, int], ...]:
        prompts = [(p, i) for i, label in enumerate(self.labels) for p in label.prompts]
        used = {_normal_form(prompt) for prompt, _ in prompts}
        rest = dict.fromkeys(word for word in self.contrast if _normal_form(word) not in used)
        backgrounds = [i for i, label in enumerate(self.labels) if label.background]
        owner = backgrounds[0] if backgrounds else -1
        pairs = (*prompts, *((word, owner) for word in rest))
        return tuple(sorted(pairs, key=lambda pair: pair[1] % (len(self.labels) + 1)))  # -1 last


def _normal_form(word: str) -> str:
    return re.sub(r"[\s_-]+", " ", word).strip().lower()
