"""Adapted scores: one linear function of the features a label, added to the text scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.example import (
    UNLABELED,
    Arrays,
    check_names,
    check_shape,
    check_width,
    facts_digest,
    from_safetensors,
    to_safetensors,
)
from clearclip_core.adaptation.plots import draw_bars, png_of
from clearclip_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Terms that corrections add to the text scores: a direction and an offset a label.

    Attributes:
        names: names of the adapted labels, sorted.
        directions: (K, D) float32, added to the embeddings of a label's queries; (K, D + S) where
            it uses a second encoder's features too.
        offsets: (K,) float32, added to the cosines of a label's queries.
        pictures: number of corrected images.
        propagate: whether scores are propagated along edges, see `Segmenter.decide`.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.

    >>> words = Vocabulary.of(["sky", "sea"])
    >>> learned = Adaptation(("sea",), np.ones((1, 2), np.float32), np.ones(1, np.float32), 3)
    >>> embeddings, bias = learned.apply(torch.eye(2), words)
    >>> embeddings.tolist(), bias.tolist()
    ([[1.0, 0.0], [1.0, 2.0]], [0.0, 1.0])
    """

    names: tuple[str, ...]
    directions: npt.NDArray[np.float32] = field(repr=False)
    offsets: npt.NDArray[np.float32] = field(repr=False)
    pictures: int
    propagate: bool = False

    def __post_init__(self) -> None:
        check_names(self.names)
        check_shape("directions", self.directions, (len(self.names), self.width))
        check_shape("offsets", self.offsets, (len(self.names),))

    @property
    def width(self) -> int:
        """Dimension of the features, D."""
        return int(self.directions.shape[-1])

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content; equal digests give equal predictions."""
        return facts_digest(self._metadata, self._arrays)

    def apply(
        self, embeddings: torch.Tensor, vocabulary: Vocabulary
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the labels' terms to text embeddings.

        All queries of a label get its term. Queries without a term stay as they are, bit for bit,
        with zeros for a second encoder's features.

        Args:
            embeddings: (Q, D) embeddings of ``vocabulary.queries``.
            vocabulary: labels and contrast words.

        Raises:
            ValueError: embeddings of another model.

        Returns:
            (Q, D) or (Q, D + S) embeddings, no longer of length 1, and (Q,) offsets of the cosines.
        """
        missing = self.width - int(embeddings.shape[-1])
        if missing < 0:
            check_width(self.width, int(embeddings.shape[-1]))
        embeddings = torch.nn.functional.pad(embeddings, (0, missing))
        row = {name: index for index, name in enumerate(self.names)}
        adapted, bias = embeddings.clone(), embeddings.new_zeros(len(embeddings))
        for query, name in enumerate(query_names(vocabulary)):
            if name in row:
                adapted[query] += torch.from_numpy(self.directions[row[name]]).to(adapted)
                bias[query] = float(self.offsets[row[name]])
        return adapted, bias

    def plot(self) -> Figure:
        """Draw how far each label has moved from its words, whose embeddings are of length 1.

        Returns:
            A figure of matplotlib; notebooks show it for an adaptation by itself.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        lengths = np.linalg.norm(self.directions, axis=1).tolist()
        return draw_bars({"learned": lengths}, self.names, "length of the learned direction")

    def _repr_png_(self) -> bytes | None:
        """Show the plot in a notebook, where matplotlib is installed."""
        return png_of(self.plot)

    def save(self, path: Path | str) -> None:
        """Write the adaptation as a safetensors file.

        Args:
            path: of the file, which is replaced.

        >>> import tempfile
        >>> learned = Adaptation(("sea",), np.ones((1, 2), np.float32), np.ones(1, np.float32), 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     learned.save(f"{folder}/street.safetensors")
        ...     Adaptation.load(f"{folder}/street.safetensors").names
        ('sea',)
        """
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> Adaptation:
        """Read an adaptation that `save` has written.

        Args:
            path: of the file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or of another format.
        """
        return cls.from_bytes(Path(path).read_bytes())

    def to_bytes(self) -> bytes:
        """Return the adaptation as the bytes of a safetensors file."""
        return to_safetensors("adaptation", self._metadata, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Adaptation:
        """Read an adaptation from the bytes of `to_bytes`.

        Args:
            data: a safetensors file.

        Raises:
            ValueError: damaged bytes, or another format.
        """
        return from_safetensors(
            data,
            "adaptation",
            lambda facts, arrays: cls(
                tuple(facts["names"]),
                arrays["directions"],
                arrays["offsets"],
                int(facts["pictures"]),
                bool(facts.get("propagate", False)),
            ),
        )

    @property
    def _metadata(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"names": list(self.names), "pictures": self.pictures}
        # Digests of adaptations without it stay those of 0.2.0.
        return facts | {"propagate": True} if self.propagate else facts

    @property
    def _arrays(self) -> Arrays:
        return {"directions": self.directions, "offsets": self.offsets}


def query_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the label's name of each query, "" for a contrast word."""
    names = [*(label.name for label in vocabulary.labels), UNLABELED]
    return tuple(names[index] for index in vocabulary.query_labels)


def group_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the names of the labels and, where there are contrast words, ""."""
    return tuple(dict.fromkeys(query_names(vocabulary)))
