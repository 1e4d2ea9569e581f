"""The values of a request to the model: priority, image request, encoded image."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum

from clearclip_core import (
    Adaptation,
    DenseFeatures,
    Label,
    PreparedImage,
    ScoreOptions,
    Scores,
)


class Priority(IntEnum):
    """The order of service; the lowest number is the most urgent."""

    INTERACTIVE = 0  # an annotator has clicked and waits
    OPENED = 1  # an annotator has opened a task
    BATCH = 2  # a project is being prelabeled

    @property
    def word(self) -> str:
        """The priority's name in answers, metrics and logs."""
        return ("interactive", "opened", "batch")[self]


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """The features and scores of an image, from which prompts are answered."""

    features: DenseFeatures
    scores: Scores


@dataclass(eq=False)
class ImageRequest:
    """An image that is to be encoded and scored.

    Attributes:
        image: the prepared image.
        key: of its features in the cache; those with CLS features have keys of their own.
        labels: the labels that compete on it.
        priority: its priority.
        project: projects of one priority take turns.
        adaptation: the adaptation that its scores follow; None for the words alone.
        options: what counts beside the words.
        encoded: resolved with its features and scores, or with an error.
        began: set once the model has taken it, or never will.
        is_new: whether it has not been checked for missing words yet.
    """

    image: PreparedImage
    key: str
    labels: tuple[Label, ...]
    priority: Priority
    project: Hashable
    adaptation: Adaptation | None = None
    options: ScoreOptions = field(default_factory=ScoreOptions)
    encoded: Future[EncodedImage] = field(default_factory=Future)
    began: threading.Event = field(default_factory=threading.Event)
    is_new: bool = True

    @property
    def needs_cls(self) -> bool:
        """Whether its features need CLS features."""
        return needs_cls(self.options, self.adaptation)


def needs_cls(options: ScoreOptions, adaptation: Adaptation | None) -> bool:
    """Return whether scores of these options and this adaptation need CLS features."""
    return options.needs_cls or (adaptation is not None and adaptation.needs_cls)
