"""The stores of learning on one database, and values to put into them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.database.database import Database
from backend.learning.examples import ExampleStore, TrainingExample
from backend.learning.versions import StepLease, Version, VersionStore
from backend.settings import Adapt
from clearclip_core import Adaptation


@dataclass(frozen=True)
class LearningStores:
    examples: ExampleStore
    versions: VersionStore

    @classmethod
    def of(
        cls, database: Database, owner: str, model_key: Callable[[], str] = lambda: "model"
    ) -> "LearningStores":
        return cls(ExampleStore(database, model_key), VersionStore(database, owner, model_key))

    def replace_all(self, *annotations: int, project: int = 7) -> None:
        for annotation in annotations:
            self.examples.replace(annotation, project, [example(f"of {annotation}")])

    def lease(self) -> StepLease:
        """Lease the step of project 7, however little has changed."""
        self.versions.request_step(7)
        lease = self.versions.lease_step(1, 7)
        assert lease is not None
        return lease

    def make_version(self, number: float | None = 1.0, goes_live: bool = True) -> Version:
        """Make a step of project 7; None: a version that has not passed the gate."""
        kept = self.commit(self.lease(), number, "auto" if goes_live else "ask")
        assert kept is not None
        if goes_live:
            self.use_first()
        return kept

    def commit(
        self, lease: StepLease, number: float | None = 1.0, adapt: Adapt = "auto"
    ) -> Version | None:
        """End a step; None: with a version that has not passed the gate."""
        scores = None if number is None else adaptation(number)
        return self.versions.commit(lease, version_with(scores), scores, adapt)

    def use_first(self) -> None:
        """Decide for the first version of project 7 if it waits; later ones go live then."""
        waits = self.versions.state(7).waits
        if waits is not None:
            self.versions.use(7, waits, pin=False)


def example(content: str) -> TrainingExample:
    return TrainingExample(content, content.encode())


def adaptation(number: float = 1.0) -> Adaptation:
    """An adaptation of one label with two features."""
    return Adaptation(("car",), np.full((1, 2), number, np.float32), np.zeros(1, np.float32), 1)


def version_with(scores: Adaptation | None, annotations: int = 10) -> Version:
    """A version of an adaptation, that was made of so many annotations."""
    return Version(
        annotations=annotations,
        digest="" if scores is None else scores.digest,
        better=scores is not None,
        text_iou=0.4,
        adapted_iou=0.5,
        text_ious={"car": 0.4},
        adapted_ious={"car": 0.5},
        shown={"car": 12},
    )
