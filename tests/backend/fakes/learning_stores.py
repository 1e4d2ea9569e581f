"""All stores of learning on one database, and values to put into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.database.database import Database
from backend.feedback.learning.active_models import ActiveModels
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.step_queue import StepQueue
from backend.feedback.learning.trial_store import TrialStore
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.versions import TrainingExample, Version
from clearclip_core import Adaptation


@dataclass(frozen=True)
class LearningStores:
    """The stores of learning as one backend has them."""

    examples: ExampleStore
    registry: VersionRegistry
    steps: StepQueue
    active_models: ActiveModels
    trials: TrialStore

    @classmethod
    def of(
        cls, database: Database, owner: str, model_key: Callable[[], str] = lambda: "model"
    ) -> LearningStores:
        """Put the stores of a backend together."""
        registry = VersionRegistry(database, model_key)
        return cls(
            ExampleStore(database, model_key),
            registry,
            StepQueue(database, owner, model_key),
            ActiveModels(database, registry),
            TrialStore(database, model_key),
        )

    def replace_all(self, *annotations: int, project: int = 7) -> None:
        """Keep an example of each annotation."""
        for annotation in annotations:
            self.examples.replace(annotation, project, [example(f"of {annotation}")])

    def make_version(self, digest: str = "a", better: bool = True, number: float = 1.0) -> Version:
        """Make a step of project 7, whose version goes live where it is better."""
        lease = self.steps.lease_step(1, 7)
        assert lease is not None
        scores = adaptation(number) if better else None
        promotion = "live" if better else "words"
        made = version(digest, better)
        kept = self.steps.commit(lease, made, scores, promotion, pictures=["p", "q"])
        assert kept is not None
        return kept


def example(content: str) -> TrainingExample:
    """An example of some content, which no model could read."""
    return TrainingExample(content, content.encode(), "{}")


def adaptation(number: float = 1.0) -> Adaptation:
    """An adaptation of one label with two features."""
    return Adaptation(("car",), np.full((1, 2), number, np.float32), np.zeros(1, np.float32), 1)


def version(digest: str = "a", better: bool = True) -> Version:
    """A version that was made of ten annotations."""
    return Version(10, 12, digest, better, 0.4, 0.5, {"car": 0.4}, {"car": 0.5}, {"car": 0.3})
