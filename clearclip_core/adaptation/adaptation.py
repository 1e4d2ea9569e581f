"""Adapted scores: one linear function of the features a label, added to the text scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.examples import UNLABELED
from clearclip_core.adaptation.learned_presence import LearnedPresence, cls_scores
from clearclip_core.adaptation.serialization import (
    check_names,
    check_shape,
    check_width,
    digest_of,
    to_safetensors,
    unpack_as,
)
from clearclip_core.vocabulary import Vocabulary

#: Names of the arrays of learned presence in files.
_PRESENCE_ARRAYS = ("presence_intercepts", "presence_slopes")


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Terms that corrections add to the text scores: a direction and an offset a label.

    Attributes:
        names: names of the adapted labels, sorted; "" stands for the contrast words.
        directions: (K, D) float32, added to the embeddings of a label's queries.
        offsets: (K,) float32, added to the cosines of a label's queries.
        pictures: number of corrected images.
        presence: how likely labels are in an image at all, by its CLS score; None where that was
            not learned.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.

    >>> words = Vocabulary.of(["sky", "sea"])
    >>> learned = Adaptation(("sea",), np.ones((1, 2), np.float32), np.ones(1, np.float32), 3)
    >>> embeddings, bias = learned.apply(torch.eye(2), words)
    >>> embeddings.tolist(), bias.tolist()
    ([[1.0, 0.0], [1.0, 2.0]], [0.0, 1.0])
    """

    names: tuple[str, ...]
    directions: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]
    pictures: int
    presence: LearnedPresence | None = None
    joined: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_names(self.names)
        check_names(self.joined)
        check_shape("directions", self.directions, (len(self.names), self.width))
        check_shape("offsets", self.offsets, (len(self.names),))

    @property
    def width(self) -> int:
        """Dimension of the features, D."""
        return int(self.directions.shape[-1])

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content; equal digests give equal predictions."""
        return digest_of(self._metadata, self._arrays)

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        return all(np.isfinite(array).all() for array in self._arrays.values())

    @property
    def needs_cls(self) -> bool:
        """Whether images need CLS features."""
        return self.presence is not None

    def without_presence(self) -> Adaptation:
        """Return the adaptation without learned presence, for images without CLS features."""
        return replace(self, presence=None)

    def apply(
        self,
        embeddings: torch.Tensor,
        vocabulary: Vocabulary,
        image_cls: torch.Tensor | None = None,
        words: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the labels' terms to text embeddings.

        All queries of a label get its term; contrast words get the term of "". Queries without a
        term stay as they are, bit for bit. The prompts of `joined` are joined later, in scores:
        `join_synonyms`.

        Args:
            embeddings: (Q, D) embeddings of ``vocabulary.queries``.
            vocabulary: labels and contrast words.
            image_cls: (D,) unit CLS feature of the image, which learned presence needs.
            words: (Q, D) unit text embeddings by which CLS scores are computed, where `embeddings`
                are scaled; `embeddings` by default.

        Raises:
            ValueError: embeddings of another model, or no CLS feature where presence was learned.

        Returns:
            (Q, D) embeddings, no longer of length 1, and (Q,) offsets of the cosines.
        """
        check_width(self.width, int(embeddings.shape[-1]))
        row = {name: index for index, name in enumerate(self.names)}
        adapted, bias = embeddings.clone(), embeddings.new_zeros(len(embeddings))
        for query, name in enumerate(query_names(vocabulary)):
            if name in row:
                adapted[query] += torch.from_numpy(self.directions[row[name]]).to(adapted)
                bias[query] = float(self.offsets[row[name]])
        if self.presence is not None:
            if image_cls is None:
                raise ValueError(
                    "Expected argument `image_cls` to be a feature where presence was learned, but "
                    "got None: encode with `with_cls=True`."
                )
            own = embeddings if words is None else words
            bias = bias + _presence_terms(self.presence, own, image_cls, vocabulary).to(bias)
        return adapted, bias

    def to_bytes(self) -> bytes:
        """Return the adaptation as the bytes of a safetensors file."""
        return to_safetensors("adaptation", self._metadata, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes, width: int | None = None) -> Adaptation:
        """Read an adaptation from the bytes of `to_bytes`.

        Args:
            data: the bytes.
            width: expected dimension of the features; None accepts any.

        Raises:
            ValueError: damaged bytes, another format, or features of another model.
        """
        made = unpack_as(
            data,
            "adaptation",
            ("directions", "offsets"),
            lambda metadata, arrays: cls(
                tuple(metadata["names"]),
                arrays["directions"],
                arrays["offsets"],
                int(metadata["pictures"]),
                _presence_of(metadata, arrays),
                tuple(metadata.get("joined", ())),
            ),
            optional=_PRESENCE_ARRAYS,
        )
        check_width(made.width, width)
        return made

    @property
    def _metadata(self) -> dict[str, Any]:
        metadata = {"names": list(self.names), "pictures": self.pictures}
        # Absent values stay out, so that adaptations without them keep their digests.
        if self.presence is not None:
            metadata["presence"] = list(self.presence.names)
        if self.joined:
            metadata["joined"] = list(self.joined)
        return metadata

    @property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {"directions": self.directions, "offsets": self.offsets}
        if self.presence is not None:
            numbers = self.presence.intercepts, self.presence.slopes
            arrays |= dict(zip(_PRESENCE_ARRAYS, numbers, strict=True))
        return arrays


def _presence_terms(
    presence: LearnedPresence, words: torch.Tensor, image_cls: torch.Tensor, vocabulary: Vocabulary
) -> torch.Tensor:
    """Return (Q,) what learned presence adds to the cosines of each query."""
    owners = query_names(vocabulary)
    return torch.from_numpy(presence.of(cls_scores(words, image_cls, owners), owners))


def _presence_of(
    metadata: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]
) -> LearnedPresence | None:
    """Read learned presence from metadata and arrays; None where there is none."""
    if "presence" not in metadata:
        return None
    return LearnedPresence(tuple(metadata["presence"]), *(arrays[n] for n in _PRESENCE_ARRAYS))


def query_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the label's name of each query, "" for a contrast word."""
    names = [*(label.name for label in vocabulary.labels), UNLABELED]
    return tuple(names[index] for index in vocabulary.query_labels)


def group_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the names of the labels and, where there are contrast words, ""."""
    return tuple(dict.fromkeys(query_names(vocabulary)))
