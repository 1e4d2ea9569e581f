"""ExperimentStore with annotators whose times are known, and what counts in them."""

from collections.abc import Iterable

import numpy as np
import pytest

from backend.database.database import Database
from backend.feedback import experiment
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.experiment import ENOUGH, LEAST, Experiment, ExperimentStore, Saved, Timed
from tests.backend.conftest import Clock

TASKS = range(1, 1001)


class Studio:
    """Annotations of project 7, read one after the other."""

    def __init__(self, database: Database) -> None:
        self._store = AnnotationStore(database, "me")
        self._count = 0

    def annotate(
        self,
        tasks: Iterable[int],
        kind: AnnotationOrigin,
        seconds: float,
        at: float,
        predicted: float = 0.0,
    ) -> None:
        for task in tasks:
            self._count += 1
            self._store.mark(7, [self._count])
            times = {"seconds": seconds, "created": at, "updated": at, "predicted": predicted}
            read = ReadAnnotation(self._count, 7, task, kind, annotator=task % 3, **times)
            self._store.complete(self._store.lease(1)[0], read)


def test_an_experiment_ends_and_says_what_is_saved(database: Database, clock: Clock) -> None:
    experiments, studio = ExperimentStore(database), Studio(database)
    assert experiments.withhold(7, TASKS) == set()
    experiments.begin(7)
    drawn = sorted(experiments.withhold(7, TASKS))
    assert experiments.withhold(8, TASKS) == set()
    assert 60 < len(drawn) < 140
    others = [task for task in TASKS if task not in drawn]
    predicted_before, began = clock.now - 1, clock.now
    clock.now += 100
    studio.annotate(others[:5], "compared", 9000, clock.now, predicted_before)
    studio.annotate(others[5:10], "scratch", 9000, clock.now)
    studio.annotate(drawn[50:55], "compared", 9000, clock.now, began)
    studio.annotate(drawn[55:60], "scratch", 9000, began - 1)
    studio.annotate(others[10:60], "compared", 60, clock.now, began)
    studio.annotate(others[60:70], "unchecked", 3, clock.now, began)
    studio.annotate(drawn[: ENOUGH - 1], "scratch", 120, clock.now)
    found = experiments.find(7)
    assert found == Experiment(began, None, ENOUGH - 1, 60)
    assert found.notes == ()
    assert "so far 29, and 60 with a prediction" in found.sentence
    assert experiments.withheld(7) == tuple(drawn)
    studio.annotate(drawn[ENOUGH - 1 : ENOUGH], "scratch", 120, clock.now)
    assert experiments.withhold(7, TASKS) == set(), "the others get predictions now"
    assert experiments.withheld(7) == ()
    clock.now += 100
    studio.annotate(others[70:90], "compared", 9000, clock.now, clock.now)
    over = experiments.find(7)
    assert (over.without, over.beside, over.ended) == (ENOUGH, 60, clock.now - 100)
    assert over.saved.seconds == pytest.approx(120 - (50 * 60 + 10 * 3) / 60)
    assert "A prediction saves 1 min 10 s a picture" in over.sentence
    experiments.begin(7)
    assert experiments.withhold(7, TASKS) != set(drawn), "another experiment draws others"


def test_tasks_that_were_withheld_once_stay_so(database: Database) -> None:
    """Requests and jobs each ask about some of the tasks."""
    experiments = ExperimentStore(database)
    experiments.begin(7)
    first, second = (experiments.withhold(7, some) for some in (TASKS[:500], TASKS[500:]))
    assert experiments.withheld(7) == tuple(sorted(first | second))
    assert experiments.withhold(7, TASKS[:500]) == first
    assert experiments.withheld(7) == tuple(sorted(first | second))


def test_what_no_bound_cures_is_counted_beside_the_result(database: Database, clock: Clock) -> None:
    experiments, studio = ExperimentStore(database), Studio(database)
    experiments.begin(7)
    drawn = sorted(experiments.withhold(7, TASKS))[:33]
    others = [task for task in TASKS if task not in experiments.withheld(7)]
    left = len(experiments.withheld(7)) - len(drawn)
    studio.annotate(others[:40], "compared", 60, clock.now, clock.now)
    studio.annotate(others[40:45], "unchecked", 3, clock.now, clock.now)
    studio.annotate(drawn[:29], "scratch", 120, clock.now)
    studio.annotate(drawn[28:33], "skipped", 5, clock.now)  # one of them is annotated, too
    experiments.stop(7)
    found = experiments.find(7)
    assert found is not None
    assert (found.skipped, found.open, found.hasty) == (4, left, 5)
    first, second = found.notes
    assert first.startswith(f"Of {33 + left} tasks without a prediction 4 were skipped and {left} ")
    assert second.startswith("Of 45 with a prediction 5 were submitted unchanged in less than 5 s")


@pytest.mark.parametrize("scene", ["lunch breaks", "predictions that fail on hard pictures"])
def test_one_bound_for_both_sides_bends_nothing(
    scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds of their own cut the quicker side sooner: 15 and 37 % too much is saved then."""
    monkeypatch.setattr(experiment, "_DRAWS", 1)
    rng, saved, true = np.random.default_rng(3), 0.0, 0.0
    for _ in range(400):
        is_hard = rng.random((2, 9 * ENOUGH)) < 0.1
        if scene == "lunch breaks":
            times = 100 * rng.lognormal(-0.125, 0.5, is_hard.shape) * np.array([[1], [0.4]])
            measured = times + 1800 * (rng.random(is_hard.shape) < 0.04)
        else:
            share = np.stack([np.ones(is_hard.shape[1]), np.where(is_hard[1], 1, 0.4)])
            hard = np.where(is_hard, 5, 1)
            measured = times = 100 * rng.lognormal(-0.125, 0.5, is_hard.shape) * hard * share
        sides = [[Timed(float(each), task) for task, each in enumerate(side)] for side in measured]
        saved += experiment.saved_seconds(sides[0][:ENOUGH], sides[1]).seconds
        true += times[0, :ENOUGH].mean() - times[1].mean()
    assert saved / true == pytest.approx(1, abs=0.1)


def test_the_bootstrap_draws_annotators_too() -> None:
    """It saves one person 50 s and the other 150: which of them one has asked decides."""

    def times(task: int, quick_s: float, slow_s: float) -> list[Timed]:
        quick = [Timed(quick_s, task + n, annotator=1) for n in range(30)]
        return quick + [Timed(slow_s, task + n, annotator=2) for n in range(30, 60)]

    found = experiment.saved_seconds(times(0, 100, 300), times(100, 50, 150))
    assert (found.low, found.high) == (pytest.approx(50), pytest.approx(150))


def test_an_experiment_stopped_early_tells_nothing(database: Database, clock: Clock) -> None:
    experiments, studio = ExperimentStore(database), Studio(database)
    experiments.begin(7)
    experiments.begin(7)
    drawn = sorted(experiments.withhold(7, TASKS))
    studio.annotate(drawn[: LEAST - 1], "scratch", 120, clock.now)
    others = [task for task in TASKS if task not in drawn]
    studio.annotate(others[: LEAST + 5], "compared", 60, clock.now, clock.now)
    experiments.stop(7)
    found = experiments.find(7)
    assert (found.saved, experiments.withhold(7, TASKS)) == (None, set())
    assert "Too few" in found.sentence


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (Saved(110, 80, 145), "1 min 50 s a picture (90 % range: 1 min 20 s to 2 min 25 s; 31"),
        (Saved(-20, -60, -5), "costs 20 s a picture (90 % range: 5 s to 1 min; 31"),
        (Saved(5, -10, 20), "open whether a prediction saves time a picture (90 % range: −10 s to"),
    ],
)
def test_what_is_found_is_said_with_its_range(saved: Saved, said: str) -> None:
    assert said in Experiment(0, 1, 31, 280, saved).sentence


@pytest.mark.parametrize("saves", [0.4, 0.0])
@pytest.mark.parametrize("people", [1, 4])
def test_the_interval_holds(people: int, saves: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """People differ in pace, in what a prediction saves them and in how much they annotate."""
    monkeypatch.setattr(experiment, "_DRAWS", 200)
    rng, held, trials = np.random.default_rng(5), 0, 100
    for _ in range(trials):
        pace = 170 * rng.lognormal(0, 0.3, people)
        left = 1 - saves * rng.uniform(0.5, 1.5, people)
        share = rng.dirichlet(np.full(people, 3.0))
        sides: tuple[list[Timed], list[Timed]] = [], []
        for side, count in enumerate((ENOUGH, 9 * ENOUGH)):
            for who in rng.choice(people, count, p=share).tolist():
                time = pace[who] * rng.lognormal(-0.125, 0.5) * (left[who] if side else 1)
                sides[side].append(Timed(float(time), int(rng.integers(1 << 40)), who))
        found = experiment.saved_seconds(*sides)
        held += found.low <= float((share * pace * (1 - left)).sum()) <= found.high
    assert held >= 0.84 * trials
